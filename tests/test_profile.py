"""What a fold was trained on: measured as it is read, whatever the scale of its intensities."""

import shutil

import numpy as np
import pytest

from mskjax import profile

AFFINE = np.array([[-4.0, 0, 0, 0], [0, 0, 0.5, 0], [0, -0.7, 0, 0], [0, 0, 0, 1.0]])  # sagittal


def study(name="s1", image=None, **changes):
    """Six sagittal slices of 40 x 30: dark air, grey tissue, bright fat."""
    if image is None:
        image = np.full((6, 40, 30), 5.0, np.float32)
        image[:, 10:30, 5:25] = 60.0
        image[:, 12:15, 5:25] = 200.0
        image += np.random.default_rng(0).uniform(0, 1, image.shape).astype(np.float32)
    found = {"patient_id": f"p{name[1:]}", "study_id": name, "affine": AFFINE, "sex": "F"}
    found |= {"age": 50.25, "manufacturer": "Siemens ", "field_strength_t": float("nan")}
    found |= {"image": image, "mask": np.zeros(image.shape, np.uint8), "pixel_size_known": True}
    return found | changes


def test_a_row_says_who_how_large_and_how_bright():
    row = profile.measure(study())
    assert (row["patient"], row["study"], row["sex"]) == ("p1", "s1", "F")
    assert (row["age"], row["manufacturer"], row["field_strength_t"]) == (50.25, "Siemens", "")
    assert [row[k] for k in profile.COUNTS] == [6, 40, 30]
    assert [row[k] for k in profile.LENGTHS] == pytest.approx([4.0, 0.7, 0.5, 28.0, 15.0])
    values = study()["image"]
    assert row["image_p50"] == pytest.approx(np.median(values), rel=1e-5)
    p1, p99 = np.percentile(values, [1, 99])
    assert row["image_median"] == pytest.approx((np.median(values) - p1) / (p99 - p1), rel=1e-3)
    assert "mask_p50" not in row
    assert "affine_p50" not in row


def test_gain_and_offset_change_no_shape_and_inversion_does():
    image = study()["image"]
    plain, other, inverted = (
        profile.measure(study(image=v)) for v in (image, 37 * image + 1000, 300 - image)
    )
    for name in profile.SHAPE:
        assert other[f"image_{name}"] == pytest.approx(plain[f"image_{name}"], abs=1e-3)
    assert inverted["image_median"] > plain["image_median"] + 0.5
    assert other["image_p50"] > plain["image_p50"]


def test_labels_are_not_looked_at():
    bare = {k: v for k, v in study().items() if k not in ("mask", "sex", "age")}
    assert profile.measure(bare) | {"sex": "F", "age": 50.25} == profile.measure(study())


def test_what_is_not_known_is_empty():
    row = profile.measure(study(pixel_size_known=False, image=np.ones((2, 8, 8), np.float32)))
    assert [row[k] for k in profile.LENGTHS] == [""] * 5
    assert [row[f"image_{k}"] for k in profile.SHAPE] == [""] * 3


def test_a_large_volume_is_sampled_evenly():
    rng = np.random.default_rng(1)
    image = rng.gamma(2, 50, (20, 256, 250)).astype(np.float32)
    image[:, ::2] += 200  # a pattern that steps of an even number would see half of
    row = profile.measure(study(image=image))
    for name, q in (("p1", 1), ("p50", 50), ("p99", 99)):
        assert row[f"image_{name}"] == pytest.approx(np.percentile(image, q), rel=0.01)


def test_studies_are_measured_as_somebody_else_reads_them(tmp_path):
    rows, opened = [], []

    def read():
        for number in range(4):
            opened.append(number)
            yield study(f"s{number}")

    watched = profile.watched(read(), rows)
    assert [next(watched)["study_id"] for _ in range(2)] == ["s0", "s1"]
    profile.write(tmp_path, rows, watched)  # who read two only leaves two
    assert opened == [0, 1, 2, 3]
    assert [r["study"] for r in rows] == ["s0", "s1", "s2", "s3"]


@pytest.fixture
def run(tmp_path):
    for fold, names in enumerate((("s1", "s2", "s3"), ("s2", "s3", "s4"))):
        rows = []
        images = (study(n, affine=AFFINE * (1 + 0.1 * int(n[1]))) for n in names)
        profile.write(tmp_path / f"fold_{fold}", rows, profile.watched(images, rows))
    return tmp_path


def test_a_run_has_the_training_studies_of_its_folds_once(run):
    assert [r["study"] for r in profile.read(run)] == ["s1", "s2", "s3", "s4"]
    assert [r["study"] for r in profile.read(run, [1])] == ["s2", "s3", "s4"]
    found = profile.ranges(profile.read(run))
    spacing = found["spacing_row_mm"]
    assert (spacing.low, spacing.high, spacing.n) == pytest.approx((0.77, 0.98, 4))
    assert spacing.low < spacing.usual[0] < spacing.usual[1] < spacing.high
    assert profile.images_of(found) == ["image"]
    measured = [profile.measure(study(f"s{n}")) for n in range(3)]
    assert profile.ranges(measured)["slices"] == (6, 6, (6, 6), 3)


def test_seeds_have_the_same_studies(run, tmp_path):
    whole = tmp_path / "whole"
    for seed in (0, 1):
        for fold in (0, 1):
            shutil.copytree(run / f"fold_{fold}", whole / f"seed_{seed}" / f"fold_{fold}")
    assert profile.read(whole) == profile.read(run)


def test_a_run_of_before_says_nothing(tmp_path):
    (tmp_path / "fold_0").mkdir()
    assert profile.read(tmp_path) == []
    assert profile.ranges([]) == {}
