"""The folder of a study: one config once something is trained, one process at a time, no traces.

One process at a time works in the folder or, where each was given folds of its own, in a fold.

Until something is trained in it the folder belongs to no config, and a command that is refused
leaves it as it was.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from mskjax import locks, roles
from mskjax.config import PopulationConfig, StudyConfig, differences, parse, to_json
from mskjax.data.examples import FOLDER
from mskjax.errors import UserError
from mskjax.training import processes
from mskjax.writers import write_text

CONFIG = "config.json"
COMMAND = "command.json"  # that makes the run again, see `mskjax.again`
REWRITTEN = (CONFIG, "environment.json", "cohort.json", "splits.json", COMMAND)  # by every command
OF_STUDY = (*REWRITTEN, FOLDER)  # what all folds share, see `Setting.examples`
PARTS = ("member_*", "seed_*")  # folders of the studies that a study consists of
REPORT = "report"  # folder of what is made of a finished run
PROFILE = "profile.csv"  # of a fold: what it was trained on, see `mskjax.profile`
ENSEMBLE = "ensemble"  # folder of what the seeds of a study say together
_MOVABLE = (
    ("devices",),
    ("data", "data_dir"),
    ("data", "manual_dir"),
    ("population", "folds"),  # together or not, a training is the same but for rounding
    ("population", "share"),
)
_RESULTS_OF_FOLDS = ("fold_*/*/cost.json", "fold_*/cases.csv", f"{ENSEMBLE}/fold_*/cases.csv")
_RESULTS = (*_RESULTS_OF_FOLDS, "cases.csv", "report/report.json")
# Of a study, and of a member of its population that has its own.
_STEPS = re.compile(r"config\.(population\.members\..+\.)?stages\.\w+\.train\.steps")
_NAMED = 5  # changed fields in a message
_SEEN_S = 30.0  # until another machine sees a new file
_MOMENT_S = 20.0  # what a process may need to begin: it writes a few small files


@contextlib.contextmanager
def owned(workdir: Path, folds: Sequence[int] = (), is_part: bool = False) -> Iterator[None]:
    """Owns a workdir, or folds of it, until the block ends; the first process does for all.

    Several processes may own different folds; whoever owns the workdir is alone in it.  If the
    block raises UserError and nothing was trained, everything that was made since is removed again,
    and what was rewritten gets its content back; where others are at work, that of the folds alone.

    Args:
      workdir: made if it is missing, and removed again where it stays empty.
      folds: numbers; none means all of the workdir.
      is_part: whether a study that is owned already consists of it and others: what is taken back
        is decided there, so that one that fails says so where the others were trained.

    Raises:
      UserError: another process owns it (`locks.acquire`), or it cannot be made, or not all
        processes of this run see the same one.
    """
    part = part_of(folds[0]) if folds else ""
    if not roles.is_first():
        _find(workdir, part, processes.gather("workdir", None)[0])
        yield
        return
    missing: list[Path] = []
    try:
        missing = [p for p in (workdir, *workdir.parents) if not p.exists()]
        held = _acquire(workdir, folds)
    except OSError as error:
        _remove_empty(missing)
        raise UserError(
            f"--workdir: {workdir} cannot be made or written ({error.strerror}); give another one."
        ) from None
    try:
        # Of the folders of others, who are at work in them, nothing is looked at.
        places = [workdir / part_of(k) for k in folds] or [workdir]
        every = [p for p in (*places, *(workdir / name for name in OF_STUDY)) if p.exists()]
        every += (p for place in places for p in place.rglob("*"))
        before = {p: _content(p, workdir) for p in every}
        try:
            processes.gather("workdir", locks.file_of(workdir, part).read_text())
            yield
        except UserError:
            if folds or not is_part:  # of a fold each part has its own
                _undo(workdir, folds, before)
            raise
    finally:
        for lock in held:
            lock.release()
        _remove_empty(missing)


def part_of(fold: int) -> str:
    """The part of a workdir that a fold is, for `locks`."""
    return f"fold_{fold}"


def busy(workdir: Path, but: Sequence[int] = ()) -> dict[str, locks.Holder]:
    """Folds that processes own which are not known to have ended -> those processes.

    Args:
      workdir: of a study.
      but: folds that are left out.
    """
    own = {part_of(k) for k in but}
    holders = {name: locks.holder_of(workdir, name) for name in locks.parts(workdir)}
    return {k: h for k, h in holders.items() if k not in own and h is not None and not h.is_dead}


@contextlib.contextmanager
def beginning(workdir: Path) -> Iterator[None]:
    """Alone in a workdir for a moment, beside those who own folds of it; the first process is.

    Raises:
      InUse: another process owns all of it.
    """
    if not roles.is_first():
        yield
        return
    end = time.monotonic() + _MOMENT_S
    while True:
        try:
            lock = locks.acquire(workdir)
            break
        except locks.InUse as error:
            taken = error.holder.started if error.holder else time.time()
            # Whoever has had it for longer than a moment is no process that begins.
            if time.monotonic() > end or time.time() - taken > _MOMENT_S:
                raise
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.release()


def _acquire(workdir: Path, folds: Sequence[int]) -> list[locks.Lock]:
    """The lock of a workdir, in which then nobody owns a fold; or those of folds."""
    held: list[locks.Lock] = []
    try:
        if folds:
            with beginning(workdir):
                for k in folds:
                    held.append(locks.acquire(workdir, part_of(k)))
            return held
        held.append(locks.acquire(workdir))
        for part in locks.parts(workdir):  # each is free, or left by a process that has ended
            locks.acquire(workdir, part).release()
    except BaseException:
        for lock in held:
            lock.release()
        raise
    return held


def _undo(workdir: Path, folds: Sequence[int], before: dict[Path, bytes | None]) -> None:
    """Takes back what a refused command has made."""
    if not folds:
        if not is_begun(workdir):
            _restore(workdir, before)
        return
    with contextlib.suppress(locks.InUse), beginning(workdir):
        if not is_begun(workdir) and not busy(workdir, folds):
            for path in (workdir / name for name in OF_STUDY):
                if path not in before and path.exists():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            _give_back(before)
        for own in (workdir / part_of(k) for k in folds):
            if not is_begun(workdir, own.name):
                _remove_new(own, before)
                _remove_empty([own] if own not in before else [])


def _find(workdir: Path, part: str, lock: str) -> None:
    """Waits for what the first process has just written to be seen here."""
    end = time.monotonic() + _SEEN_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            os.listdir(workdir)  # which has a network file system look anew
            if locks.file_of(workdir, part).read_text() == lock:
                return
        time.sleep(0.1)
    raise UserError(
        f"--workdir: {workdir} of process {roles.index()} on {socket.gethostname()} is not the"
        " folder that process 0 works in; give one of a file system that all processes share."
    )


def is_begun(workdir: Path, fold: str = "fold_*") -> bool:
    """Whether a fold has anything that a study of another config must not be mixed with.

    Of the study's, or of those that it consists of.

    Args:
      workdir: of the study.
      fold: pattern of the folds that are looked at; all as a rule.
    """
    if any(is_begun(part, fold) for part in parts_of(workdir)):
        return True
    # A step has its plain number as name once Orbax has written all of it.
    saved = [step.name.isdigit() for step in _found(workdir, f"{fold}/*/checkpoints/*/*")]
    results = (
        _RESULTS if fold == "fold_*" else [p.replace("fold_*", fold) for p in _RESULTS_OF_FOLDS]
    )
    return any(saved) or any(_found(workdir, pattern) for pattern in results)


def _found(workdir: Path, pattern: str) -> list[Path]:
    """What matches, in a folder that others may work in."""
    while True:
        try:
            return list(workdir.glob(pattern))
        except FileNotFoundError:  # one of its folders was removed at this moment
            continue


def is_finished(workdir: Path, config: StudyConfig) -> bool:
    """Whether the whole study of this very config is there, report included."""
    path = workdir / CONFIG
    return (
        (workdir / "report" / "report.html").exists()
        and path.exists()
        and not any(_changes(path, config))
    )


def folds_in(workdir: Path) -> list[int]:
    """Numbers of the folds that a study's folder has."""
    return sorted(int(p.name.removeprefix("fold_")) for p in workdir.glob("fold_*"))


