import numpy as np
import pytest

from mskjax.metrics.structures import score_structures
from mskjax.metrics.surfaces import surface_metrics

NAMES = ("vertebra", "disc", "canal")


@pytest.fixture
def masks():
    """Vertebra moved by one voxel of two, disc as it is, canal invented."""
    reference = np.zeros((3, 8, 8), np.uint8)
    reference[1, 2:4, 2:6] = 1
    reference[1, 5:7, 2:6] = 2
    predicted = np.where(reference == 1, 0, reference)
    predicted[1, 3:5, 2:6] = 1
    predicted[0, 0, 0] = 3
    return reference, predicted


def test_every_structure_has_its_overlap_and_its_surfaces(masks):
    reference, predicted = masks
    scores = score_structures(reference, predicted, NAMES, (4.0, 1.0, 2.0), 1.0)
    assert list(scores) == list(NAMES)
    moved = {k: scores["vertebra"][k] for k in ("dice", "iou", "ppv", "sensitivity")}
    assert moved == pytest.approx({"dice": 0.5, "iou": 1 / 3, "ppv": 0.5, "sensitivity": 0.5})
    assert scores["vertebra"]["pixel_accuracy"] == 1 - 8 / reference.size
    assert scores["disc"]["dice"] == scores["disc"]["nsd"] == 1
    assert scores["disc"]["hd95"] == scores["disc"]["assd"] == 0
    for label, name in enumerate(NAMES, 1):
        surfaces = surface_metrics(reference == label, predicted == label, (4.0, 1.0, 2.0), 1.0)
        for key, value in surfaces.items():
            np.testing.assert_equal(scores[name][key], value)


def test_an_invented_structure_costs_its_dice(masks):
    canal = score_structures(*masks, NAMES, (1.0, 1.0, 1.0), 1.0)["canal"]
    assert canal["dice"] == 0
    assert np.isnan(canal["sensitivity"])


def test_without_a_spacing_lengths_are_unknown_and_overlap_is_not(masks):
    vertebra = score_structures(*masks, NAMES, None, 1.0)["vertebra"]
    assert vertebra["dice"] == 0.5
    assert all(np.isnan(vertebra[k]) for k in ("nsd", "hd95", "assd"))
