"""Files whose names say study and channel."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskjax.inputs.names import named_studies, stem
from mskjax.inputs.walk import Skipped
from tfds_builders.images import Wanted

ONE = {"image": Wanted(("t2",), "sagittal")}
ANY = {"image": Wanted(has_place=True)}
PAIR = {"t1": Wanted(("t1",)), "t2": Wanted(("t2",))}
MASK, OTHER = "a mask, by its name", "another sequence than is needed, by its name"


def told(names, needs):
    """Name of the study to channel to files, unclear ones under ""; and what is skipped."""
    skipped = Skipped()
    studies = named_studies([Path("/in") / name for name in names.split()], needs, skipped)
    found = {
        s.name: {
            **{c: " ".join(str(p.relative_to("/in")) for p in own) for c, own in s.files.items()},
            **({"": " ".join(p.name for p in s.unclear)} if s.unclear else {}),
        }
        for s in studies
    }
    return found, {why: count for why, (count, _) in skipped.found.items()}


@pytest.mark.parametrize(
    ("names", "needs", "found", "skipped"),
    [
        ("a.nii b.mha", ONE, {"a": {"image": "a.nii"}, "b": {"image": "b.mha"}}, {}),
        ("a_t1.nii a_t2.nii", PAIR, {"a": {"t1": "a_t1.nii", "t2": "a_t2.nii"}}, {}),
        ("a-T1w.NII.GZ a-T2W.mha", PAIR, {"a": {"t1": "a-T1w.NII.GZ", "t2": "a-T2W.mha"}}, {}),
        ("s1/t1.nii s1/t2.nii", PAIR, {"s1": {"t1": "s1/t1.nii", "t2": "s1/t2.nii"}}, {}),
        ("a_t2.nii a_t1.nii a_seg.nii", ONE, {"a": {"image": "a_t2.nii"}}, {OTHER: 1, MASK: 1}),
        ("a_t1.nii a.nii", ANY, {"a": {"image": "a.nii"}, "a_t1": {"image": "a_t1.nii"}}, {}),
        ("sub-1_x_T2w.nii.gz", ONE, {"sub-1_x": {"image": "sub-1_x_T2w.nii.gz"}}, {}),
        ("a.nii", PAIR, {"a": {"": "a.nii"}}, {}),
        ("a_t2.nii a_t2.mha", ONE, {"a": {"image": "a_t2.mha a_t2.nii"}}, {}),
        ("mask.nii seg.nii", ONE, {"mask": {"image": "mask.nii"}, "seg": {"image": "seg.nii"}}, {}),
        # nnU-Net numbers channels.
        ("c_0000.nii c_0001.nii", PAIR, {"c": {"t1": "c_0000.nii", "t2": "c_0001.nii"}}, {}),
        ("c_0000.nii", ONE, {"c": {"image": "c_0000.nii"}}, {}),
        (
            "c_0000.nii c_0001.nii d_0000.nii d_0001.nii", ONE,
            {"c": {"image": "c_0000.nii"}, "d": {"image": "d_0000.nii"}}, {OTHER: 2},
        ),
        # Others number studies.
        (
            "s_0000.nii s_0001.nii s_0002.nii", ONE,
            {f"s_{i:04d}": {"image": f"s_{i:04d}.nii"} for i in range(3)}, {},
        ),
        (
            "s_0007.nii s_0012.nii", ONE,
            {"s_0007": {"image": "s_0007.nii"}, "s_0012": {"image": "s_0012.nii"}}, {},
        ),
        ("a.png", ANY, {}, {"a PNG, which says no place in the patient": 1}),
    ],
)  # fmt: skip
def test_names(names, needs, found, skipped):
    assert told(names, needs) == (found, skipped)


def test_the_same_name_in_two_folders_is_two_studies():
    skipped = Skipped()
    studies = named_studies([Path("/a/x_t2.nii"), Path("/b/x_t2.nii")], ONE, skipped)
    assert [s.name for s in studies] == ["x", "x"]
    pairs = named_studies([Path("/a/x_t1.nii"), Path("/b/x_t2.nii")], PAIR, skipped)
    assert [set(s.files) for s in pairs] == [{"t1"}, {"t2"}]


_NAME = st.from_regex(r"[a-z0-9_. -]{1,8}\.(nii|nii\.gz|mha|png)", fullmatch=True)
_NAMES = st.lists(_NAME, max_size=8)


@given(_NAMES, st.sampled_from([ONE, PAIR, ANY]))
def test_every_file_is_in_one_study_or_skipped(names, needs):
    files = sorted({Path("/in") / name for name in names})
    skipped = Skipped()
    studies = named_studies(files, needs, skipped)
    used = [p for s in studies for own in (*s.files.values(), s.unclear) for p in own]
    count = sum(count for count, _ in skipped.found.values())
    assert len(used) == len(set(used))
    assert len(used) + count == len(files)
    assert all(set(s.files) <= set(needs) for s in studies)


def test_stems():
    assert [stem(Path(n)) for n in ("a.nii.gz", "a.b.NII", "a.mhd")] == ["a", "a.b", "a"]
