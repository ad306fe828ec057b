"""Says how far a run is: ``python -m mskjax.status DIR [--watch]``.

Reads only, also while the run is at work; with ``--watch`` again and again until it is finished.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mskjax import commands, watch
from mskjax.errors import UserError
from mskjax.progress import duration

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-~=+*#"
WIDTH = 32  # columns of a curve
EVERY_S = 5.0  # between two looks
CLEAR = "\x1b[2J\x1b[H"  # of a terminal, cursor to the upper left
_WORDS = {
    "running": "at work: {text}",
    "ended": "not at work: {text} has ended without a word; the same command goes on",
    "unknown": "taken by {text}; whether it is at work cannot be seen from here",
}


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and says how far a run is; returns the exit code."""
    return commands.run(_status, argv)


def _status(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="mskjax status", description=__doc__)
    parser.add_argument("run", metavar="DIR", help="--workdir of a study or of a sweep")
    parser.add_argument("--json", action="store_true", help="for programs (docs/going_on.md)")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=EVERY_S,
        metavar="SECONDS",
        help=f"say it until the run is finished, every {EVERY_S:g} s or as given; Ctrl-C ends",
    )
    flags = parser.parse_args(argv)
    if flags.watch is not None and (flags.json or not flags.watch > 0):
        raise UserError("--watch takes a number of seconds above 0, and goes without --json.")
    run = Path(flags.run)
    if flags.json:
        print(json.dumps(watch.of(run), indent=1))
    elif flags.watch is None:
        print(_text(watch.of(run)))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(run, flags.watch)


def _watch(run: Path, seconds: float) -> None:
    """Says how far a run is until it is finished; a terminal shows the last state alone."""
    before = ""
    while True:
        found = watch.of(run)
        if (text := _text(found)) != before:
            print(CLEAR + text if sys.stdout.isatty() else text, flush=True)
        if found["finished"]:
            return
        before = text
        time.sleep(seconds)


def _text(found: dict[str, Any]) -> str:
    return "\n".join(lines(found, can_print(BLOCKS, sys.stdout.encoding)))


def can_print(text: str, encoding: str | None) -> bool:
    """Whether an encoding has all characters of a text."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def lines(found: dict[str, Any], blocks: bool = True) -> Iterator[str]:
    """What `watch.of` has found, for a reader.

    Args:
      found: JSON.
      blocks: whether curves are drawn with block characters, or with ASCII.
    """
    if "trials" in found:
        yield from _sweep(found)
        return
    what = f"{found['system']} ({found['variant']})" if found["system"] else "not begun"
    yield f"{found['run']}: {what}" + (", finished" if found["finished"] else "")
    yield from (f"  {line}" for line in _processes(found["processes"]))
    if not found["processes"] and not found["finished"]:
        yield "  nothing is at work here; the same command goes on"
    yield from (f"  {extension}" for extension in found["extended"])
    for fold in found["folds"]:
        yield from _fold(fold, blocks)
    for part in found["runs"]:
        yield from (f"  {line}" for line in lines(part, blocks))
    if found["ensemble"]:
        yield "  ensemble of the seeds"
        for fold in found["ensemble"]:
            yield f"    {'fold_' + str(fold['fold']):12} {_read(fold['evaluation'])}"
    if found["folds"] or found["runs"]:
        yield f"  {_left(found)}"


def _left(found: dict[str, Any]) -> str:
    if found["finished"]:
        return "nothing is left"
    if found["left_s"] is None:
        return "time left: not known before a step of each stage is measured"
    if found["left_s"] == 0:
        return "time left: no training; evaluation and report"
    several = len(found["folds"]) > 1 or found["runs"]
    how = ", one after another" if several else ""
    return f"time left: about {duration(found['left_s'])} of training{how}"


def _processes(processes: Sequence[dict[str, Any]]) -> Iterator[str]:
    for process in processes:
        part = f"{process['part']} " if process["part"] else ""
        yield part + _WORDS[process["state"]].format(**process)


def _fold(fold: dict[str, Any], blocks: bool) -> Iterator[str]:
    yield f"  fold_{fold['fold']}"
    for stage in fold["stages"]:
        yield f"    {stage['stage']:12} {_about(stage)}"
        for name, points in stage["curves"].items():
            if len(points) > 1:
                first, last = points[0][1], points[-1][1]
                curve = sparkline(points, blocks)
                yield f"      {name.removesuffix('_loss'):10} {curve}  {first:.4g} to {last:.4g}"
    yield f"    {'evaluation':12} {_read(fold['evaluation'])}"


def _read(evaluation: dict[str, Any]) -> str:
    read, of = (evaluation[name] for name in ("read", "of"))
    done = {"done": "all read", "waiting": "waiting", "begun": f"{read} read"}
    return f"{done[evaluation['state']]} of {of} studies"


def _about(stage: dict[str, Any]) -> str:
    parts = [f"{stage['state']}, step {stage['step']} of {stage['steps']}"]
    if stage["state"] == "waiting":
        parts = [f"waiting, {stage['steps']} steps"]
    if stage["failure"]:
        parts.append(stage["failure"])
    for name in ("train_loss", "validation_loss"):
        if stage[name] is not None:
            parts.append(f"{name.replace('_', ' ')} {stage[name]:.4g}")
    if stage["selected_step"] not in (None, stage["step"]):
        parts.append(f"weights of step {stage['selected_step']}")
    if stage["steps_per_s"]:
        parts.append(f"{stage['steps_per_s']:.3g} steps/s")
    if stage["left_s"]:
        parts.append(f"about {duration(stage['left_s'])} left")
    return ", ".join(parts)


def sparkline(points: Sequence[Sequence[float]], blocks: bool = True, width: int = WIDTH) -> str:
    """A curve in one line: means of equal parts of the steps, from the lowest value to the highest.

    Args:
      points: (step, value) in the order of the steps, values finite.
      blocks: whether with block characters, or with ASCII.
      width: columns at most; a part without a point is a space.
    """
    width = min(width, len(points))
    first, last = points[0][0], points[-1][0]
    values: list[list[float]] = [[] for _ in range(width)]
    for step, value in points:
        place = (step - first) / max(last - first, 1) * width
        values[min(int(place), width - 1)].append(value)
    means = [sum(own) / len(own) if own else None for own in values]
    known = [mean for mean in means if mean is not None]
    low, high, levels = min(known), max(known), BLOCKS if blocks else PLAIN
    span = (high - low) or 1.0
    return "".join(
        " " if mean is None else levels[min(int((mean - low) / span * 8), 7)] for mean in means
    )


def _sweep(found: dict[str, Any]) -> Iterator[str]:
    trials = found["trials"]
    running = [t for t in trials if any(p["state"] == "running" for p in t["processes"])]
    yield f"{found['run']}: sweep, {len(trials)} trials begun, {len(running)} at work here" + (
        ", finished" if found["finished"] else ""
    )
    for trial in trials:
        failed = f", {trial['failed']} failed" if trial["failed"] else ""
        at_work = ", at work" if trial in running else ""
        yield (
            f"  trial {trial['trial']}  {trial['trained']} of {trial['stages']} stages trained"
            f"{failed}, {trial['validated']} folds validated{at_work}"
        )
    yield f"  each is a run: python -m mskjax.status {found['run']}/trials/NUMBER"


if __name__ == "__main__":
    sys.exit(main())
