"""Crops of discs, their normalisations and their targets."""

import dataclasses

import numpy as np
import pytest

from mskjax.config import TrainConfig
from mskjax.errors import UserError
from mskjax.imaging import intensity
from mskjax.imaging.intensity import Landmarks
from mskjax.stages.crop_grading import CropGradingOptions, GraderOptions
from mskjax.systems.modic_changes import grading as pg

AFFINE = np.array([[-4.0, 0, 0, 7], [0, 0, -1.0, 50], [0, -1.0, 0, 20], [0, 0, 0, 1]])
# From the lowest upwards, one above the other: level.  Crops of 12 by 16 at 1 mm are pixels.
BOXES = ((50, 12, 58, 28), (30, 12, 38, 28), (10, 12, 18, 28))
DISCS = [pg.Disc(i + 1, 1, box) for i, box in enumerate(BOXES)]
WINDOWS = [(slice(0, 3), slice(row0 - 2, row1 + 2), slice(12, 28)) for row0, _, row1, _ in BOXES]


def stage(normalisation="z_score_volume", crop=(3, 12, 16), extent=1.0, heads=("modic",)):
    options = CropGradingOptions(
        crop=crop,
        model=GraderOptions(width=8, norm="group"),
        heads=heads,
        train=TrainConfig(steps=1, batch_size=1, warmup_steps=0),
        extent=extent,
    )
    return pg.PairedDiscGrading(
        "grades", options, tuple(pg.HEADS[h] for h in heads), normalisation=normalisation
    )


def study(seed=0, has_t1=True, **columns):
    rng = np.random.default_rng(seed)
    table = {
        "boxed": np.ones(3, int),
        "slice": np.ones(3, int),
        "level": np.array([1, 2, 3]),
        "box": np.array(BOXES, np.float32),
        "modic": np.array([0, 1, 2]),
        "pfirrmann": np.array([1, 3, 5]),
    }
    return {
        "study_id": f"s{seed}",
        "t1": rng.gamma(2.0, 60.0, (3, 70, 40)).astype(np.float32),
        "t2": rng.gamma(3.0, 30.0, (3, 70, 40)).astype(np.float32),
        "has_t1": has_t1,
        "affine": AFFINE,
        "boxes": table | {k: np.array(v) for k, v in columns.items()},
    }


VOLUMES = {
    "none": lambda x: x / 255,
    "min_max": intensity.min_max,
    "percentile": intensity.percentile,
    "z_score_volume": intensity.z_score,
}


@pytest.mark.parametrize("name", VOLUMES)
def test_a_crop_is_the_window_of_the_normalised_volume(name):
    own = study()
    crops = stage(name).cut(own, DISCS)["image"]
    assert (crops.shape, crops.dtype) == ((3, 3, 12, 16, 2), np.float32)
    for channel, sequence in enumerate(pg.SEQUENCES):
        whole = VOLUMES[name](own[sequence])
        for crop, window in zip(crops[..., channel], WINDOWS, strict=True):
            np.testing.assert_allclose(crop, whole[window], atol=2e-5)


