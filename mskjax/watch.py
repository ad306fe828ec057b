"""How far a run is, from its folder alone: read while another process writes it, and never written.

Neither JAX nor the system is needed, so a run of any version and of a user's own system can be
looked at.  What is missing, half-written or removed at this moment counts as not there yet.
"""

import json
import math
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mskjax import history, locks
from mskjax.errors import UserError
from mskjax.training.saved import FAILED, saved_record, saved_step

Json = dict[str, Any]

_CURVES = ("train_loss", "validation_loss")
_PARTS = ("member_*", "seed_*")
_EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)\.")  # begins with the time of its making


def of(folder: Path) -> Json:
    """What is done of a run, what is at work, and how long training still takes.

    Args:
      folder: ``--workdir`` of a study or of a sweep.

    Returns:
      JSON (docs/going_on.md): ``run``, ``processes``, and of a study ``folds`` with their stages,
      or ``runs`` where it consists of several, or of a sweep ``trials``.

    Raises:
      UserError: there is no run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the --workdir of a run.")
    if (folder / "trials").is_dir():
        return _sweep(folder)
    config = _json(folder / "config.json")
    if "stages" not in config and locks.holder_of(folder) is None and not locks.parts(folder):
        raise UserError(f"{folder} holds no run: it has no config.json; give the --workdir of one.")
    return _study(folder, config)


def _study(folder: Path, config: Json) -> Json:
    parts = sorted(path for pattern in _PARTS for path in folder.glob(pattern))
    folds = [] if parts else [_fold(folder, k, config) for k in range(_count(folder))]
    runs = [_study(part, _json(part / "config.json")) for part in parts]
    seeds = any(part.name.startswith("seed_") for part in parts)
    together = range(_count(folder)) if seeds else ()
    _estimate([stage for fold in folds for stage in fold["stages"]])
    for fold in folds:
        fold["left_s"] = _total(stage["left_s"] for stage in fold["stages"])
    return {
        "run": str(folder),
        "system": config.get("system"),
        "variant": config.get("variant"),
        "finished": (folder / "report" / "report.html").exists(),
        "processes": _processes(folder),
        "extended": _extended(folder, config),
        "folds": folds,
        "runs": runs,
        "ensemble": [
            {"fold": k, "evaluation": _evaluation(folder, k, "ensemble")} for k in together
        ],
        "left_s": _total(part["left_s"] for part in (*folds, *runs)),
    }


def _extended(folder: Path, config: Json) -> list[str]:
    stages = _dict(config.get("stages"))
    try:
        named = {row["stage"] for row in _json(folder / history.HISTORY).get("extensions", ())}
        steps = {name: _steps(stages.get(_group(name, stages))) or 0 for name in named}
        return [str(extension) for extension in history.read(folder, steps)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _sweep(folder: Path) -> Json:
    trials = []
    for path in sorted((folder / "trials").glob("*")):
        if path.is_dir():
            found = _study(path, _json(path / "config.json"))
            stages = [stage for fold in found["folds"] for stage in fold["stages"]]
            trials.append(
                {
                    "trial": path.name,
                    "processes": found["processes"],
                    "trained": sum(stage["state"] == "trained" for stage in stages),
                    "failed": sum(stage["state"] == "failed" for stage in stages),
                    "stages": len(stages),
                    "validated": _validated(path),
                }
            )
    return {
        "run": str(folder),
        "finished": (folder / "sweep.json").exists(),
        "processes": [],
        "trials": trials,
    }


def _validated(folder: Path) -> int:
    """Folds whose validation patients are read, of all seeds."""
    places = ("fold_*/validation_cases.csv", "seed_*/fold_*/validation_cases.csv")
    return sum(1 for place in places for _ in folder.glob(place))


def _processes(folder: Path) -> list[Json]:
    """Who owns the folder or folds of it, as their locks say; the locks are not touched."""
    found = []
    for part in ("", *locks.parts(folder)):
        holder = locks.holder_of(folder, part)
        if holder is not None:
            state = "ended" if holder.is_dead else "running" if holder.is_local else "unknown"
            found.append(
                {
                    "part": part or None,
                    "host": holder.host,
                    "pid": holder.pid,
                    "started": holder.started,
                    "state": state,
                    "text": str(holder),
                }
            )
    return found


def _count(folder: Path) -> int:
    """Folds of a study, of its division or, before there is one, of those that are begun."""
    folds = _json(folder / "splits.json").get("folds")
    if isinstance(folds, list):
        return len(folds)
    numbers = (p.name.removeprefix("fold_") for p in folder.glob("fold_*"))
    return max((int(n) + 1 for n in numbers if n.isdigit()), default=0)


def _fold(folder: Path, number: int, config: Json) -> Json:
    fold = folder / f"fold_{number}"
    stages = _dict(config.get("stages"))
    # In the order in which they are trained, which config.json, whose names are sorted, lacks; and
    # a group of the config may be the options of several stages, NAME_...
    known = (
        _dict(_json(p).get("preprocessing")) for p in sorted(folder.glob("fold_*/system.json"))
    )
    names = next((list(order) for order in known if order), list(stages))
    return {
        "fold": number,
        "stages": [_stage(fold / name, _steps(stages.get(_group(name, stages)))) for name in names],
        "evaluation": _evaluation(folder, number),
    }


def _group(name: str, stages: Json) -> str:
    """The group of ``config.stages`` that holds the options of a stage."""
    groups = [group for group in stages if name == group or name.startswith(f"{group}_")]
    return max(groups, key=len, default="")


def _steps(options: Any) -> int | None:
    steps = _dict(_dict(options).get("train")).get("steps")
    return steps if isinstance(steps, int) else None


def _stage(folder: Path, steps: int | None) -> Json:
    rows = _rows(folder / "metrics.jsonl")
    cost, failed = _json(folder / "cost.json"), _json(folder / FAILED)
    architecture = _json(folder / "architecture.json")
    logged = max((row["step"] for row in rows), default=0)
    step = max(logged, saved_step(folder) or 0)
    state = "begun" if folder.exists() else "waiting"
    if failed:
        state = "failed"
    if cost and architecture:
        state, step = "trained", cost.get("steps", step)
    curves = {name: [[row["step"], row[name]] for row in rows if name in row] for name in _CURVES}
    last = {name: points[-1][1] if points else None for name, points in curves.items()}
    return {
        "stage": folder.name,
        "state": state,
        "step": step,
        "steps": steps,
        **last,
        "selected_step": architecture.get("selected_step") if state == "trained" else None,
        "failure": failed.get("why"),
        "steps_per_s": cost.get("steps_per_s") or _rate(folder, logged),
        "curves": curves,
    }


def _rate(folder: Path, logged: int) -> float | None:
    """Steps a second so far, compilation and validation included; None before any is known."""
    step, wall = saved_step(folder), saved_record(folder).get("wall_s")
    if step and wall:
        return step / wall
    begun = [int(m[1]) for p in folder.glob("events*") if (m := _EVENTS.match(p.name))]
    try:
        since = (folder / "metrics.jsonl").stat().st_mtime - max(begun)
    except (OSError, ValueError):
        return None
    return logged / since if logged and since > 1 else None


def _estimate(stages: list[Json]) -> None:
    """Adds ``left_s``: at a stage's own rate or, before it has one, at its rate in other folds."""
    for stage in stages:
        same = [s["steps_per_s"] for s in stages if s["stage"] == stage["stage"]]
        known = [rate for rate in same if rate]
        rate = stage["steps_per_s"] or (sum(known) / len(known) if known else None)
        ended = stage["state"] in ("trained", "failed")
        left = 0 if ended else max((stage["steps"] or 0) - stage["step"], 0)
        stage["left_s"] = left / rate if rate else None if left else 0.0


