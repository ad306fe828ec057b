"""Every file below the given paths, once; what is none is counted with its reason."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mskjax.inputs.walk import Skipped, files_below, printable, sort_kinds


def test_a_path_that_is_given_twice_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z"):
        (tmp_path / name).write_text("1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("a")
    given_paths = (tmp_path, Path("a"), Path("x"), tmp_path / "link", Path("a/b"))
    roots = dict.fromkeys(given_paths, "--input")
    skipped = Skipped()
    found = files_below(roots, skipped)
    assert sorted(p.resolve() for p in found) == [
        tmp_path / "a" / "b" / "z", tmp_path / "a" / "y", tmp_path / "x",
    ]  # fmt: skip
    assert list(skipped.found) == ["a link, which is not followed; give what it leads to"]


def test_kinds_are_told_by_content_and_images_by_name(tmp_path):
    contents = {
        "image": bytes(128) + b"DICM" + bytes(50), "bare": b"\x08\0\5\0CS\n\0ISO_IR 100",
        "a.nii": b"", "b.NII.GZ": b"x", "c.mhd": b"", "d.raw": b"\xff\xfe\0\0", "e.txt": b"text",
        "f.pdf": b"%PDF-1", "g.zip": b"", "h": b"PK\3\4", "i.json": b"{}", "j": bytes(500),
        "k": b"",
        "l.gz": b"\x1f\x8b", "m": bytes(257) + b"ustar" + bytes(300), ".DS_Store": b"\0\0\0\1Bud1",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    skipped = Skipped()
    files = files_below({tmp_path: ""}, skipped)
    kinds = {path.name: kind for kind, path in sort_kinds(files, skipped)}
    assert kinds == {
        "image": "dicom", "bare": "dicom", "a.nii": "volume", "b.NII.GZ": "volume",
        "c.mhd": "volume", "j": "doubtful", "k": "doubtful",
    }  # fmt: skip
    assert {why: count for why, (count, _) in skipped.found.items()} == {
        "a macOS system file": 1,
        "the data of a MetaImage, which its .mhd names, or no image": 1,
        "text": 2,
        "a PDF": 1,
        "archives are not opened; unpack it and give the folder": 4,
    }


def test_files_are_named_where_they_may_be():
    skipped = Skipped()
    for i in range(5):
        skipped.add("text", Path(f"/p/{i}\n.txt"))
    skipped.add("a PDF", Path("/p/x.pdf"))
    assert skipped.sentences() == [
        "5 files or folders are not read (text).", "1 file or folder is not read (a PDF).",
    ]  # fmt: skip
    assert skipped.sentences(named=True) == [
        "5 files or folders are not read (text): /p/0\\n.txt, /p/1\\n.txt, /p/2\\n.txt, ....",
        "1 file or folder is not read (a PDF): /p/x.pdf.",
    ]


@given(st.text())
def test_what_is_printed_moves_no_cursor(text):
    said = printable(text)
    assert said.isprintable()
    assert "\x1b" not in said
