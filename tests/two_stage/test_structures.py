import math

import numpy as np
import pytest

from mskjax.imaging import geometry
from mskjax.imaging.volume import Volume
from mskjax.two_stage.structures import dice_ceilings, structure_rows

NATIVE = (None, None, None)


def study(**more):
    mask = np.zeros((2, 6, 6), np.uint8)
    mask[:, 1:3, 1:5] = 1
    return {"mask": mask, "affine": np.diag([4.0, 3.0, 0.5, 1.0]), **more}


def test_a_row_for_each_structure_with_lengths_of_the_affine():
    found = np.roll(study()["mask"], 1, axis=1)  # one row, 3 mm
    bone, muscle = structure_rows(study(), found, ("bone", "muscle"), NATIVE)
    assert (bone["kind"], bone["name"]) == ("structure", "bone")
    assert bone["dice"] == 0.5
    assert bone["hd95"] == pytest.approx(3.0)
    assert muscle["name"] == "muscle"
    assert math.isnan(muscle["dice"])


def test_lengths_are_unknown_where_the_file_did_not_say_its_pixel_size():
    (bone,) = structure_rows(study(pixel_size_known=False), study()["mask"], ("bone",), NATIVE)
    assert bone["dice"] == 1
    assert math.isnan(bone["hd95"])


def discs(thick):
    """Two boxes, (2, 96, 96) voxels of .5 mm: a thick one with label 1, a thin one with label 2."""
    mask = np.zeros((2, 96, 96), np.uint8)
    mask[:, 10:50, 20:70] = 1
    mask[:, 61 : 61 + thick, 21:69] = 2
    return mask, np.diag([4.0, 0.5, 0.5, 1.0])


def test_the_grid_costs_nothing_where_it_is_the_native_one_and_more_the_coarser_it_is():
    mask, affine = discs(7)
    by_step = [dice_ceilings(mask, affine, ("thick", "thin"), (None, s, s)) for s in (0.5, 1, 2)]
    assert by_step[0] == {"thick": 1.0, "thin": 1.0}
    for coarser, finer in zip(by_step[1:], by_step, strict=False):
        assert all(coarser[name] < finer[name] for name in finer)
    assert by_step[2]["thick"] > 0.98 > by_step[2]["thin"] > 0.8


def test_the_ceiling_is_dice_of_a_network_that_says_the_share_of_each_voxel():
    """Against a network that is there: decoded by the same function that decodes any other."""
    mask, affine = discs(7)
    shares = [
        geometry.resample(Volume((mask == k).astype(np.float32), affine), (None, 1.0, 1.0))
        for k in range(3)
    ]
    found = geometry.labels_to_native(
        np.stack([v.data for v in shares]), shares[0].affine, mask.shape, affine
    )
    study = {"mask": mask, "affine": affine}
    for row in structure_rows(study, found, ("thick", "thin"), (None, 1.0, 1.0)):
        assert row["dice"] == row["dice_ceiling"] < 1


def test_a_structure_thinner_than_a_voxel_of_the_network_may_have_no_dice_at_all():
    mask, affine = discs(1)
    found = dice_ceilings(mask, affine, ("thick", "thin", "absent"), (None, 3.0, 3.0))
    assert found["thin"] == 0
    assert math.isnan(found["absent"])
