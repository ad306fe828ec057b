import numpy as np
import pytest

from mskjax.two_stage.system import Published, pixel_of, predict_parts, sized, spacing_of


def test_spacing_is_the_length_of_the_affines_columns_however_the_slices_lie():
    turn = np.array([[0.0, 0.6, -0.8], [0.0, 0.8, 0.6], [1.0, 0.0, 0.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [4.0, 0.7, 0.5]
    assert spacing_of({"affine": affine}) == pytest.approx([4.0, 0.7, 0.5])
    assert pixel_of({"affine": affine}) == pytest.approx((0.7, 0.5))


def test_a_study_is_sized_unless_its_file_did_not_say():
    assert sized({})
    assert not sized({"pixel_size_known": False})


def test_parts_are_predicted_together_and_divided_again():
    calls = []

    def predict(stage, examples):
        calls.append((stage, len(examples["image"])))
        return {"twice": examples["image"] * 2}

    parts = [{"image": np.arange(n, dtype=np.float32)} for n in (2, 0, 3)]
    outputs = predict_parts(predict, "grades", parts)
    assert calls == [("grades", 5)]
    assert [list(o["twice"]) for o in outputs] == [[0, 2], [], [0, 2, 4]]


def test_nothing_is_predicted_where_no_study_has_an_example():
    def predict(stage, examples):
        raise AssertionError("there is nothing to predict")

    empty = {"image": np.zeros((0, 4), np.float32)}
    assert predict_parts(predict, "grades", [empty, empty]) == [{}, {}]
    assert predict_parts(predict, "grades", []) == []


def test_a_published_figure_is_never_comparable():
    row = Published("dice_bone", 0.9, 20, "patients", "A. Author 2020", "another cohort").as_json()
    assert row["comparable"] is False
    assert (row["metric"], row["value"], row["ci"]) == ("dice_bone", 0.9, None)
