"""Packages of one cohort beside each other: found by what they were made of, replaced whole.

The first package of a config lies in ``data_dir/NAME/CONFIG/VERSION``, others beside it in
``data_dir/NAME/CONFIG-<key>/VERSION``.  Which is which is read from their audits, not from the
names: options and the hash of the raw files.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax import roles
from mskjax.errors import UserError
from tfds_builders.common import CohortBuilder
from tfds_builders.packing import AUDIT, PARTIAL, RAW
from tfds_builders.raw_files import RawFiles, Stamp, changes

_NAMED = 10  # changed files in a message


@dataclasses.dataclass(frozen=True)
class Package:
    """A packaged cohort on disk.

    Attributes:
      folder: ``.../VERSION``.
      audit: see `tfds_builders.packing`; empty where it cannot be read.
      raw: what it was made of.
    """

    folder: Path
    audit: Mapping[str, Any]
    raw: RawFiles

    @property
    def is_damaged(self) -> bool:
        """Whether audit or list of raw files cannot be read."""
        return not self.audit


def provide(builder: CohortBuilder, again: bool) -> Path:
    """The folder of the package that a builder describes; it is made where there is none.

    Args:
      builder: with options, and with the raw folder where it is given.
      again: packages anew even so, and replaces the package of these raw files once the new one
        is complete.

    Raises:
      UserError: raw files are not given though they are needed, are wrong, or are not what the
        package of their folder was made of; or several packages fit.
    """
    every = _packages(builder)
    fitting = _of_options(builder, every)
    if builder.builder_config.obtain and builder.manual_dir is None:
        if again:
            builder.source()  # says that raw files are needed
        return _only(builder, fitting, every)
    known: dict[str, Stamp] = {}
    for package in fitting:
        known |= package.raw.stamps
    known |= _stamps_of_unfinished(builder)
    raw = builder.raw_files(known)
    same = [p for p in fitting if p.raw.digest == raw.digest]
    ours = same or [p for p in fitting if p.raw.folder == raw.folder]
    damaged = [p for p in every if p.is_damaged]
    if again:
        if old := next(iter(ours or damaged), None):
            builder.package(old.folder)
            return old.folder
        return _make(builder, every, raw)
    if same:
        _remember(same[0], raw)
        return same[0].folder
    if ours:
        raise UserError(_about_changes(builder, ours[0], raw))
    if damaged:
        raise UserError(about_damage(builder, damaged[0].folder, "its audit cannot be read"))
    return _make(builder, every, raw)


def of_options(builder: CohortBuilder) -> list[Package]:
    """The packages of the builder's config and options that can be read, of any raw files."""
    return _of_options(builder, _packages(builder))


def about_damage(builder: CohortBuilder, folder: Path, why: object) -> str:
    """The sentence for a package that cannot be read."""
    return f"{folder} is damaged ({why}); package it anew with {again_command(builder)}."


def again_command(builder: CohortBuilder) -> str:
    """The command that packages anew, ready to paste."""
    cls_options = builder.builder_configs[builder.base_config].options
    options = [
        f" --option {f.name}={getattr(builder.options, f.name)!r}".replace(" (", "(")
        for f in dataclasses.fields(cls_options)
        if getattr(builder.options, f.name) != getattr(cls_options, f.name)
    ]
    raw = f" --manual_dir={builder.manual_dir}" if builder.builder_config.obtain else ""
    return (
        f"python -m mskjax.prepare --cohort={builder.name}/{builder.base_config}{raw}"
        f" --data_dir={builder.data_dir_root}{''.join(options)} --again"
    )


def _packages(builder: CohortBuilder) -> list[Package]:
    """All packages of the builder's config, whatever their options."""
    above = Path(builder.data_path.parent.parent)
    version = builder.data_path.name
    folders = [above / builder.base_config, *sorted(above.glob(f"{builder.base_config}-*"))]
    return [_read(f / version) for f in folders if (f / version).is_dir()]


def _of_options(builder: CohortBuilder, every: Sequence[Package]) -> list[Package]:
    return [p for p in every if not p.is_damaged and p.audit["options"] == _options(builder)]


def _read(folder: Path) -> Package:
    try:
        audit = json.loads((folder / AUDIT).read_text())
        raw = RawFiles.from_json((folder / RAW).read_text())
        audit["options"], audit["index"]
    except (OSError, ValueError, KeyError, TypeError):
        return Package(folder, {}, RawFiles("", {}))
    return Package(folder, audit, raw)


def _only(builder: CohortBuilder, fitting: Sequence[Package], every: Sequence[Package]) -> Path:
    """The one package that fits where the raw files are not at hand."""
    if len(fitting) == 1:
        return fitting[0].folder
    if fitting:
        folders = ", ".join(p.raw.folder for p in fitting)
        raise UserError(
            f"{len(fitting)} packages of {builder.name}/{builder.base_config} lie in"
            f" {builder.data_dir_root}, made of the raw files in {folders}; give the one you mean"
            " as manual_dir."
        )
    if damaged := [p for p in every if p.is_damaged]:
        raise UserError(about_damage(builder, damaged[0].folder, "its audit cannot be read"))
    builder.source()  # says that raw files are needed
    raise AssertionError("a source without its raw files")


def _make(builder: CohortBuilder, every: Sequence[Package], raw: RawFiles) -> Path:
    """Packages beside what is there.

    Raises:
      UserError: among others, the first of several processes has packaged, and not here.
    """
    if not roles.is_first():
        raise UserError(
            f"{builder.data_dir_root} does not hold what the first process has packaged; give a"
            " data_dir of a file system that all processes share."
        )
    if any(p.folder == Path(builder.data_path) for p in every):
        key = hashlib.sha256(f"{_options(builder)}{raw.digest}".encode()).hexdigest()[:8]
        builder = builder.elsewhere(key=key)
    audit = builder.package()
    if (audit["options"], audit["raw"]) != (_options(builder), raw.digest):
        raise UserError(
            f"another process packaged other raw files or options in {builder.data_path}"
            " meanwhile; run the same command again."
        )
    return Path(builder.data_path)


def _stamps_of_unfinished(builder: CohortBuilder) -> dict[str, Stamp]:
    """Of raw files that were hashed for a package that is not complete."""
    found: dict[str, Stamp] = {}
    pattern = f"{builder.base_config}*/*{PARTIAL}*/package/{RAW}"
    for path in Path(builder.data_path.parent.parent).glob(pattern):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found |= RawFiles.from_json(path.read_text()).stamps
    return found


def _remember(package: Package, raw: RawFiles) -> None:
    """Keeps the new stamps of files that were touched, so that they are not read again."""
    if package.raw == raw or not roles.is_first():
        return
    temporary = package.folder / f"{RAW}.{os.getpid()}"
    try:
        temporary.write_text(raw.to_json())
        os.replace(temporary, package.folder / RAW)
    except OSError:  # a folder that is shared to be read only
        temporary.unlink(missing_ok=True)


def _about_changes(builder: CohortBuilder, package: Package, raw: RawFiles) -> str:
    changed = changes(package.raw, raw)
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return (
        f"{len(changed)} raw file{'s are' if len(changed) > 1 else ' is'} not what"
        f" {package.folder} was packaged from: {', '.join(changed[:_NAMED])}{more}.  To use the"
        f" files as they are now run {again_command(builder)} and start runs in new workdirs; to"
        " keep the old ones beside them, package into another data_dir."
    )


def _options(builder: CohortBuilder) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(builder.options)))
