"""Which series serves which channel."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs.test_sequence import series

from mskjax.errors import UserError
from mskjax.inputs.choice import Pick, Unclear, choose, demand, label, parse_series
from tfds_builders.images import Wanted

ONE = {"image": Wanted(("t2",), "sagittal")}
PAIR = {"t2": Wanted(("t2",), "sagittal"), "t1": Wanted(("t1",), "sagittal")}
Y_VIEW = {"image": Wanted(("t1", "pd"), "y-view")}
LAX = {**PAIR, "t1": Wanted(("t1",), "sagittal", optional=True)}

T2 = {"EchoTime": "100", "RepetitionTime": "3500"}
T1 = {"EchoTime": "11", "RepetitionTime": "500"}
FS = {**T2, "ScanOptions": "FS"}
MPR = {**T2, "SeriesDescription": "mpr"}
PD = {"EchoTime": "20", "RepetitionTime": "2500"}


def of_uid(shown, uid):
    return dataclasses.replace(shown, stack=dataclasses.replace(shown.stack, uid=uid))


@pytest.mark.parametrize(
    ("text", "needs", "picks"),
    [
        (None, ONE, {}),
        ("", ONE, {}),
        ("3", ONE, {"image": Pick(3)}),
        ("image=3", ONE, {"image": Pick(3)}),
        ("1.2.840.5", ONE, {"image": Pick(uid="1.2.840.5")}),
        ("t1=3, t2=1.2.3", PAIR, {"t1": Pick(3), "t2": Pick(uid="1.2.3")}),
    ],
)
def test_what_series_says(text, needs, picks):
    assert parse_series(text, needs) == picks


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Nd"]), min_size=1, max_size=12))
def test_any_other_text_is_refused(text):
    with pytest.raises(UserError, match="write t2=NUMBER,t1=NUMBER"):
        parse_series(text, PAIR)


@pytest.mark.parametrize(
    ("have", "needs", "chosen"),
    [
        ([series(**T1), series(**T2)], ONE, {"image": 1}),
        ([series(**T2), series(**T1)], PAIR, {"t2": 0, "t1": 1}),
        ([series(**T2)], LAX, {"t2": 0}),
        # Clean before fat-suppressed, fat-suppressed before reformatted, before STIR.
        ([series(**T2, ScanOptions="FS"), series(**T2)], ONE, {"image": 1}),
        ([series(**MPR), series(**FS)], ONE, {"image": 1}),
        ([series(**T2, InversionTime="160"), series(**MPR)], ONE, {"image": 1}),
        # A weighting that is known before one that is not; alone it is taken.
        ([series(), series(**T2, ScanOptions="FS")], ONE, {"image": 1}),
        ([series(), series(**T1)], ONE, {"image": 0}),
        # For what may be left out it is not.
        ([series(**T2), series()], LAX, {"t2": 0}),
        # The first weighting before the second, but not if it is worse.
        ([series("y-view", **PD), series("y-view", **T1)], Y_VIEW, {"image": 1}),
        ([series("y-view", **PD), series("y-view", **T1, ScanOptions="FS")], Y_VIEW, {"image": 0}),
        # A plain sagittal and an oblique one of 50 degrees: the nearer to left-right.
        ([series("coronal oblique", **T1), series("sagittal", **T1)], Y_VIEW, {"image": 1}),
        ([series("axial", **T1)], {"image": Wanted()}, {"image": 0}),
    ],
)  # fmt: skip
def test_the_best_is_chosen(have, needs, chosen):
    assert choose(have, needs, {}) == chosen


@pytest.mark.parametrize(
    ("have", "needs", "why"),
    [
        ([], ONE, "no series shows what image must (sagittal T2)"),
        ([series(**T1)], ONE, "if one does all the same: 1 sagittal T1, TE 11 ms"),
        ([series("axial", **T2)], ONE, "1 axial T2"),
        ([series(**T2, ImageType="A\\B\\LOCALIZER")], ONE, "1 sagittal T2, localiser"),
        ([series(**T2, Modality="CT")], ONE, "1 sagittal T2, no MR"),
        ([series(**T2)] * 2, ONE, "well as image; say which with --series=NUMBER: 1 to 2"),
        ([series(**T2)] * 2 + [series(**T1)], PAIR, "well as t2; say which with --series=t2="),
        ([series(**T2), *[series(**T1)] * 2], PAIR, "equally well as t1; say which"),
        ([series()], PAIR, "t2 and t1 would be one series"),
        ([series(), series()], PAIR, "equally well as t2 and t1"),
        ([series(**T2)] * 20 + [series("axial")] * 3, ONE, "1 to 20 sagittal T2"),
        (
            [series(EchoTime=str(100 + i), RepetitionTime="3000") for i in range(20)],
            ONE,
            "12 sagittal T2, TE 111 ms, TR 3000 ms, 5 slices; and 8 more.",
        ),
    ],
)  # fmt: skip
def test_what_is_unclear_is_said_with_what_there_is(have, needs, why):
    with pytest.raises(Unclear) as caught:
        choose(have, needs, {})
    assert why in str(caught.value)


def test_of_equal_pairs_the_one_that_shows_one_place():
    low = series(**T2, FrameOfReferenceUID="1.1"), series(**T1, FrameOfReferenceUID="1.1")
    high = (series(**T2, FrameOfReferenceUID="1.2"),)
    assert choose([*high, *low], PAIR, {}) == {"t2": 1, "t1": 2}
    wide = series(**T2, slices=40)  # 156 mm of which the other shows 16
    assert choose([wide, series(**T1)], PAIR, {}) == {"t2": 0, "t1": 1}


def test_a_pick_is_taken_whatever_it_shows():
    have = [series("axial", **T1), series(**T2), of_uid(series(**T2), "9.9")]
    assert choose(have, ONE, {"image": Pick(1)}) == {"image": 0}
    assert choose(have, ONE, {"image": Pick(uid="9.9")}) == {"image": 2}
    with pytest.raises(Unclear, match="gives image the number 4, but there are 3: 1 axial T1"):
        choose(have, ONE, {"image": Pick(4)})
    with pytest.raises(Unclear, match="equally well"):
        choose(have, ONE, {"image": Pick(uid="7.7")})  # of another study
    with pytest.raises(Unclear, match="would be one series"):
        choose(have, PAIR, {"t1": Pick(2), "t2": Pick(2)})
    # Of the stacks of one series the best.
    stacks = [of_uid(series(**T2, ImageType=f"A\\B\\{k}"), "9.9") for k in ("F", "M", "W")]
    assert choose(stacks, ONE, {"image": Pick(uid="9.9")}) == {"image": 1}


def test_words():
    assert label([series(**T1), series(**T2)], 1).startswith("series 2 of 2: sagittal T2, TE 100")
    assert demand(Y_VIEW["image"]) == "sagittal oblique (Y-view) T1 or PD"
    assert demand(Wanted()) == "an image with a place"
