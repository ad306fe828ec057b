"""The T2-SPACE sample of SPIDER: its rules on small files, and three real patients where present.

The real images are van der Graaf et al., Sci Data 11:264 (2024), CC BY 4.0.
"""

import csv
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from builders import mini_spine as mini

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("MSKJAX_SHARED", ROOT / "../shared")) / "data" / "spider_t2space"
OVERVIEW = ["new_file_name", "sex", "birth_date", "subset", "Manufacturer", "MagneticFieldStrength"]
PATIENTS = ("110", "18", "5")  # 18 shows 7 discs, of which 8 were graded


def package(raw, tmp_path):
    return prepare_cohort("disc_degeneration", "spider_t2space", tmp_path / "data", raw)


@pytest.fixture
def small(tmp_path):
    root = tmp_path / "raw"
    for seed, patient in enumerate(("7", "8")):
        axes = {"order": (0, 2, 1), "flips": (True, False, True)}
        mini.write_nifti(root / f"{patient}_T2w.nii.gz", *mini.stored(mini.image(seed), **axes))
        mini.write_nifti(root / f"{patient}_seg.nii.gz", *mini.stored(mini.semantic(), **axes))
    mini.write_csv(root / "overview.csv", OVERVIEW, [
        [f"{p}_t2_SPACE", "M ", "49.0", "training", "SIEMENS", "1.5"] for p in "78"
    ])  # fmt: skip
    rows = [*mini.pfirrmann_rows(7, [5, 3, 2, 1]), *mini.pfirrmann_rows(8, [1, 1, 1])]
    mini.write_csv(root / "radiological_gradings.csv", mini.GRADINGS_HEADER, rows)
    return root


def test_levels_are_counted_from_the_lowest_disc(small, tmp_path):
    cohort = package(small, tmp_path)
    seven, eight = cohort.studies
    expected = np.where(mini.instances() > 200, mini.instances() - 200, 0)
    np.testing.assert_array_equal(seven["disc_levels"], expected)
    assert seven["levels"]["pfirrmann"].tolist() == [5, 3, 2, 1]
    assert (seven["sex"], seven["age"], seven["sequence"]) == ("M", 49.0, "t2_SPACE")
    assert not eight["disc_levels"].any()
    (restricted,) = cohort.audit["restricted"]
    assert restricted["id"] == "8_t2_SPACE"
    assert "shows 4 discs, but 3 were graded" in restricted["why"]
    assert cohort.audit["cases"] == 4


def test_a_fragment_is_not_counted_as_a_disc(small, tmp_path):
    mask = mini.semantic()
    mask[1, 1, 1] = 2
    mini.write_nifti(small / "7_seg.nii.gz", *mini.stored(mask))
    seven = package(small, tmp_path).studies[0]
    assert set(np.unique(seven["disc_levels"])) == {0, 1, 2, 3, 4}
    assert seven["mask"][1, 1, 1] == 2
    assert seven["disc_levels"][1, 1, 1] == 0


def test_half_a_pair_and_unknown_label(small, tmp_path):
    (small / "7_T2w.nii.gz").rename(small / "9_T2w.nii.gz")
    labels = mini.semantic()
    labels[0, 0, 0] = 4
    mini.write_nifti(small / "8_seg.nii.gz", labels)
    with pytest.raises(BadCases) as caught:
        package(small, tmp_path)
    why = dict(caught.value.cases)
    assert set(why) == {"7", "9", "8_t2_SPACE"}
    assert "7_T2w.nii.gz is missing" in why["7"]
    assert "9_seg.nii.gz is missing" in why["9"]
    assert "unknown label 4" in why["8_t2_SPACE"]


@pytest.mark.skipif(not REAL.is_dir(), reason="spider_t2space is not in the shared data folder")
def test_three_real_patients(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    names = [f"{p}_{kind}.nii.gz" for p in PATIENTS for kind in ("T2w", "seg")]
    for name in (*names, "overview.csv", "radiological_gradings.csv"):
        (raw / name).symlink_to((REAL / name).resolve())
    cohort = package(raw, tmp_path)
    assert cohort.patients == ("110", "18", "5")
    assert [row["id"] for row in cohort.audit["restricted"]] == ["18_t2_SPACE"]
    assert "shows 7 discs, but 8 were graded" in cohort.audit["restricted"][0]["why"]
    assert "27 graded patients have no series" in " ".join(cohort.audit["notes"])
    with (REAL / "radiological_gradings.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["Patient"] == "110"]
    study = cohort.studies[0]
    grades = [int(r["Pfirrman grade"]) for r in sorted(rows, key=lambda r: int(r["IVD label"]))]
    assert study["levels"]["pfirrmann"].tolist() == grades
    # Every voxel where nibabel, asked on its own, puts it.
    image = nib.load(REAL / "110_T2w.nii.gz")
    turned = nib.as_closest_canonical(image)  # R, A, S
    np.testing.assert_array_equal(
        study["image"], np.asarray(turned.dataobj)[::-1, ::-1, ::-1].transpose(0, 2, 1)
    )
    assert "".join(nib.aff2axcodes(study["affine"])) == "LIP"
    assert (study["sex"], study["age"], study["field_strength_t"]) == ("M", 49.0, 1.5)