def config_of(workdir: Path) -> StudyConfig:
    """The resolved config that a run was started with.

    Raises:
      UserError: the folder has none, or it is not one of this version.
    """
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(f"{path} is missing; give the --workdir of a run.")
    return parse(StudyConfig, json.loads(path.read_text()))


def check(workdir: Path, config: StudyConfig) -> bool:
    """Holds a workdir against the config of a command.

    Where the files lie and on how many devices a study runs may change between runs of one study,
    and its stages may be given more steps (`is_extended`).

    Returns:
      Whether the folder holds a part of this very study, to go on from.

    Raises:
      UserError: the folder holds a part of another study, or something else.
    """
    path = workdir / CONFIG
    if not path.exists():
        parts = (part / CONFIG for part in parts_of(workdir))
        if any(workdir.glob("fold_*")) or any(part.exists() for part in parts):
            raise UserError(f"{workdir} holds folds but no {CONFIG}; give an empty --workdir.")
        return False
    steps, changed = _changes(path, config)
    if not is_begun(workdir):
        return False
    if changed:
        more = f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise UserError(
            f"{workdir} belongs to another config ({'; '.join(changed[:_NAMED])}{more}); give"
            " another --workdir, or the config it was started with: of a study that is begun, only"
            " the steps of a stage may change, to more."
        )
    for field, (before, now) in steps.items():
        if now < before:
            raise UserError(
                f"{workdir}: {field} was {before}, now {now}; a training that is begun may be given"
                f" more steps and not fewer: give {before} or more, or another --workdir."
            )
    return True


