"""What is left of a study when a command ends, and which command is useful next."""

from collections.abc import Sequence
from pathlib import Path

from mskjax import workdir as workdirs
from mskjax.commands import PLAN_FLAGS, StudyFlags, say_next, without
from mskjax.parts import Left
from mskjax.progress import say


def after_study(flags: StudyFlags, argv: Sequence[str], left: Left) -> None:
    """Says what is left of a study and the next useful command.

    Args:
      flags: of the command that has ended.
      argv: its arguments.
      left: see `study.run`.
    """
    assert flags.workdir is not None
    again = without(argv, "mode", "folds", "stages")
    busy = workdirs.busy(flags.workdir, flags.folds)
    for name, holder in busy.items():
        say(f"at work: {name}, {holder}")
    for what, numbers in (("trained", left.train), ("evaluated", left.evaluate)):
        if numbers:
            say(f"not {what}: {', '.join(f'fold_{k}' for k in numbers)}")
    free = [k for k in (left.train or left.evaluate) if workdirs.part_of(k) not in busy]
    if not (left.train or left.evaluate or left.report):
        _after_finished(flags)
    elif busy and not free:
        say_next("status", [str(flags.workdir)])
    elif left.train:
        own = [k for k in flags.folds if k in left.train] if flags.stages else []
        parts = own or (free if flags.folds else [])
        mode = ["--mode=train"] if list(flags.mode) == ["train"] else []
        say_next("main", [*again, *mode, *([f"--folds={_listed(parts)}"] if parts else [])])
    elif left.evaluate and busy:
        say_next("main", [*again, "--mode=evaluate", f"--folds={_listed(free)}"])
    elif left.evaluate:
        say_next("main", [*again, "--mode=evaluate,report"])
    else:
        say_next("main", [*again, "--mode=report"])


def after_plan(flags: StudyFlags, argv: Sequence[str]) -> None:
    """Says the command that runs what was planned."""
    again = without(argv, "mode", *PLAN_FLAGS)
    again = [a for a in again if a.lstrip("-") not in ("compile", "nocompile")]
    folder = [] if flags.workdir else [f"--workdir={Path('runs') / flags.config.system}"]
    say_next("main", [*again, *folder])


def _after_finished(flags: StudyFlags) -> None:
    run = str(flags.workdir)
    if members := list(flags.config.population.members):
        runs = [str(Path(run) / f"member_{name}") for name in members]
        say_next("report", ["--runs", *runs, f"--output={Path(run) / 'compared'}"])
        return
    say_next("predict", [f"--run={run}", "--input=INPUT", "--output=OUTPUT"])
    say_next("report", ["--runs", run, "--verify"])


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