def _total(parts: Iterable[float | None]) -> float | None:
    """The sum; None where a part is not known."""
    known = list(parts)
    return None if any(part is None for part in known) else float(sum(p for p in known if p))


def _evaluation(folder: Path, number: int, below: str = "") -> Json:
    """Studies of a fold that are read, of those that it tests.

    Args:
      folder: of the study.
      number: of the fold.
      below: folder of what all seeds read together, in that of the study.
    """
    fold = folder / below / f"fold_{number}"
    folds = _json(folder / "splits.json").get("folds") or []
    tested = set(_dict(folds[number]).get("test") or ()) if number < len(folds) else set()
    index = _json(folder / "cohort.json").get("index") or []
    of = sum(patient in tested for patient, _ in index)
    if (fold / "cases.csv").exists():
        return {"state": "done", "read": of, "of": of}
    read = {row.get("study") for rows in _lines(fold / "cases.part.jsonl") for row in rows}
    return {"state": "begun" if read else "waiting", "read": len(read), "of": of}


def _rows(path: Path) -> list[Json]:
    """Rows of a metrics.jsonl whose values are finite."""
    return [
        {k: v for k, v in row.items() if isinstance(v, int | float) and math.isfinite(v)}
        for row in _lines(path)
        if isinstance(row, dict) and isinstance(row.get("step"), int)
    ]


def _lines(path: Path) -> list[Any]:
    """JSON of each whole line."""
    found = []
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # it is being written
            continue
    return found


def _json(path: Path) -> Json:
    """A JSON object; empty where there is none, or none that can be read now."""
    for _ in range(2):  # another file may take its name at this moment
        try:
            return _dict(json.loads(path.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            time.sleep(0.05)
    return {}


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