def is_extended(workdir: Path, config: StudyConfig) -> bool:
    """Whether a command asks for other steps than a folder has, which `check` lets pass."""
    path = workdir / CONFIG
    return path.exists() and is_begun(workdir) and bool(_changes(path, config)[0])


def claim(workdir: Path, config: StudyConfig, folds: Sequence[int] = ()) -> None:
    """Writes config.json, unless the folder holds a part of this very study.

    What an attempt that trained nothing has left in its folds is removed: logs and notes on weights
    would pass for those of the new config.

    Args:
      workdir: of the study.
      config: that the folder is to have.
      folds: that the caller owns, see `owned`.

    Raises:
      UserError: the folder holds a part of another study, or another one is begun there now.
    """
    if check(workdir, config):
        return
    others = busy(workdir, folds)
    if others and (workdir / CONFIG).exists():
        if any(_changes(workdir / CONFIG, config)):
            name, holder = next(iter(others.items()))
            raise UserError(
                f"{workdir / name} is in use by {holder}, with another config; give another"
                " --workdir, or that config."
            )
        return
    if roles.is_first():
        for folder in workdir.glob("fold_*"):
            if folder.name not in others:
                shutil.rmtree(folder)
    write_text(workdir / CONFIG, to_json(config))


def parts_of(workdir: Path) -> list[Path]:
    """Folders of the studies that a study consists of (`mskjax.replicas`)."""
    return [path for pattern in PARTS for path in workdir.glob(pattern)]


def _changes(path: Path, config: StudyConfig) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """In what config.json differs, but for what may: steps of stages, and other fields in words."""
    try:
        old = json.loads(path.read_text())
        old["system"], old["stages"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not the config of a study ({error!r}); give an empty --workdir."
        ) from None
    # A field of the study that a version before this did not have stands for its default.
    new = dataclasses.fields(StudyConfig)
    plain = {f.name: f.default for f in new if f.default is not dataclasses.MISSING}
    plain["population"] = dataclasses.asdict(PopulationConfig())
    old, now = without_movable({**plain, **old}), without_movable(json.loads(to_json(config)))
    before, after = (_whole_numbers(values, "config") for values in (old, now))
    fields = [f for f in before if _STEPS.fullmatch(f) and after.get(f, before[f]) != before[f]]
    steps = {field: (before[field], after[field]) for field in fields}
    others = [c for c in differences(old, now) if c.partition(" ")[0] not in steps]
    return steps, others


def _whole_numbers(values: Any, where: str) -> dict[str, int]:
    """Dotted name -> value of all that are whole numbers."""
    if isinstance(values, dict):
        inner = (_whole_numbers(value, f"{where}.{name}") for name, value in values.items())
        return {name: value for part in inner for name, value in part.items()}
    return {where: values} if type(values) is int else {}


def without_movable(values: dict) -> dict:
    """A JSON config without what may change between two commands of one study."""
    copy = json.loads(json.dumps(values))
    for *parents, last in _MOVABLE:
        node = copy
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    return copy


def _content(path: Path, workdir: Path) -> bytes | None:
    """Content of a file that a command rewrites."""
    return path.read_bytes() if path.parent == workdir and path.name in REWRITTEN else None


def _restore(workdir: Path, before: dict[Path, bytes | None]) -> None:
    _remove_new(workdir, before)
    _give_back(before)


def _give_back(before: dict[Path, bytes | None]) -> None:
    """Gives files that a command rewrites the content that they had."""
    for path, content in before.items():
        if content is not None and (not path.exists() or path.read_bytes() != content):
            path.write_bytes(content)


def _remove_new(folder: Path, before: Container[Path]) -> None:
    """Removes what a folder holds that was not there before, but for locks."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside a folder precedes it
        if path not in before and not path.name.startswith(locks.LOCK):
            path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders, innermost first, that nothing was put into."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
