"""Damaged headers: studies are found or refused with a sentence, quickly, and nothing is named."""

import time
import warnings

import numpy as np
import pytest
from imaging.mutations import damaged
from inputs.dicom_tree import T1, T2, write_enhanced, write_images

from mskjax.data.cohorts import builder_class
from mskjax.errors import UserError
from mskjax.inputs.pseudonyms import Pseudonyms
from mskjax.inputs.studies import find_studies
from mskjax.inputs.study import scrub

FRACTURE = builder_class("vertebral_fracture")
NAMES = Pseudonyms(b"k" * 32)
MOST_SECONDS = 5.0


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree") / "MUELLER_HANS"
    files = [
        *write_images(folder, "t1", slices=3, **T1),
        *write_images(folder, "t2", slices=3, **T2),
    ]
    write_enhanced(folder / "enhanced", "e", [("sagittal", 2, {}), ("axial", 2, {})])
    return folder, [*files, folder / "enhanced"]


@pytest.mark.parametrize("part", range(4))
def test_damage_ends_in_a_sentence(tree, part):
    folder, files = tree
    for seed in range(part * 30, part * 30 + 30):
        rng = np.random.default_rng((11, seed))
        file = files[seed % len(files)]
        whole = file.read_bytes()
        started = time.process_time()
        try:
            file.write_bytes(damaged(whole, "x.dcm", rng))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                said = outcome(folder)
        finally:
            file.write_bytes(whole)
        assert "MUELLER" not in said
        assert file.name not in said
        assert time.process_time() - started < MOST_SECONDS, seed


def outcome(folder):
    """All that is said."""
    result = find_studies([folder], FRACTURE.wanted, names=NAMES)
    said = [*result.notes, *(refused.why for refused in result.refused)]
    for study in result.studies:
        said += [*study.remarks, *study.chosen.values()]
        try:
            study.read(FRACTURE.read_images)
        except UserError as error:
            said.append(scrub(str(error), study))
    assert result.studies or result.refused
    return "\n".join(said)
