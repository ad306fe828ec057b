"""``manifest.json``: the SHA-256 and the size of every file that a finished run stands on.

It is written last, so a folder that has one is a finished run; training or evaluating in it removes
it again.  A study that consists of others lists their manifests, so the hash of its own holds them
all.  A manifest is no signature: who rewrites it with the files is found out by reading and scoring
again (`mskjax.verification`).
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mskjax.errors import UserError
from mskjax.workdir import ENSEMBLE, PARTS, REPORT
from mskjax.writers import write_json

MANIFEST = "manifest.json"
# Of the folders of a run, what no figure stands on, and why.
LEFT_OUT = {
    "events.out.tfevents.*": "TensorBoard's copy of metrics.jsonl, named by time and machine",
    "*.tmp": "what is being written",
    "*.part.jsonl": "what is being read",
}
_TABLES = ("*.json", "*.csv")  # of the run's own folder; other files there are the user's
_FOLDERS = re.compile(rf"fold_\d+|{ENSEMBLE}|{REPORT}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Entry = Mapping[str, Any]


def exists(run: Path) -> bool:
    """Whether a run was finished by a version that leaves a manifest."""
    return (run / MANIFEST).exists()


def discard(run: Path) -> None:
    """A run is no longer finished: something of it will be made anew."""
    (run / MANIFEST).unlink(missing_ok=True)


def write(run: Path) -> None:
    """Writes the manifest of a run, after everything else."""
    _save(run, entries(run))


def follow(run: Path) -> None:
    """Takes the report's files anew, after they were written anew; all other entries stay.

    The studies that the run is a part of follow too.  Where there is no manifest none is made: it
    would vouch for files that nobody has looked after.
    """
    if not exists(run):
        return
    kept = {n: e for n, e in read(run).items() if not n.startswith(f"{REPORT}/")}
    _save(run, kept | _hashed(run, [p for p in _counted(run) if p.parts[0] == REPORT]))
    _follow_above(run.absolute())


def _follow_above(run: Path) -> None:
    own, whole = Path(run.name) / MANIFEST, run.parent
    if exists(whole) and own.as_posix() in (listed := read(whole)):
        _save(whole, listed | _hashed(whole, [own]))
        _follow_above(whole)


def entries(run: Path) -> dict[str, Entry]:
    """Path below the run's folder -> ``sha256``, hexadecimal, and ``bytes``, of all that counts."""
    return _hashed(run, list(_counted(run)))


def read(run: Path) -> dict[str, Entry]:
    """The entries of a run's manifest.

    Raises:
      UserError: it is not one.
    """
    path = run / MANIFEST
    try:
        files = json.loads(path.read_text())["files"]
        for name, entry in files.items():
            if not (_SHA256.fullmatch(entry["sha256"]) and int(entry["bytes"]) >= 0):
                raise ValueError(f"the entry of {name}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not the manifest of a run ({error!r}); take the one that the run left."
        ) from None
    return files


def runs(run: Path) -> Iterator[Path]:
    """A run, and those with a manifest that it consists of."""
    yield run
    for pattern in PARTS:
        for part in sorted(run.glob(pattern)):
            yield from runs(part) if exists(part) else ()


def digest(run: Path) -> str:
    """SHA-256 of the manifest itself: one number that stands for the whole run."""
    return hashlib.sha256((run / MANIFEST).read_bytes()).hexdigest()


def differences(run: Path) -> list[tuple[str, str, str]]:
    """What the files of a run are not that its manifest says, as (file, then, now), by name.

    Raises:
      UserError: the manifest is not one.
    """
    then, now = read(run), entries(run)
    changed = [n for n in sorted({*then, *now}) if _told(then.get(n)) != _told(now.get(n))]
    return [(name, _told(then.get(name)), _told(now.get(name))) for name in changed]


def _told(entry: Entry | None) -> str:
    return f"{entry['bytes']} bytes, sha256 {entry['sha256'][:16]}" if entry else "missing"


def _save(run: Path, files: Mapping[str, Entry]) -> None:
    content = {"left_out": LEFT_OUT, "files": dict(sorted(files.items()))}
    write_json(run / MANIFEST, content)


def _counted(run: Path) -> Iterator[Path]:
    """The files that count, below the run's folder."""
    for pattern in _TABLES:
        yield from (Path(p.name) for p in run.glob(pattern) if p.name != MANIFEST)
    for folder in sorted(run.iterdir()):
        if folder.is_dir() and _FOLDERS.fullmatch(folder.name):
            files = (p.relative_to(run) for p in folder.rglob("*") if p.is_file())
            yield from (p for p in files if not any(fnmatch(p.name, f) for f in LEFT_OUT))
    for pattern in PARTS:
        yield from (Path(p.name) / MANIFEST for p in run.glob(pattern) if exists(p))


def _hashed(run: Path, files: list[Path]) -> dict[str, Entry]:
    """The entries of some files.  Hashing leaves the interpreter to other threads."""
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        found = pool.map(lambda file: _entry(run / file), files)
        return {file.as_posix(): entry for file, entry in zip(files, found, strict=True)}


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": sha256, "bytes": file.tell()}
