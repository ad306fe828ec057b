"""What the commands share: flags, exit codes, run-time settings of JAX."""

import ast
import dataclasses
import errno
import importlib.metadata
import os
import platform
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from mskjax import experiment, overrides, preemption
from mskjax.config import MODES, StudyConfig
from mskjax.errors import (
    EXIT_DEFECT,
    EXIT_DONE,
    EXIT_PREEMPTED,
    EXIT_SOME,
    EXIT_USER,
    Preempted,
    SomeFailed,
    UserError,
)
from mskjax.progress import say
from mskjax.training import processes

PLAN = "plan"  # the mode that runs nothing; it stands alone
PLAN_FLAGS = ("memory_gb", "tflops", "studies", "compile")
FLAGS = ("config", "workdir", "mode", "folds", "stages", "help", *PLAN_FLAGS)
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def run(command: Callable[[list[str]], None], argv: list[str] | None) -> int:
    """Runs a command; wrong input ends in one sentence and 2, a saved pre-emption in 75.

    Any other exception is a defect and keeps its traceback (exit code 1).  Of several processes
    all end with the sentence and the code of the one that ended first.

    Args:
      command: gets the arguments without the program's name.
      argv: arguments; None takes the process's.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        with preemption.listening(), processes.ending(_told):
            command(arguments)
    except (Preempted, Exception) as error:
        code, sentence = _told(error)
        if code == EXIT_DEFECT:
            raise
        print(sentence, file=sys.stderr)
        if code == EXIT_PREEMPTED:  # several processes have ended above: they have a launcher
            say_next(_name(command), arguments)
        return code
    return EXIT_DONE


def say_next(command: str, arguments: Sequence[str]) -> None:
    """Says a command that is useful next, ready to paste into a shell.

    Args:
      command: ``main``, ``predict``, ...
      arguments: its flags, unquoted.  What the user must fill in is in capitals.
    """
    say(f"next: {shlex.join(['python', '-m', f'mskjax.{command}', *arguments])}")


def say_open(page: Path) -> None:
    """Says the command that shows a page."""
    say(f"next: {shlex.join(['python', '-m', 'webbrowser', page.resolve().as_uri()])}")


def without(arguments: Sequence[str], *names: str) -> list[str]:
    """Arguments without some flags, given as ``--name=value`` or as ``--name value``."""
    kept, left = [], list(arguments)
    while left:
        argument = left.pop(0)
        found = re.fullmatch(rf"--?({'|'.join(names)})(=.*)?", argument, re.DOTALL)
        if found is None:
            kept.append(argument)
        elif found[2] is None and left:
            del left[0]
    return kept


def _name(command: Callable[..., Any]) -> str:
    """Of the module that a command is declared in, which may run as ``__main__``."""
    spec = sys.modules["__main__"].__spec__ if command.__module__ == "__main__" else None
    return (spec.name if spec else command.__module__).rpartition(".")[2]


def _told(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence of what ended a command."""
    if isinstance(error, SomeFailed):
        return EXIT_SOME, str(error)
    if isinstance(error, Preempted):
        return EXIT_PREEMPTED, f"pre-empted: {error}; run the same command to go on."
    sentence = str(error) if isinstance(error, UserError) else _about_storage(error)
    if sentence is not None:
        return EXIT_USER, f"error: {sentence}"
    return EXIT_DEFECT, "".join(traceback.format_exception_only(error)).strip()


def together(**identity: Any) -> None:
    """Makes the process one of several where it was started so; before JAX is used.

    Args:
      **identity: JSON: what must be the same in all of them, beside the versions.

    Raises:
      UserError: they were started differently, or one of them is missing.
    """
    packages = ("mskjax", "jax", "jaxlib", "orbax-checkpoint", "numpy")
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in packages}
    processes.start({**identity, "versions": versions})


@dataclasses.dataclass(frozen=True)
class StudyFlags:
    """What `mskjax.main` was asked for.

    Attributes:
      config: of the study, resolved.
      workdir: its folder; None where a plan leaves no file.
      mode: any of `MODES`, or `PLAN` alone.
      plan: what was given of `PLAN_FLAGS`.
      folds: numbers of those to work on; empty: all.
      stages: names of those to train; empty: all.
    """

    config: StudyConfig
    workdir: Path | None
    mode: Sequence[str]
    plan: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    folds: tuple[int, ...] = ()
    stages: tuple[str, ...] = ()


