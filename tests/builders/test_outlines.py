"""Outlines: every feature but the volumes, exactly; a volume that is asked for values fails."""

import math

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_builders import outlines
from tfds_builders.common import volume_feature
from tfds_builders.outlines import Outlines, Unread

FEATURES = tfds.features.FeaturesDict({
    "image": volume_feature(np.float32),
    "name": tfds.features.Text(),
    "share": tfds.features.Scalar(np.float64),  # stored in single precision
    "age": tfds.features.Scalar(np.float32),
    "found": tfds.features.Scalar(np.bool_),
    "kind": tfds.features.ClassLabel(names=["a", "b"]),
    "affine": tfds.features.Tensor(shape=(2, 2), dtype=np.float64, encoding="bytes"),
    "rows": tfds.features.Sequence({
        "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
        "word": tfds.features.Text(),
    }),
})  # fmt: skip
EXAMPLE = {
    "image": np.zeros((2, 3, 4), np.float32),
    "name": "ü\n2",
    "share": 0.1,
    "age": math.nan,
    "found": np.True_,
    "kind": "b",
    "affine": np.array([[np.pi, np.inf], [5e-324, -0.0]]),
    "rows": [{"box": np.float32([0.1, 1, 2, 3]), "word": "x"}],
}


def back(tmp_path, *examples):
    path = tmp_path / "outlines.jsonl"
    path.write_text("".join(f"{outlines.line(FEATURES, e)}\n" for e in examples))
    return Outlines(path, FEATURES)


def test_values_are_those_of_the_decoded_study(tmp_path):
    (outline,) = back(tmp_path, EXAMPLE)
    assert outline["name"] == "ü\n2"
    assert outline["share"] == float(np.float32(0.1)) != 0.1
    assert math.isnan(outline["age"])
    assert outline["found"] is True
    assert outline["kind"] == 1
    assert outline["affine"].dtype == np.float64
    assert outline["affine"].tobytes() == EXAMPLE["affine"].tobytes()
    assert outline["rows"]["word"] == ["x"]
    assert outline["rows"]["box"].dtype == np.float32
    np.testing.assert_array_equal(outline["rows"]["box"], [EXAMPLE["rows"][0]["box"]])


def test_no_record_keeps_the_shape_of_its_columns(tmp_path):
    outline = back(tmp_path, EXAMPLE, {**EXAMPLE, "rows": []})[1]
    assert outline["rows"]["box"].shape == (0, 4)
    assert outline["rows"]["word"] == []


def test_outlines_are_a_sequence(tmp_path):
    both = back(tmp_path, EXAMPLE, {**EXAMPLE, "name": "b"})
    assert len(both) == 2
    assert [o["name"] for o in both] == ["ü\n2", "b"]
    assert both[-1]["name"] == "b"
    for outside in (2, -3):
        with pytest.raises(IndexError, match=f"outline {outside} of 2"):
            both[outside]


@pytest.mark.parametrize("ask", [
    np.asarray, bool, list, np.sum, np.isfinite, np.max, lambda v: v[0], lambda v: v + 1,
    lambda v: v == 1, lambda v: v != 1, lambda v: v > 0, lambda v: np.float32(1) * v,
    lambda v: np.zeros((2, 3, 4)) + v, lambda v: np.stack([v]),
])  # fmt: skip
def test_a_volume_that_is_asked_for_values_fails(ask):
    volume = Unread((2, 3, 4), np.float32)
    assert (volume.shape, volume.ndim, len(volume), volume.size) == ((2, 3, 4), 3, 2, 24)
    with pytest.raises(TypeError):
        ask(volume)
