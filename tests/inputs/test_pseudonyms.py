"""Names that say nothing, and the key that makes them."""

import csv
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from mskjax.errors import UserError
from mskjax.inputs import pseudonyms
from mskjax.inputs.pseudonyms import Pseudonyms, salt_file, table, write_private


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MSKJAX_SALT_FILE", raising=False)
    return tmp_path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_name_is_the_keyed_hash_of_the_study():
    """HMAC-SHA256 of RFC 4231, test case 2."""
    assert Pseudonyms(b"Jefe").names(["what do ya want for nothing?"]) == ["study-5bdcc146bf"]


def test_names_are_stable_and_different():
    keys = [f"1.2.{i}" for i in range(500)]
    names = Pseudonyms(b"a" * 32).names(keys)
    assert len(set(names)) == 500
    assert Pseudonyms(b"a" * 32).names(keys[100:101]) == names[100:101]
    assert not set(names) & set(Pseudonyms(b"b" * 32).names(keys))
    assert Pseudonyms(b"a" * 32).names(["x", "y", "x", "x"])[2:] == [
        f"{Pseudonyms(b'a' * 32).names(['x'])[0]}-{n}" for n in (2, 3)
    ]


def test_hashes_that_begin_alike_get_longer_names(monkeypatch):
    monkeypatch.setattr(Pseudonyms, "_digest", lambda self, key: "0" * 11 + key + "0" * 20)
    names = Pseudonyms(b"").names(["ab", "ac", "ab"])
    assert names == ["study-00000000000ab", "study-00000000000ac", "study-00000000000ab-2"]


@pytest.fixture
def open_handed():
    """A umask that keeps nothing from anybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_key_is_made_once_and_is_the_users_own(home, open_handed):
    first = pseudonyms.pseudonyms().names(["x"])
    path = salt_file()
    assert path == home / "config" / "mskjax" / "salt"
    assert len(path.read_bytes()) == 32
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert pseudonyms.pseudonyms().names(["x"]) == first
    path.unlink()
    assert pseudonyms.pseudonyms().names(["x"]) != first


def test_a_key_of_ones_own_is_used(home, monkeypatch):
    own = home / "group" / "key"
    monkeypatch.setenv("MSKJAX_SALT_FILE", str(own))
    first = pseudonyms.pseudonyms().names(["x"])
    assert own.exists()
    assert not (home / "config").exists()
    own.chmod(0o640)
    with pytest.raises(UserError, match="key: others may read the key of the .*chmod 600"):
        pseudonyms.pseudonyms()
    own.chmod(0o600)
    assert pseudonyms.pseudonyms().names(["x"]) == first
    own.write_bytes(b"short")
    with pytest.raises(UserError, match="has 5 bytes, not the 32 of a key"):
        pseudonyms.pseudonyms()
    monkeypatch.setenv("MSKJAX_SALT_FILE", str(own / "below a file"))
    with pytest.raises(UserError, match="cannot be read or made .* MSKJAX_SALT_FILE"):
        pseudonyms.pseudonyms()


def _first_name(path: str) -> str:
    os.environ["MSKJAX_SALT_FILE"] = path
    return pseudonyms.pseudonyms().names(["x"])[0]


def test_processes_that_begin_together_have_one_key(home):
    path = str(home / "salt")
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        names = pool.map(_first_name, [path] * 16, chunksize=1)
    assert len(set(names)) == 1
    assert os.listdir(home) == ["salt"]


def test_without_hard_links_the_key_is_made_too(home, monkeypatch):
    def no_links(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    first = pseudonyms.pseudonyms().names(["x"])
    assert pseudonyms.pseudonyms().names(["x"]) == first
    assert mode(salt_file()) == 0o600


def test_the_table_that_maps_back_is_private(tmp_path, monkeypatch, open_handed):
    rows = [("study-1", "1.2.3", 'Müller, "H"', (Path("/a/b"), Path("/a/c")))]
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    path = tmp_path / "new" / "names.csv"
    write_private(path, table(rows))
    assert mode(path) == 0o600
    assert opened == [(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)]  # from its first byte on
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "study": "study-1", "study_uid": "1.2.3", "patient_id": 'Müller, "H"',
        "files": "/a/b | /a/c",
    }  # fmt: skip
    before = path.read_bytes()
    with pytest.raises(UserError, match="names.csv exists and is not overwritten"):
        write_private(path, "")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(UserError, match="exists and is not overwritten"):
        write_private(tmp_path / "link", "")
    assert path.read_bytes() == before
    assert not (tmp_path / "target").exists()
    with pytest.raises(UserError, match="cannot be written"):
        write_private(path / "below", "")
