"""The folder of a study: one process at a time, one config once something is trained, no traces.

Until something is trained in it the folder belongs to no config, and a command that is refused
leaves it as it was.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from mskjax import locks, roles
from mskjax.config import PopulationConfig, StudyConfig, differences, parse, to_json
from mskjax.errors import UserError
from mskjax.training import processes
from mskjax.writers import write_text

CONFIG = "config.json"
REWRITTEN = (CONFIG, "environment.json", "cohort.json", "splits.json")  # by every command
PARTS = ("member_*", "seed_*")  # folders of the studies that a study consists of
_MOVABLE = (
    ("devices",),
    ("data", "data_dir"),
    ("data", "manual_dir"),
    ("population", "folds"),  # together or not, a training is the same but for rounding
    ("population", "share"),
)
_RESULTS = ("fold_*/*/cost.json", "fold_*/cases.csv", "cases.csv", "report/report.json")
_NAMED = 5  # changed fields in a message
_SEEN_S = 30.0  # until another machine sees a new file


@contextlib.contextmanager
def owned(workdir: Path) -> Iterator[None]:
    """Owns a workdir until the block ends, however it ends; the first process does for all.

    If the block raises UserError and nothing was trained in the folder, everything that was made
    since is removed again, and what was rewritten gets its content back.

    Args:
      workdir: made if it is missing, and removed again where it stays empty.

    Raises:
      UserError: another process owns it (`locks.acquire`), or it cannot be made, or not all
        processes of this run see the same one.
    """
    if not roles.is_first():
        _find(workdir, processes.gather("workdir", None)[0])
        yield
        return
    missing: list[Path] = []
    try:
        missing = [p for p in (workdir, *workdir.parents) if not p.exists()]
        lock = locks.acquire(workdir)
    except OSError as error:
        _remove_empty(missing)
        raise UserError(
            f"--workdir: {workdir} cannot be made or written ({error.strerror}); give another one."
        ) from None
    try:
        before = {p: _content(p, workdir) for p in workdir.rglob("*")}
        try:
            processes.gather("workdir", (workdir / locks.LOCK).read_text())
            yield
        except UserError:
            if not is_begun(workdir):
                _restore(workdir, before)
            raise
    finally:
        lock.release()
        _remove_empty(missing)


def _find(workdir: Path, lock: str) -> None:
    """Waits for what the first process has just written to be seen here."""
    end = time.monotonic() + _SEEN_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            os.listdir(workdir)  # which has a network file system look anew
            if (workdir / locks.LOCK).read_text() == lock:
                return
        time.sleep(0.1)
    raise UserError(
        f"--workdir: {workdir} of process {roles.index()} on {socket.gethostname()} is not the"
        " folder that process 0 works in; give one of a file system that all processes share."
    )


def is_begun(workdir: Path) -> bool:
    """Whether a fold has anything that a study of another config must not be mixed with.

    Of the study's, or of those that it consists of.
    """
    if any(is_begun(part) for part in _parts(workdir)):
        return True
    # A step has its plain number as name once Orbax has written all of it.
    saved = (step.name.isdigit() for step in workdir.glob("fold_*/*/checkpoints/*/*"))
    return any(saved) or any(any(workdir.glob(pattern)) for pattern in _RESULTS)


def is_finished(workdir: Path, config: StudyConfig) -> bool:
    """Whether the whole study of this very config is there, report included."""
    path = workdir / CONFIG
    return (
        (workdir / "report" / "report.html").exists()
        and path.exists()
        and not _changed(path, config)
    )


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

    Where the files lie and on how many devices a study runs may change between runs of one study.

    Returns:
      Whether the folder holds a part of this very study, to go on from.

    Raises:
      UserError: the folder holds a part of another study, or something else.
    """
    path = workdir / CONFIG
    if not path.exists():
        parts = (part / CONFIG for part in _parts(workdir))
        if any(workdir.glob("fold_*")) or any(part.exists() for part in parts):
            raise UserError(f"{workdir} holds folds but no {CONFIG}; give an empty --workdir.")
        return False
    changed = _changed(path, config)
    begun = is_begun(workdir)
    if begun and changed:
        more = f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise UserError(
            f"{workdir} belongs to another config ({'; '.join(changed[:_NAMED])}{more}); give"
            " another --workdir, or the config it was started with."
        )
    return begun


def claim(workdir: Path, config: StudyConfig) -> None:
    """Writes config.json, unless the folder holds a part of this very study.

    What an attempt that trained nothing has left in its folds is removed: logs and notes on weights
    would pass for those of the new config.

    Raises:
      UserError: the folder holds a part of another study.
    """
    if check(workdir, config):
        return
    for folder in workdir.glob("fold_*") if roles.is_first() else ():
        shutil.rmtree(folder)
    write_text(workdir / CONFIG, to_json(config))


def _parts(workdir: Path) -> list[Path]:
    """Folders of the studies that a study consists of (`mskjax.replicas`)."""
    return [path for pattern in PARTS for path in workdir.glob(pattern)]


def _changed(path: Path, config: StudyConfig) -> list[str]:
    """The fields in which config.json differs, but for those that may."""
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
    old = {**plain, **old}
    return differences(without_movable(old), without_movable(json.loads(to_json(config))))


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
    kept = {*before, workdir / locks.LOCK}
    for path in sorted(workdir.rglob("*"), reverse=True):  # what is inside a folder precedes it
        if path not in kept:
            path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
    for path, content in before.items():
        if content is not None and (not path.exists() or path.read_bytes() != content):
            path.write_bytes(content)


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders, innermost first, that nothing was put into."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
