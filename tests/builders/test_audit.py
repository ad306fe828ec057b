"""The audit's numbers are those of the studies, and headers fill what the tables leave empty."""

import numpy as np
import pytest
from builders import mini_spine as mini
from imaging.dicom_writer import write_series

from mskjax.data.cohorts import cohort_names, prepare_cohort
from mskjax.prepare import audit_table

HEADER = {
    "PatientAge": "061Y",
    "PatientSex": "F",
    "Manufacturer": "Acme",
    "MagneticFieldStrength": "15000",  # gauss
}


def write_dicom(folder, data):
    """A series on the grid of the miniature spine, with a patient in its headers."""
    folder.mkdir(parents=True)
    count = len(data)
    header = {keyword: [text] * count for keyword, text in HEADER.items()}
    write_series(
        folder,
        range(count),
        Rows=[data.shape[1]] * count,
        Columns=[data.shape[2]] * count,
        ImagePositionPatient=[[-10 + 4 * k, -20, 30] for k in range(count)],
        ImageOrientationPatient=[[0, 1, 0, 0, 0, -1]] * count,
        PixelSpacing=[[2, 1.5]] * count,
        PixelData=[pixels.astype(np.uint16).tobytes() for pixels in data],
        **header,
    )


def label(value, rows=(23, 26)):
    mask = np.zeros(mini.SHAPE, np.uint8)
    mask[1, rows[0] : rows[1], 4:16] = value
    return mask


def disc_degeneration(raw):
    for name in "bcd":
        mini.write_nifti(raw / f"{name}_seg.nii.gz", mini.semantic())
    mini.write_nifti(raw / "a_seg.nii.gz", mini.instances())
    mini.write_csv(raw / "studies.csv", ["patient_id", "study_id", "image", "mask"], [
        ["p1", "a", "a", "a_seg.nii.gz"], ["p1", "b", "b.nii.gz", "b_seg.nii.gz"],
        ["p2", "c", "c.nii.gz", "c_seg.nii.gz"], ["p3", "d", "d.nii.gz", ""],
    ])  # fmt: skip
    mini.write_csv(raw / "discs.csv", ["study_id", "level", "pfirrmann", "modic"], [
        ["a", 1, 4, ""], ["a", 3, 2, 1], *[["b", k, "", 0] for k in (1, 2, 3, 4)],
    ])  # fmt: skip
    parts = {"image": (2, 3), "mask": (2, 3), "grade": (1, 1)}
    return parts, {"d"}, {"c"}, 6, {"pfirrmann": 2, "modic": 5}


def fatty_infiltration(raw):
    for name in "ac":
        mini.write_nifti(raw / f"{name}_seg.nii.gz", label(1))
    mini.write_csv(
        raw / "studies.csv", ["patient_id", "study_id", "image", "mask", "grade", "slice"], [
            ["p1", "a", "a", "a_seg.nii.gz", 3, 1], ["p1", "b", "b.nii.gz", "", 3, 0],
            ["p2", "c", "c.nii.gz", "c_seg.nii.gz", "", 1], ["p3", "d", "d.nii.gz", "", "", 1],
        ],
    )  # fmt: skip
    parts = {"image": (2, 3), "mask": (2, 2), "grade": (1, 2)}
    return parts, {"d"}, {"b", "c"}, 2, {"goutallier": 2}


def shoulder_bones(raw):
    mini.write_nifti(raw / "a_seg.nii.gz", label(1) + label(2, (30, 40)))
    mini.write_nifti(raw / "b_seg.nii.gz", label(1))
    mini.write_nifti(raw / "c_seg.nii.gz", label(1))
    mini.write_csv(raw / "studies.csv", ["patient_id", "study_id", "image", "mask", "humerus"], [
        ["p1", "a", "a", "a_seg.nii.gz", ""], ["p1", "b", "b.nii.gz", "b_seg.nii.gz", ""],
        ["p2", "c", "c.nii.gz", "", "c_seg.nii.gz"], ["p3", "d", "d.nii.gz", "", ""],
    ])  # fmt: skip
    parts = {"image": (2, 3), "mask": (2, 3)}
    return parts, {"d"}, {"b/scapula", "c/scapula"}, 4, {"structure": 4}


