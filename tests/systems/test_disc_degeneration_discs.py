"""Crops of discs, what is known of them, and the 3-D grader that learns from them."""

from types import MappingProxyType

import numpy as np
import pytest
from stages.fitting import fitted, view_of

from mskjax.config import TrainConfig
from mskjax.evaluation import predict
from mskjax.imaging.augment import CropAugmentation
from mskjax.stages.crop_grading import CropGradingOptions, GraderOptions
from mskjax.systems.disc_degeneration import discs as dg

# Sagittal, 4 mm apart; square pixels of 1 mm.
AFFINE = np.array([[-4.0, 0, 0, 7], [0, 0, -1.0, 50], [0, -1.0, 0, 20], [0, 0, 0, 1]])
# Rows of the discs from the lowest upwards; bodies lie between them.
DISCS = {1: slice(50, 58), 2: slice(30, 38), 3: slice(10, 18)}
BRIGHTNESS = {1: 40.0, 2: 120.0, 3: 200.0}
MARROW = 80.0
STILL = CropAugmentation(*[0] * 11)
LEVELS = {
    "level": np.array([1, 2, 3, 4]),
    "pfirrmann": np.array([5, 3, 1, 2]),
    "narrowing": np.array([3, -1, 0, 0]),
}


HEADS = ("pfirrmann", "narrowing")
TINY = {"width": 8, "blocks": (1, 1, 1, 1), "norm": "group"}


def stage(crop=(3, 8, 16), extent=1.0, heads=HEADS, model=MappingProxyType(TINY), **options):
    made = CropGradingOptions(
        crop=crop,
        model=GraderOptions(**TINY | model),
        heads=heads,
        train=TrainConfig(60, batch_size=6, learning_rate=0.02, warmup_steps=2),
        extent=extent,
        **{"augmentation": STILL, **options},
    )
    return dg.DiscGrading("grades", made, tuple(dg.HEADS[h] for h in heads))


def study(name="s", levels=LEVELS, slices=5):
    mask, numbers = (np.zeros((slices, 70, 32), np.uint8) for _ in range(2))
    mask[1:4, 2:66, 8:24] = dg.VERTEBRA
    image = np.where(mask > 0, MARROW, 5.0).astype(np.float32)
    for level, rows in DISCS.items():
        mask[1:4, rows, 8:24] = dg.DISC
        numbers[1:4, rows, 8:24] = level
        image[1:4, rows, 8:24] = BRIGHTNESS[level]
    return {
        "study_id": name,
        "image": image,
        "mask": mask,
        "disc_levels": numbers,
        "affine": AFFINE,
        "levels": levels,
    }


def cut(made, own):
    discs, _ = dg.reference_discs(own)
    return made.cut(own, discs, own["mask"] == dg.VERTEBRA)["image"]


def test_a_crop_is_the_disc_and_its_marrow_comes_out_at_a_quarter():
    crops = cut(stage(), study())
    assert crops.shape == (3, 3, 8, 16, 1)
    assert crops.dtype == np.float32
    # 16 mm wide and 8 mm high: pixels of the crop are those of the disc, in all its slices.
    for crop, bright in zip(crops, BRIGHTNESS.values(), strict=True):
        np.testing.assert_allclose(crop, 0.25 * bright / MARROW, atol=0.02)
    wide = cut(stage(crop=(5, 24, 48), extent=3.0), study())
    inner, above = wide[:, 1:4, 8:16, 16:32, 0], wide[:, 1:4, 1:7, 17:31, 0]
    np.testing.assert_allclose(
        inner.mean((1, 2, 3)) * 4 * MARROW, list(BRIGHTNESS.values()), rtol=0.05
    )
    np.testing.assert_allclose(above, 0.25, atol=0.05)
    assert wide[:, [0, 4]].max() < 0.05  # beside the spine


