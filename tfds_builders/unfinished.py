"""From an unfinished package to a complete one under its final name, whatever comes between.

What is not complete lies beside the place of the package, in ``VERSION.partial-<key>``.  Whatever
ends the process leaves its finished shards there for the next one.  Only where the raw files are
wrong the folder is removed, for the key changes with what is mended.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any, Protocol

from mskjax.errors import Preempted, UserError
from tfds_builders import packing
from tfds_builders.claims import Claims
from tfds_builders.packing import PARTIAL, Packing
from tfds_builders.shards import Layout, Unfinished

_BEFORE = ".before"  # in the name of a package that is being replaced
_LEFT_S = 600.0  # since a process of another machine has shown that it lives


class Builder(packing.Builder, Protocol):
    """What is asked of a cohort's builder (`common.CohortBuilder`)."""

    data_dir: Any
    BUILDER_CONFIGS: Any


def package(builder: Builder, place: Path, replace: bool) -> None:
    """Packages a cohort.

    Args:
      builder: of the cohort.
      place: the folder of the package.
      replace: whether a package that lies there gives way to the new one, once that is complete.

    Raises:
      BadCases: raw files are wrong; every one of them is listed.
      Unfinished: it has to be stopped, but what is finished is kept.
      UserError: there is nothing to package, or no space or right to write.
    """
    job = Packing(builder)
    layout = job.layout(place)
    missing = [p for p in (layout.folder, *layout.folder.parents) if not p.exists()]
    try:
        _package(job, layout, place, replace, builder)
    except BaseException as error:
        gone = not layout.folder.exists()
        if isinstance(error, OSError) and place.exists() and (gone or not replace):
            shutil.rmtree(layout.folder, ignore_errors=True)
            return  # another process was faster, with the same cohort or another one
        if not _is_worth_keeping(error, layout):
            shutil.rmtree(layout.folder, ignore_errors=True)
            for folder in missing:
                with contextlib.suppress(OSError):  # another cohort lies there
                    folder.rmdir()
        if isinstance(error, FileNotFoundError) and gone:
            raise _left_alone(layout) from error
        if reason := _unwritable(error):
            raise UserError(_about_disk(builder, layout, reason)) from error
        raise


def _package(job: Packing, layout: Layout, place: Path, replace: bool, builder: Builder) -> None:
    layout.make()
    with Claims(layout.folder / "claims") as claims:
        claims.take(f"process-{socket.gethostname()}-{os.getpid()}")
        try:
            _remove_abandoned(layout, place)
            layout.clear()
            if job.run(layout, claims):
                _publish(layout, place, replace, builder)
            elif not place.exists():
                raise _left_alone(layout)
        finally:
            with contextlib.suppress(OSError):
                layout.clear()  # of workers that were ended


def _publish(layout: Layout, place: Path, replace: bool, builder: Builder) -> None:
    """Two renames: the place is empty for a moment only, and never holds half a package."""
    note = place.parent.parent / ".config" / "metadata.json"  # TFDS opens the default config by it
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({"default_config_name": builder.BUILDER_CONFIGS[0].name}))
    before = place.with_name(place.name + _BEFORE)
    if replace and place.exists():
        shutil.rmtree(before, ignore_errors=True)
        os.replace(place, before)
    os.replace(layout.package, place)
    shutil.rmtree(before, ignore_errors=True)
    shutil.rmtree(layout.folder, ignore_errors=True)


def _remove_abandoned(layout: Layout, place: Path) -> None:
    """Removes what was begun of other raw files or options, unless it is being worked on."""
    now = layout.folder / "now"  # the clock of the file system
    now.touch()
    for folder in place.parent.glob(f"*{PARTIAL}*"):
        if folder == layout.folder:
            continue
        if now.stat().st_mtime - Claims(folder / "claims").last_sign() > _LEFT_S:
            shutil.rmtree(folder, ignore_errors=True)
    if place.exists():
        shutil.rmtree(place.with_name(place.name + _BEFORE), ignore_errors=True)


def _left_alone(layout: Layout) -> UserError:
    return UserError(
        f"another process that packaged the same cohort removed {layout.folder}, as it does when a"
        " study is wrong; run the same command again to see what is."
    )


def _is_worth_keeping(error: BaseException, layout: Layout) -> bool:
    if isinstance(error, UserError) and not isinstance(error, Unfinished):
        return False  # what is mended has another key
    return isinstance(error, Preempted | KeyboardInterrupt) or _finished(layout) > 0


def _finished(layout: Layout) -> int:
    """How many studies lie in finished shards."""
    return sum(layout.size(s) for s in range(layout.shards) if layout.account(s))


def _about_disk(builder: Builder, layout: Layout, reason: str) -> str:
    if finished := _finished(layout):
        return (
            f"{builder.data_dir} cannot be written ({reason}); free space and run the same command"
            f" again, which goes on from the {finished} of {layout.studies} studies that are"
            f" finished, or delete {layout.folder} and give another data_dir."
        )
    return (
        f"{builder.data_dir} cannot be written ({reason}); free space or give another"
        " data_dir.  Nothing half-written was left there."
    )


def _unwritable(error: BaseException) -> str:
    """Why the disk refused, or empty; ArrayRecord reports a full disk as a RuntimeError."""
    if not isinstance(error, OSError | RuntimeError):
        return ""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM):
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return os.strerror(number)
    return ""