def study_flags(argv: list[str]) -> StudyFlags:
    """Flags of `mskjax.main`; imports jax, after `configure_runtime`, once plain flags are right.

    Raises:
      UserError: a flag, an experiment or a config field is unknown, mistyped or missing.
      SystemExit: help was asked for and given.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "NAME[:VARIANT]", flag_values=values)
    flags.DEFINE_string("workdir", None, "folder of this study", flag_values=values)
    flags.DEFINE_list("mode", list(MODES), f"any of {', '.join(MODES)}", flag_values=values)
    flags.DEFINE_list("folds", None, "numbers of folds", flag_values=values)
    flags.DEFINE_list("stages", None, "names of stages", flag_values=values)
    for name in ("memory_gb", "tflops"):
        flags.DEFINE_float(name, None, "of a device", lower_bound=0.0, flag_values=values)
    flags.DEFINE_integer("studies", None, "of the cohort", lower_bound=1, flag_values=values)
    flags.DEFINE_boolean("compile", None, "and time the step", flag_values=values)
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    values.set_gnu_getopt(True)
    try:
        _, *rest = values(["mskjax.main", *argv], known_only=True)
    except flags.Error as error:
        raise UserError(overrides.about_value(error)) from None
    if values.help:
        if values.config is not None:
            configure_runtime()
        from mskjax import usage  # late, as `fields`: both look into folders of the user's own

        print(usage.study(values.config))
        raise SystemExit(EXIT_DONE)
    for argument in rest:
        if argument.startswith("-") and not re.match(overrides.PATTERN, argument):
            name = argument.lstrip("-").partition("=")[0]
            raise UserError(f"no flag --{name}; {overrides.suggest(name, FLAGS)}")
    plans = PLAN in values.mode
    if values.config is None or (values.workdir is None and not plans):
        raise UserError(
            "--config and --workdir are needed, e.g."
            " --config=disc_degeneration --workdir=runs/first; --help lists what there is."
        )
    given = {name: values[name].value for name in PLAN_FLAGS if values[name].value is not None}
    _check_mode(values.mode, given)
    folds = _folds(values.folds)
    modes = list(values.mode)
    if folds is not None and not values["mode"].present:
        modes = ["train", "evaluate"]
    _check_parts(modes, folds, values.stages)
    loaded = experiment.load(values.config)
    configure_runtime()
    workdir = None if values.workdir is None else Path(values.workdir)
    config = overrides.resolved(loaded, rest, FLAGS)
    stages = tuple(values.stages or ())
    return StudyFlags(config, workdir, modes, given, folds or (), stages)


def _folds(given: Sequence[str] | None) -> tuple[int, ...] | None:
    """Numbers of ``--folds``; None where it was not given."""
    if given is not None and not (given and all(re.fullmatch(r"\d+", k) for k in given)):
        raise UserError(
            f"--folds has {','.join(given) or 'nothing'}; give numbers of folds, e.g. --folds=0,2."
        )
    return None if given is None else tuple(sorted(set(map(int, given))))


def _check_parts(modes: Sequence[str], folds: Any, stages: Sequence[str] | None) -> None:
    """Raises UserError if a mode does not go with a part of a study."""
    if PLAN in modes and (folds is not None or stages is not None):
        name = "stages" if folds is None else "folds"
        raise UserError(f"--mode={PLAN} is of the whole study; leave --{name} out.")
    if folds is not None and "report" in modes:
        raise UserError(
            "--mode=report makes the tables and the report of all folds; leave --folds out, or"
            " report out."
        )
    if stages is not None and (list(modes) != ["train"] or not stages):
        raise UserError("--stages names stages to train; write --mode=train --stages=NAME,...")


def _check_mode(modes: Sequence[str], given: Mapping[str, Any]) -> None:
    """Raises UserError if modes, or flags of a plan beside them, make no sense."""
    unknown = sorted(set(modes) - {*MODES, PLAN})
    if unknown or not modes:
        named = ", ".join(unknown) or "nothing"
        raise UserError(f"--mode has {named}; give any of {', '.join(MODES)}, or {PLAN} alone.")
    if PLAN in modes and len(modes) > 1:
        raise UserError(f"--mode has {','.join(modes)}; {PLAN} runs nothing, so it stands alone.")
    if given and PLAN not in modes:
        raise UserError(f"--{next(iter(given))} is a flag of --mode={PLAN} alone; leave it out.")


def option(text: str) -> tuple[str, Any]:
    """Name and value of ``NAME=VALUE``; what is no Python literal is text."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def numbers(flag: str, text: str | None) -> list[int] | None:
    """The whole numbers of a flag, e.g. ``0,2``; None where it is not given.

    Raises:
      UserError: it is something else.
    """
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UserError(f"{flag} is {text!r}; give whole numbers, e.g. {flag}=0,2.")
    return sorted({int(part) for part in text.split(",")})


# Versions that were tried with the flag below: one that does not know it would end the process.
_JAXLIB_WITH_FLAG = frozenset(
    ("0.10.0", "0.10.1", "0.10.2", "0.11.0", "0.11.1", "0.11.2", "0.12.0", "0.12.0.1")
)


def configure_runtime() -> None:
    """Settings that must precede the import of jax; the user's own settings win.

    The compilation cache lets a second run, and every fold after the first, start at once.  It
    holds executable code, so it lies in a folder that only the user can write.
    """
    # Library matrix products inside fusions: 10 to 30 % faster U-Net steps on CPU.  Each by itself:
    # two in one fusion, as of VGG's hidden layers, are twenty times slower than apart.
    known = importlib.metadata.version("jaxlib") in _JAXLIB_WITH_FLAG
    if known and "jax" not in sys.modules and "XLA_FLAGS" not in os.environ:
        flag = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
        os.environ["XLA_FLAGS"] = flag
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mskjax" / "xla"
        try:
            cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def _about_storage(error: BaseException | None) -> str | None:
    """The sentence for a full or forbidden disk, wherever in the chain it is; None for others."""
    while error is not None:
        number, name = getattr(error, "errno", None), getattr(error, "filename", None)
        # What writes checkpoints hands the system's message on as text.
        if number in FULL or os.strerror(errno.ENOSPC) in str(error):
            where = f" for {name}" if name else ""
            return f"no space left on the disk{where}; free some and run the same command again."
        if number in REFUSED and name:
            return f"{name}: {os.strerror(number)}; check the path and its permissions."
        error = error.__cause__ or error.__context__
    return None