def modic_changes(raw):
    for seed, name in enumerate("abc", start=10):
        mini.write_nifti(raw / f"{name}_t1.nii.gz", mini.image(seed))
    mini.write_csv(raw / "studies.csv", ["patient_id", "study_id", "t1", "t2"], [
        ["p1", "a", "a_t1.nii.gz", "a"], ["p1", "b", "b_t1.nii.gz", "b.nii.gz"],
        ["p2", "c", "c_t1.nii.gz", "c.nii.gz"],
    ])  # fmt: skip
    box = [1, 43, 4, 46, 16]
    mini.write_csv(
        raw / "discs.csv",
        ["study_id", "level", "slice", "row0", "col0", "row1", "col1", "modic", "pfirrmann"],
        [["a", 1, *box, 2, 4], ["a", 2, *[""] * 5, "", 3], ["b", 1, *box, "", ""],
         ["c", 1, *[""] * 5, 0, ""]],
    )  # fmt: skip
    parts = {"image": (2, 3), "boxes": (1, 2), "grade": (2, 2)}
    return parts, set(), set(), 3, {"modic": 2, "pfirrmann": 2}


def vertebral_fracture(raw):
    for seed, name in enumerate("abc", start=10):
        mini.write_nifti(raw / f"{name}_t2.nii.gz", mini.image(seed))
    mini.write_nifti(raw / "box.nii.gz", label(1))
    mini.write_csv(
        raw / "studies.csv", ["patient_id", "study_id", "t1", "t2", "label", "box_mask"], [
            ["p1", "a", "a", "a_t2.nii.gz", "benign", "box.nii.gz"],
            ["p1", "b", "b.nii.gz", "b_t2.nii.gz", "", "box.nii.gz"],
            ["p2", "c", "c.nii.gz", "c_t2.nii.gz", "malignant", "box.nii.gz"],
        ],
    )  # fmt: skip
    parts = {"image": (2, 3), "segment": (2, 3), "grade": (2, 2)}
    return parts, set(), set(), 2, {"fracture": 2}


MAKERS = {
    make.__name__: make
    for make in (
        disc_degeneration,
        fatty_infiltration,
        shoulder_bones,
        modic_changes,
        vertebral_fracture,
    )
}


@pytest.fixture(scope="module", params=cohort_names())
def cohort(request, tmp_path_factory):
    """Studies a (a DICOM series), b, c and, where the layout can leave one out, d."""
    of = request.param
    if of not in MAKERS:
        pytest.fail(
            f"{of} has no raw files here: add a function of that name that writes those of"
            " studies a to d and returns what its audit must say, and list it in MAKERS"
        )
    folder = tmp_path_factory.mktemp(of)
    raw = folder / "raw"
    write_dicom(raw / "a", mini.image(1))
    for seed, name in enumerate("bcd", start=2):
        mini.write_nifti(raw / f"{name}.nii.gz", mini.image(seed))
    expected = MAKERS[of](raw)
    made = prepare_cohort(of, "cohort", folder / "data", raw)
    return made, *expected


def test_patients_and_studies_with_each_part(cohort):
    made, parts, excluded, restricted, cases, graded = cohort
    audit = made.audit
    assert {part: tuple(having.values()) for part, having in audit["parts"].items()} == parts
    assert parts["image"] == (audit["patients"], audit["studies"]) == (2, 3)
    assert {e["id"] for e in audit["excluded"]} == excluded
    assert {e["id"] for e in audit["restricted"]} == restricted
    assert audit["cases"] == cases
    assert {
        grade: sum(n for value, n in counts.items() if int(value) >= 0)
        for grade, counts in audit["counts"].items()
        if grade in graded
    } == graded
    assert audit["studies_without_pixel_size"] == 0
    assert all(study["pixel_size_known"] for study in made.studies)


def test_the_numbers_are_those_of_the_records(cohort):
    made, parts, *_ = cohort
    for part, flag in (("mask", "has_mask"), ("boxes", "has_boxes")):
        if part in parts:
            having = [s["patient_id"] for s in made.studies if s[flag]]
            assert parts[part] == (len(set(having)), len(having))
    table = audit_table(made.audit)
    for part, (patients, studies) in parts.items():
        assert f"{part} {patients} patients, {studies} studies" in " ".join(table.split()), table


def test_the_header_is_asked_where_the_table_is_empty(cohort):
    a, b, _ = cohort[0].studies
    assert (a["sex"], a["age"], a["manufacturer"]) == ("F", 61.0, "Acme")
    assert a["field_strength_t"] == 1.5
    assert (b["sex"], b["manufacturer"]) == ("", "")
    assert np.isnan([b["age"], b["field_strength_t"]]).all()
    notes = cohort[0].audit["file_notes"]
    (said,) = [what for what in notes if "gauss" in what]
    assert dict(notes[said]) == {"a": "15000"}
