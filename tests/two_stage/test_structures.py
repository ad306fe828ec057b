import math

import numpy as np
import pytest

from mskjax.two_stage.structures import structure_rows


def study(**more):
    mask = np.zeros((2, 6, 6), np.uint8)
    mask[:, 1:3, 1:5] = 1
    return {"mask": mask, "affine": np.diag([4.0, 3.0, 0.5, 1.0]), **more}


def test_a_row_for_each_structure_with_lengths_of_the_affine():
    found = np.roll(study()["mask"], 1, axis=1)  # one row, 3 mm
    bone, muscle = structure_rows(study(), found, ("bone", "muscle"))
    assert (bone["kind"], bone["name"]) == ("structure", "bone")
    assert bone["dice"] == 0.5
    assert bone["hd95"] == pytest.approx(3.0)
    assert muscle["name"] == "muscle"
    assert math.isnan(muscle["dice"])


def test_lengths_are_unknown_where_the_file_did_not_say_its_pixel_size():
    (bone,) = structure_rows(study(pixel_size_known=False), study()["mask"], ("bone",))
    assert bone["dice"] == 1
    assert math.isnan(bone["hd95"])
