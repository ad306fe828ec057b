"""What training left in the folder of a run, as a report prints it: cost, curves, architecture."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mskjax import history
from mskjax.errors import UserError
from mskjax.workdir import COMMAND
from mskjax.writers import read_rows as read_curve


def cost_of_seeds(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Cost of all seeds together."""
    costs = [own["cost"] for own in reports]
    wall = sum(c["wall_s"] for c in costs)
    steps = sum(c["steps_per_s"] * c["wall_s"] for c in costs)
    return {
        **costs[0],
        "wall_s": wall,
        "steps_per_s": steps / max(wall, 1e-9),
        "compile_s": sum(c["compile_s"] for c in costs),
        "peak_memory_bytes": max(c["peak_memory_bytes"] for c in costs),
        "stages": {
            stage: {"wall_s": sum(c["stages"][stage]["wall_s"] for c in costs)}
            for stage in costs[0]["stages"]
        },
    }


def cost(workdir: Path, stages: Sequence[str], folds: Sequence[int]) -> dict[str, Any]:
    """Cost of all stages of all folds, from their cost.json."""
    parts = [
        content(workdir / f"fold_{k}" / stage / "cost.json") for k in folds for stage in stages
    ]
    wall = sum(p["wall_s"] for p in parts)
    return {
        "wall_s": wall,
        "steps_per_s": sum(p["steps"] for p in parts) / max(wall, 1e-9),
        "device": parts[0]["device"],
        "compile_s": sum(p["compile_s"] for p in parts),
        "peak_memory_bytes": max(p["peak_memory_bytes"] for p in parts),
        "stages": {
            stage: {
                "wall_s": sum(
                    content(workdir / f"fold_{k}" / stage / "cost.json")["wall_s"] for k in folds
                ),
            }
            for stage in stages
        },
    }


def command(workdir: Path) -> str:
    """The command that makes a run again; of a run of an earlier version, by its config.json."""
    if (workdir / COMMAND).exists():
        return content(workdir / COMMAND)["command"]
    return "python -m mskjax.main --config=RUN/config.json --workdir=WORKDIR"


def architecture(workdir: Path, stages: Sequence[str]) -> list[dict[str, Any]]:
    """architecture.json of each stage, which is the same in all folds."""
    return [
        {"stage": stage, **content(workdir / "fold_0" / stage / "architecture.json")}
        for stage in stages
    ]


def curves(
    workdir: Path, stages: Sequence[str], folds: Sequence[int]
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Rows of metrics.jsonl by stage and fold; train and validation rows of a step are joined."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for stage in stages:
        for fold in folds:
            by_step: dict[float, dict[str, float]] = defaultdict(dict)
            for row in read_curve(workdir / f"fold_{fold}" / stage / "metrics.jsonl"):
                by_step[row["step"]] |= row
            found.setdefault(stage, {})[str(fold)] = list(by_step.values())
    return found


def recipe(workdir: Path, stages: Sequence[Any]) -> dict[str, Any]:
    """config.json, and in ``extended`` what trainings were given more steps, if any were.

    Folders of the machine are left out: a report may be published, and says the same elsewhere.
    """
    found, config = extended(workdir, stages), content(workdir / "config.json")
    data = {k: v for k, v in config["data"].items() if k not in ("data_dir", "manual_dir")}
    if data.get("splits") is not None:
        data["splits"] = "supplied"
    return {**config, "data": data, **({"extended": found} if found else {})}


def extended(workdir: Path, stages: Sequence[Any]) -> list[str]:
    """A sentence on each time that a stage was given more steps after it was begun.

    Args:
      workdir: of a run.
      stages: of its system.
    """
    steps = {stage.name: stage.train.steps for stage in stages}
    return [str(extension) for extension in history.read(workdir, steps)]


def content(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
      UserError: it is missing.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; finish the run first.") from None