def test_z_score_of_a_crop_is_its_own():
    own = study()
    crops = stage("z_score_crop").cut(own, DISCS)["image"].astype(np.float64)
    np.testing.assert_allclose(crops.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(crops.std((1, 2, 3)), 1, atol=1e-4)
    expected = intensity.z_score(own["t2"][WINDOWS[1]])
    np.testing.assert_allclose(crops[1, ..., 1], expected, atol=1e-4)


def test_tissue_reference_puts_marrow_at_a_quarter_whatever_its_signal():
    for signal in (40.0, 900.0):
        own = study()
        for sequence in pg.SEQUENCES:
            own[sequence][:] = signal
            for row0, col0, row1, col1 in BOXES:
                own[sequence][:, row0:row1, col0:col1] = 2 * signal
        assert pg.marrow_signals(own["t2"], DISCS) == pytest.approx([signal] * 3)
        crops = stage("tissue_reference").cut(own, DISCS)["image"]
        np.testing.assert_allclose(crops[:, :, :2], 0.25, rtol=1e-4)
        np.testing.assert_allclose(crops[:, :, 2:-2], 0.5, rtol=1e-4)


def test_tissue_reference_is_that_of_the_bodies_beside_each_disc():
    own = study()
    own["t2"][:, 38:50], own["t2"][:, 18:30] = 100, 300
    marrow = pg.marrow_signals(own["t2"], DISCS)
    assert marrow == pytest.approx([100, 200, 300])
    crops = stage("tissue_reference").cut(own, DISCS)["image"]
    for crop, window, signal in zip(crops[..., 1], WINDOWS, marrow, strict=True):
        expected = intensity.tissue_reference(own["t2"][window], signal)
        np.testing.assert_allclose(crop, expected, atol=1e-5)


def test_marrow_without_neighbours_is_the_median_above_zero():
    image = np.zeros((1, 20, 20), np.float32)
    image[0, :5] = np.arange(1, 101).reshape(5, 20)
    assert pg.marrow_signals(image, DISCS[:1]) == pytest.approx([50.5])
    assert (pg.marrow_signals(np.zeros((1, 9, 9)), [DISCS[0]]) > 0).all()
    assert pg.marrow_signals(image, []).shape == (0,)


def fitted(made, studies, train):
    """The stage with landmarks, where it needs them."""
    if made.normalisation != "landmarks":
        return made
    learnt = pg.fit_landmarks(studies, train)
    return dataclasses.replace(made, landmarks=(learnt["t1"], learnt["t2"]))


def test_landmarks_are_those_of_the_training_studies_alone():
    train, other = [study(1), study(2, has_t1=False)], study(3)
    made = fitted(stage("landmarks"), train, range(len(train)))
    assert made.landmarks == (
        Landmarks.fit([train[0]["t1"]]),
        Landmarks.fit([s["t2"] for s in train]),
    )
    crops = made.cut(other, DISCS)["image"]
    for channel, sequence in enumerate(pg.SEQUENCES):
        whole = made.landmarks[channel].apply(other[sequence])
        np.testing.assert_allclose(crops[0, ..., channel], whole[WINDOWS[0]], atol=2e-5)
    with pytest.raises(ValueError, match="fitted on training studies first"):
        stage("landmarks").cut(other, DISCS)


def test_normalisations_share_one_network():
    made = [fitted(stage(name), [study(1)], [0]) for name in pg.NORMALISATIONS]
    assert {m.traced() for m in made} == {made[0].traced()}
    assert made[0].traced() != dataclasses.replace(made[0], heads=(pg.HEADS["presence"],)).traced()


def test_landmarks_need_a_training_patient_with_t1():
    studies = [study(1, has_t1=False), study(2)]
    with pytest.raises(UserError, match="no training patient has a T1"):
        fitted(stage("landmarks"), studies, [0])


@pytest.mark.parametrize("name", pg.NORMALISATIONS)
def test_a_missing_t1_is_zero_and_changes_nothing_of_t2(name):
    made = fitted(stage(name), [study(1)], [0])
    with_t1, without = (made.cut(study(has_t1=h), DISCS)["image"] for h in (True, False))
    assert not without[..., 0].any()
    assert with_t1[..., 0].any()
    np.testing.assert_array_equal(without[..., 1], with_t1[..., 1])


def test_what_lies_outside_the_image_is_as_dark_as_its_darkest_voxel():
    own = study()
    edge = [pg.Disc(1, 0, (50, 0, 58, 16)), pg.Disc(2, 0, (30, 0, 38, 16))]
    crops = stage().cut(own, edge)["image"][0, ..., 1]
    whole = intensity.z_score(own["t2"])
    np.testing.assert_allclose(crops[0], whole.min(), atol=1e-5)  # the slice before the first
    np.testing.assert_allclose(crops[1], whole[0, 48:60, :16], atol=2e-5)


@pytest.mark.parametrize("angle", [-0.5, -0.2, 0.35])
def test_a_tilted_disc_comes_out_level(angle):
    centre = np.array([60.0, 60.0])
    down, along = (
        np.array([np.cos(angle), -np.sin(angle)]),
        np.array([np.sin(angle), np.cos(angle)]),
    )
    rows, cols = np.indices((120, 120))
    image = np.zeros((3, 120, 120), np.float32)
    discs = []
    for number in (-1, 0, 1):
        middle = centre - 28 * number * down
        offset = np.stack([rows - middle[0], cols - middle[1]], -1)
        image[:, (np.abs(offset @ down) < 3) & (np.abs(offset @ along) < 15)] = 100
        box = (middle[0] - 5.5, middle[1] - 14.5, middle[0] + 6.5, middle[1] + 15.5)
        discs.append(pg.Disc(number + 2, 1, box))
    own = study() | {"t1": image, "t2": image}
    made = stage("none", crop=(1, 24, 32), extent=32 / 30)
    for crop in made.cut(own, discs)["image"][:, 0, ..., 1] * 255:
        assert crop[10:14, 2:-2].min() > 60  # bright from end to end
        assert crop[:7].max() < 15
        assert crop[17:].max() < 15
        np.testing.assert_allclose(crop[:, 3], crop[:, -4], atol=45)
    upright = made.cut(own, discs[:1])["image"][0, 0, ..., 1] * 255
    assert upright[10:14, 2:-2].min() < 15


def test_no_disc_gives_no_crop():
    assert stage().cut(study(), [])["image"].shape == (0, 3, 12, 16, 2)
    assert stage().training_examples(study(boxed=(0, 0, 0))) is None


def test_examples_are_the_graded_boxed_discs_cut_with_all_their_neighbours():
    own = study(modic=(2, -1, 0), pfirrmann=(-1, -1, 5))
    made = stage(heads=("modic", "pfirrmann"))
    examples = made.training_examples(own)
    assert examples["case"].tolist() == ["s0/1", "s0/3"]
    np.testing.assert_array_equal(examples["target_modic"], [2, 0])
    np.testing.assert_array_equal(examples["target_pfirrmann"], [-1, 4])
    np.testing.assert_array_equal(examples["image"], made.cut(own, DISCS)["image"][[0, 2]])


@pytest.mark.parametrize(
    "columns",
    [{"modic": (-1, -1, -1)}, {"level": (0, 0, 0)}, {"modic": (3, -1, -1)}],
)
def test_ungraded_discs_and_discs_of_no_level_train_nothing(columns):
    assert stage().training_examples(study(**columns)) is None


def test_classes_of_the_heads():
    grades = np.array([-1, 0, 1, 2, 3])
    assert pg.HEADS["modic"].target(grades).tolist() == [-1, 0, 1, 2, -1]
    assert pg.HEADS["presence"].target(grades).tolist() == [-1, 0, 1, 1, 1]
    assert pg.HEADS["pfirrmann"].target([-1, 1, 5]).tolist() == [-1, 0, 4]


def test_boxed_discs_come_from_the_lowest_upwards():
    own = study(box=np.array(BOXES, np.float32)[::-1], level=(3, 2, 1), boxed=(1, 0, 1))
    discs, grades = pg.boxed_discs(own)
    assert [(d.level, d.box[0]) for d in discs] == [(1, 50), (3, 10)]
    assert grades["modic"].tolist() == [2, 0]
    assert dataclasses.astuple(discs[0])[1:] == (1, BOXES[0], 1.0)
