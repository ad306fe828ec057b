"""Flags: what lies outside the training studies, in words with numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_profile import AFFINE, study

from mskjax import profile, quality
from mskjax.metrics.grading import Grading

GRADES = Grading("pfirrmann", ("i", "ii", "iii", "iv", "v"), ordinal=True)
KINDS = Grading("modic", ("none", "one", "two"))


@pytest.fixture(scope="module")
def ranges():
    studies = (study(f"s{n}", affine=AFFINE * (1 + 0.05 * n)) for n in range(5))
    return profile.ranges([profile.measure(s) for s in studies])


def flags_of(ranges, **changes):
    return quality.flags(profile.measure(study("new", **changes)), ranges)


def test_training_studies_have_no_flag(ranges):
    for n in range(5):
        assert flags_of(ranges, affine=AFFINE * (1 + 0.05 * n)) == []
    assert flags_of(ranges, affine=AFFINE * 1.3) == []  # within a tenth of the greatest


def test_spacing_and_size_outside_are_named_with_numbers(ranges):
    found = flags_of(ranges, affine=AFFINE @ np.diag([1, 2, 1, 1]))
    assert [f.kind for f in found] == ["spacing", "size"]
    assert found[0].text == "Rows lie 1.4 mm apart; in the 5 training studies 0.7 to 0.84."
    assert found[1].text == "The image is 56 mm high; in the 5 training studies 28 to 33.6."
    (flag,) = flags_of(ranges, image=np.concatenate([study()["image"]] * 3))
    assert flag == ("size", "It has 18 slices; in the 5 training studies 6 to 6.")


def test_a_file_without_a_pixel_size_says_so_and_is_counted_in_pixels(ranges):
    found = flags_of(ranges, pixel_size_known=False, image=np.tile(study()["image"], (1, 2, 1)))
    assert [f.kind for f in found] == ["spacing", "size"]
    assert "does not say how large its pixels are" in found[0].text
    assert found[1].text.startswith("It has 80 rows;")


def test_another_gain_has_no_flag_and_another_contrast_has(ranges):
    image = study()["image"]
    assert flags_of(ranges, image=1000 + 37 * image) == []
    (flag,) = flags_of(ranges, image=300 - image)
    assert flag.kind == "intensity"
    assert flag.text.startswith("The median voxel of image lies at 1.00 of its intensity range; in")
    assert flag.text.endswith("Is it the sequence that the run was trained on?")
    (flag,) = flags_of(ranges, image=np.zeros_like(image))
    assert flag == ("intensity", "Nearly all voxels of image have one intensity.")


def test_an_image_that_training_studies_lack_too_is_not_missed():
    zeros = np.zeros_like(study()["image"])
    ranges = profile.ranges([profile.measure(study("s1", t1=v)) for v in (zeros, study()["image"])])
    assert flags_of(ranges, t1=zeros) == []
    assert flags_of(profile.ranges([profile.measure(study(t1=zeros + 1))]), t1=zeros)


def test_of_a_run_that_kept_no_profile_nothing_is_flagged():
    row = profile.measure(study(pixel_size_known=False))
    assert quality.flags(row, {}) == []


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_one_of_the_training_studies_is_never_outside(count, seed):
    rng = np.random.default_rng(seed)
    shape = (4, 12, 10)
    rows = [
        profile.measure(
            study(
                f"s{n}",
                image=rng.gamma(2, 50, shape).astype(np.float32),
                affine=AFFINE * rng.uniform(0.2, 3),
            )
        )
        for n in range(count)
    ]
    assert not any(quality.flags(row, profile.ranges(rows)) for row in rows)


@pytest.mark.parametrize(
    ("levels", "gaps", "said"),
    [
        ([1, 2, 3, 4, 5], 0, []),
        ([1, 2, 4, 5, 6], 1, ["1 level is skipped between discs that were found; count them."]),
        ([1, 2, 2, 3, 4], 0, ["Two regions were given one level."]),
        (
            [1, 2, 5],
            2,
            [
                "2 levels are skipped between discs that were found; count them.",
                "3 regions were found; studies of the run have 5 to 7. The lowest may not be"
                " level 1.",
            ],
        ),
        ([], 0, ["0 regions were found; studies of the run have 5 to 7. The lowest may not be"
                 " level 1."]),
    ],
)  # fmt: skip
def test_levels_that_cannot_be_trusted(levels, gaps, said):
    rows = [{"kind": "regions", "regions_reference": str(n)} for n in (5, 7, 6, 0)]
    seen = quality.levels_seen([*rows, {"kind": "grade"}])
    assert seen == (5, 7)
    found = quality.level_flags(levels, gaps, seen)
    assert [f.text for f in found] == said
    assert {f.kind for f in found} <= {"levels"}
    alone = quality.level_flags(levels, gaps, None)
    assert len(alone) == len(said) - any("studies of the run" in text for text in said)


def test_a_run_without_regions_says_nothing_of_levels():
    assert quality.levels_seen([{"kind": "grade"}]) is None


def sure(*classes, count=5):
    return 0.8 * np.eye(count)[list(classes)] + 0.2 / count


@pytest.mark.parametrize(
    ("calls", "agreeing", "said"),
    [
        ((2, 2, 2, 2, 2), 5, None),
        ((2, 2, 2, 2, 3), 4, None),
        ((2, 2, 2, 3, 3), 3, "3 of 5 networks call pfirrmann iii, 2 iv."),
        ((2, 2, 2, 2, 4), 4, "4 of 5 networks call pfirrmann iii, 1 v."),
        ((1,), 1, None),
    ],
)
def test_networks_that_disagree(calls, agreeing, said):
    found = quality.disagreement(GRADES, sure(*calls))
    assert (found.agreeing, found.members) == (agreeing, len(calls))
    assert (found.flag and found.flag.text) == said


def test_classes_without_an_order_are_never_far_apart():
    assert quality.disagreement(KINDS, sure(0, 0, 2, count=3)).flag is None
    assert quality.disagreement(KINDS, sure(0, 0, 2, 2, 1, count=3)).agreeing == 2


def test_a_network_that_missed_the_region_agrees_with_none():
    members = sure(2, 2, 2)
    members[2] = np.nan
    assert quality.disagreement(GRADES, members) == (2, 3, None)
    members[1] = np.nan
    found = quality.disagreement(GRADES, members)
    assert found.flag.text == "1 of 3 networks call pfirrmann iii, 2 no region."
    assert quality.disagreement(GRADES, np.full((3, 5), np.nan)) == (0, 3, None)
