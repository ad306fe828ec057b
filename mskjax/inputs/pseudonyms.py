"""Names of studies that say nothing of the patient, and the table that maps them back.

A name is a keyed hash (HMAC-SHA256) of the study.  Without the key, trying all short ids finds
nothing; with it the same study has the same name in every run.  The key is 32 random bytes in a
file of the user's own: ``$MSKJAX_SALT_FILE``, or ``mskjax/salt`` in ``$XDG_CONFIG_HOME`` (if unset
``~/.config``).
"""

import csv
import hashlib
import hmac
import io
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from mskjax.errors import UserError

PREFIX = "study-"
_SHORT = 10  # hexadecimal digits; two of a thousand studies share them once in two million lists
_SALT_BYTES = 32


class Pseudonyms:
    """Names studies.

    Args:
      salt: the secret key.
    """

    def __init__(self, salt: bytes):
        self._salt = salt

    @property
    def salt(self) -> bytes:
        """The key, for what else must be told by it alone."""
        return self._salt

    def names(self, keys: Sequence[str]) -> list[str]:
        """A name of each study, e.g. ``study-3f9a1c2b7d``.

        Args:
          keys: what a study is told by, e.g. its UID.

        Returns:
          Names, all different: two keys whose hashes begin alike have longer names, and a key that
          comes again has a number behind its name.
        """
        digests = {key: self._digest(key) for key in keys}
        length = _SHORT
        while len({digest[:length] for digest in digests.values()}) < len(digests):
            length += 1
        short = {digest[:_SHORT]: 0 for digest in digests.values()}
        for digest in digests.values():
            short[digest[:_SHORT]] += 1
        seen: dict[str, int] = {}
        names = []
        for key in keys:
            digest = digests[key]
            name = PREFIX + digest[: _SHORT if short[digest[:_SHORT]] == 1 else length]
            seen[key] = seen.get(key, 0) + 1
            names.append(name if seen[key] == 1 else f"{name}-{seen[key]}")
        return names

    def _digest(self, key: str) -> str:
        return hmac.new(self._salt, key.encode(), hashlib.sha256).hexdigest()


def pseudonyms() -> Pseudonyms:
    """`Pseudonyms` of this user, whose key is made at first use.

    Raises:
      UserError: the key cannot be read or made, is damaged, or others may read it.
    """
    path = salt_file()
    try:
        return Pseudonyms(_read_salt(path) if path.exists() else _make_salt(path))
    except OSError as error:
        raise UserError(
            f"{path}: the key of the studies' names cannot be read or made ({error.strerror}); name"
            " a file that can be in MSKJAX_SALT_FILE."
        ) from error


def salt_file() -> Path:
    """Where the key is."""
    if own := os.environ.get("MSKJAX_SALT_FILE"):
        return Path(own).expanduser()
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "mskjax" / "salt"


def write_private(path: Path, text: str) -> None:
    """Writes a new file that nobody else may read, from its first byte on.

    Raises:
      UserError: it exists, or cannot be written.
    """
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if os.path.lexists(path):
            raise UserError(f"{path} exists and is not overwritten; name another file.") from error
        raise UserError(
            f"{path} cannot be written ({error.strerror}); name another file."
        ) from error
    # A file system may hold names that are no text.
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)


def table(rows: Sequence[tuple[str, str, str, Sequence[Path]]]) -> str:
    """The table that maps names back, as CSV.

    Args:
      rows: name, StudyInstanceUID, PatientID and files of each study.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["study", "study_uid", "patient_id", "files"])
    for name, study, patient, files in rows:
        writer.writerow([name, study, patient, " | ".join(map(str, files))])
    return text.getvalue()


def _read_salt(path: Path) -> bytes:
    about = path.stat()
    if os.name == "posix" and stat.S_IMODE(about.st_mode) & 0o077:
        raise UserError(
            f"{path}: others may read the key of the studies' names; chmod 600 it, and remove it"
            " if they have: a new one is made."
        )
    salt = path.read_bytes()
    if len(salt) < _SALT_BYTES:
        raise UserError(
            f"{path}: has {len(salt)} bytes, not the {_SALT_BYTES} of a key; restore it, or remove"
            " it and studies get new names."
        )
    return salt


def _make_salt(path: Path) -> bytes:
    """Makes the key; of several processes that do at once, all return the one that was first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_SALT_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # whole, or not at all if another was first
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                os.rename(part, path)
    finally:
        part.unlink(missing_ok=True)
    return _read_salt(path)