def test_a_turned_disc_is_cut_level():
    own = study()
    rows, cols = np.mgrid[:70, :32] - np.array([34.0, 16.0])[:, None, None]
    along, across = 0.96 * cols + 0.28 * rows, 0.96 * rows - 0.28 * cols
    tilted = (np.abs(along) < 10) & (np.abs(across) < 3)
    own["disc_levels"] = np.where(tilted, np.uint8(1), np.uint8(0))[None].repeat(5, 0)
    own["image"] = np.where(own["disc_levels"] > 0, 150.0, 10.0).astype(np.float32)
    (crop,) = cut(stage(crop=(1, 12, 24), extent=1.2), own)[..., 0]
    profile = crop[0].mean(1)
    assert profile[5:7].min() > 3 * profile[[0, 1, -2, -1]].max()


def test_no_disc_gives_no_crop():
    own = study()
    assert stage().cut(own, [], own["mask"] == dg.VERTEBRA)["image"].shape == (0, 3, 8, 16, 1)


def test_examples_are_the_graded_discs_with_classes_and_ids():
    examples = stage().training_examples(study())
    # Level 4 has grades and no region; its row is left out.
    assert examples["case"].tolist() == ["s/1", "s/2", "s/3"]
    assert examples["target_pfirrmann"].tolist() == [4, 2, 0]
    assert examples["target_narrowing"].tolist() == [3, -1, 0]
    brightness = examples["image"].mean((1, 2, 3, 4))
    assert brightness[0] < brightness[1] < brightness[2]


def test_a_disc_without_a_pfirrmann_grade_is_no_example():
    grades = LEVELS | {"pfirrmann": np.array([-1, 3, -1, 2])}
    examples = stage().training_examples(study(levels=grades))
    assert examples["case"].tolist() == ["s/2"]
    none = LEVELS | {"pfirrmann": np.full(4, -1)}
    assert stage().training_examples(study(levels=none)) is None


def test_hand_features_are_brightness_and_height_beside_marrow_and_width():
    own = study()
    vertebra = own["mask"] == dg.VERTEBRA
    features = np.array([dg.hand_features(own, d, vertebra) for d in dg.reference_discs(own)[0]])
    np.testing.assert_allclose(
        features[:, 0], np.array(list(BRIGHTNESS.values())) / MARROW, rtol=1e-5
    )
    np.testing.assert_allclose(features[:, 1], features[:, 0])
    np.testing.assert_allclose(features[:, 2:], [[8, 0.5]] * 3, rtol=1e-5)


def test_a_view_moves_each_crop_on_its_own_and_nothing_else():
    examples = stage(crop=(3, 12, 24)).training_examples(study())
    batch = {k: v for k, v in examples.items() if k != "case"}
    still = view_of(stage(crop=(3, 12, 24)), batch)
    np.testing.assert_array_equal(still["image"], batch["image"])  # to the last bit
    moving = stage(crop=(3, 12, 24), augmentation=CropAugmentation())
    view = view_of(moving, batch)
    assert (np.abs(view["image"] - batch["image"]).max((1, 2, 3, 4)) > 0.01).all()
    for name in ("target_pfirrmann", "target_narrowing"):
        np.testing.assert_array_equal(view[name], batch[name])
    # An example is the same whatever its neighbours are.
    other = {k: np.concatenate([v[:1], v[:1], v[2:]]) for k, v in batch.items()}
    np.testing.assert_allclose(view_of(moving, other)["image"][2], view["image"][2], atol=1e-6)


@pytest.mark.long
def test_it_learns_grades_from_crops_and_says_where_it_looked():
    # Twice as wide as the disc: normalisation takes away how bright a crop is as a whole.
    made = stage(extent=2.0, augmentation=CropAugmentation(), emd_weight=0.5)
    parts = [made.training_examples(study(name)) for name in "ab"]
    examples = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    program, variables, losses = fitted(made, examples)
    assert losses[-3:].mean() < 0.5 * losses[:3].mean()
    found = predict(program, variables, {"image": examples["image"]})
    assert found["pfirrmann"].shape == (6, 5)
    assert found["narrowing"].shape == (6, 4)
    assert found["pfirrmann"].argmax(1).tolist() == examples["target_pfirrmann"].tolist()
    # Of every slice; in plane the last map is coarse.
    assert found["attention"].shape == (6, 3, 1, 1)
    assert found["attention"].min() >= 0
