"""SPIDER's mid-sagittal slices: the rules on small files, and real patients where present.

The real images are van der Graaf et al., Sci Data 11:264 (2024), CC BY 4.0.
"""

import csv
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from builders import mini_spine as mini
from PIL import Image
from scipy import ndimage

from mskjax.data.cohorts import builder_class, prepare_cohort
from mskjax.errors import BadCases

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("MSKJAX_SHARED", ROOT / "../shared")) / "data" / "spider_midsagittal"
needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason="spider_midsagittal is not in the shared data folder"
)
OVERVIEW = ["new_file_name", "sex", "birth_date", "subset", "Manufacturer", "MagneticFieldStrength"]
BOXES = ["patient", "series", "img_w", "img_h", "ivd_label_from_bottom", "x0", "y0", "x1", "y1",
         "count_matches_gradings"]  # fmt: skip
# Unequal sizes, upside down, apart, boxed, boxed with another count, T2 alone, STIR, T1 alone.
PATIENTS = (
    "9", "10", "33", "163", "237", "250", "52", "55", "57", "28", "95", "226", "6", "116", "132",
)  # fmt: skip


def picture(seed, height, width):
    return np.random.default_rng(seed).integers(0, 255, (height, width)).astype(np.uint8)


def smooth(height, width):
    """One scene on any matrix: rows and columns as shares of the field."""
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    return np.rint(40 + 120 * y[:, None] + 80 * x).astype(np.uint8)


def box_rows(patient, series, size, rows, match=1):
    return [
        [patient, series, *size, k, 5, row, 20, row + 4, match]
        for k, row in enumerate(rows, start=1)
    ]


@pytest.fixture
def small(tmp_path):
    """Patients 7 (boxed; T1 of another matrix), 8 (not boxed), 9 (three boxes, two graded), 52 (a
    T1 on its head), 57 (both on their head, apart), 60 (T2 alone), 61 (T1 alone).
    """
    root = tmp_path / "raw"
    (root / "images").mkdir(parents=True)
    pictures = {
        "7_t1": smooth(30, 20), "7_t2": smooth(48, 28),
        "8_t1": picture(1, 40, 30), "8_t2": picture(2, 40, 30),
        "9_t1": picture(3, 40, 30), "9_t2": picture(4, 40, 30),
        "52_t1": smooth(30, 20)[::-1], "52_t2": smooth(60, 40),
        "57_t1": picture(5, 40, 30), "57_t2": picture(6, 40, 30),
        "60_t2": picture(7, 40, 30), "61_t1": picture(8, 40, 30),
    }  # fmt: skip
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(root / f"images/{name}.png")
    mini.write_csv(root / "overview.csv", OVERVIEW, [
        [name, "M ", "49.0", "training", "SIEMENS", "1.5"] for name in pictures
    ])  # fmt: skip
    mini.write_csv(root / "radiological_gradings.csv", mini.GRADINGS_HEADER, [
        [patient, k, m, 0, 0, 0, 0, 0, 0, g]
        for patient in (7, 8, 9, 52, 57, 60, 61)
        for k, (m, g) in enumerate([(2, 5), (0, 3)], start=1)
    ])  # fmt: skip
    mini.write_csv(root / "disc_boxes.csv", BOXES, [
        *box_rows(7, "t2", (28, 48), [40, 30]), *box_rows(7, "t1", (20, 30), [25, 19]),
        *box_rows(9, "t2", (30, 40), [34, 24, 14], match=0),
        *box_rows(57, "t2", (30, 40), [34, 24]), *box_rows(99, "t2_SPACE", (9, 9), [1]),
    ])  # fmt: skip
    return root


def package(raw, tmp_path):
    return prepare_cohort("modic_changes", "spider_midsagittal", tmp_path / "data", raw)


def faults(raw, tmp_path):
    with pytest.raises(BadCases) as caught:
        package(raw, tmp_path)
    assert not (tmp_path / "data").exists()
    return dict(caught.value.cases)


def by_patient(cohort):
    return {study["patient_id"]: study for study in cohort.studies}


def test_t1_is_laid_over_t2_edge_to_edge(small, tmp_path):
    studies = by_patient(package(small, tmp_path))
    assert sorted(studies, key=int) == ["7", "8", "9", "52", "57", "60"]
    for patient, shape in (("7", (1, 48, 28)), ("52", (1, 60, 40))):
        study = studies[patient]
        assert study["t1"].shape == study["t2"].shape == shape
        # One scene: they agree to a grey level, save where T1's outermost pixels end.
        np.testing.assert_allclose(study["t1"][:, 2:-2, 2:-2], study["t2"][:, 2:-2, 2:-2], atol=1.5)
    np.testing.assert_array_equal(studies["8"]["t1"][0], picture(1, 40, 30))
    assert studies["8"]["has_t1"]
    extent = np.abs(studies["7"]["affine"][:3, :3].sum(axis=0)) * (1, 48, 28)
    np.testing.assert_allclose(extent, (4, 300, 260))


def test_images_that_are_upside_down_are_turned_and_t1_that_lies_apart_is_left_out(small, tmp_path):
    cohort = package(small, tmp_path)
    study = by_patient(cohort)["57"]
    np.testing.assert_array_equal(study["t2"][0], picture(6, 40, 30)[::-1])
    assert study["boxes"]["box"][:, 0].tolist() == [34, 24]  # those of the upright image
    assert not study["has_t1"]
    assert not study["t1"].any()
    audit = cohort.audit
    why = {row["id"]: row["why"] for row in (*audit["excluded"], *audit["restricted"])}
    assert why["57_t1"] == "kept with T2 alone: T1 shows another part of the spine"
    assert why["60_t1"] == "kept with T2 alone: it has no T1"
    assert why["61"] == "it has no T2, only t1"


def test_boxes_are_joined_where_their_number_is_that_of_the_graded_discs(small, tmp_path):
    cohort = package(small, tmp_path)
    studies = by_patient(cohort)
    seven, eight, nine = (studies[p]["boxes"] for p in "789")
    assert seven["level"].tolist() == [1, 2]
    assert seven["boxed"].tolist() == [1, 1]
    np.testing.assert_array_equal(seven["box"], [(40, 5, 44, 20), (30, 5, 34, 20)])
    assert seven["modic"].tolist() == [2, 0]
    assert eight["boxed"].tolist() == [0, 0]
    assert not eight["box"].any()
    assert eight["pfirrmann"].tolist() == [5, 3]
    assert not studies["8"]["has_boxes"]
    assert studies["9"]["has_boxes"]
    assert nine["level"].tolist() == [0, 0, 0, 1, 2]
    assert nine["boxed"].tolist() == [1, 1, 1, 0, 0]
    assert nine["modic"].tolist() == [-1, -1, -1, 2, 0]
    assert nine["box"][:, 0].tolist() == [34, 24, 14, 0, 0]
    why = {row["id"]: row["why"] for row in cohort.audit["restricted"]}
    assert "3 discs are boxed, but 2 were graded" in why["9_t1t2"]
    assert cohort.audit["cases"] == 6 * 2
    notes = " ".join(cohort.audit["notes"])
    assert "2 boxes of t1 are not used" in notes
    assert "1 boxes of t2_SPACE are not used" in notes
    assert "taken to show 300 x 260 mm" in notes


def test_all_faults_are_listed_together(small, tmp_path):
    (small / "images/8_t1.png").write_bytes(b"not an image")
    (small / "images/notes.txt").write_text("x")
    mini.write_csv(small / "disc_boxes.csv", BOXES, [
        [7, "t2", 28, 49, 1, 5, 40, 20, 44, 1],
        [9, "t2", 30, 40, 1, 5, 30, 5, 34, 1], [9, "t2", 30, 40, 2, 5, 20, 20, 24, 1],
        [52, "t2", 40, 60, 1, 5, 50, 41, 54, 1], [52, "t2", 40, 60, 2, 5, 40, 20, 44, 1],
        [60, "t2", 30, 40, 1, 5, 20, 20, 24, 1], [60, "t2", 30, 40, 2, 5, 30, 20, 34, 1],
        [57, "t2", 30, 40, 1, 5, 20, 20, 24, 1], [57, "t2", 30, 40, 1, 5, 20, 20, 24, 1],
        [57, "t2", 30, 40, "L5", 5, 20, 20, 24, 1],
    ])  # fmt: skip
    found = faults(small, tmp_path)
    assert set(found) == {
        "8_t1t2", "notes.txt", "7_t1t2", "9_t1t2", "52_t1t2", "60_t1t2",
        "disc_boxes.csv, line 10", "disc_boxes.csv, line 11",
    }  # fmt: skip
    assert "8_t1.png" in found["8_t1t2"]
    assert "is not named <patient>_<t1|t2|t2_SPACE>.png" in found["notes.txt"]
    assert "an image of 28 x 49 pixels, but" in found["7_t1t2"]
    assert "the box is empty: rows 30 to 34, columns 5 to 5" in found["9_t1t2"]
    assert "leaves the T2 slice of 60 rows and 40 columns" in found["52_t1t2"]
    assert "level 2 (row 32) does not lie above level 1 (row 22)" in found["60_t1t2"]
    assert "patient 57, level 1 is boxed twice" in found["disc_boxes.csv, line 10"]
    assert "ivd_label_from_bottom is 'L5'" in found["disc_boxes.csv, line 11"]


def test_boxes_of_a_patient_who_is_written_in_another_way_are_not_dropped(small, tmp_path):
    text = (small / "disc_boxes.csv").read_text()
    (small / "disc_boxes.csv").write_text(text.replace("\n7,", "\n7.0,"))
    why = faults(small, tmp_path)["disc_boxes.csv"]
    assert "patient '7.0' is not among the files; '7' is" in why


def test_a_patient_without_a_disc(small, tmp_path):
    Image.fromarray(picture(9, 40, 30)).save(small / "images/62_t2.png")
    assert "no disc is boxed or graded" in faults(small, tmp_path)["62_t1t2"]


@pytest.mark.parametrize("table", ["overview.csv", "radiological_gradings.csv", "disc_boxes.csv"])
def test_missing_table(small, tmp_path, table):
    (small / table).unlink()
    assert "is missing; it needs the columns" in faults(small, tmp_path)[table]


@needs_real
def test_tables_and_files_of_all_real_patients(tmp_path):
    cls = builder_class("modic_changes")
    source = cls(config="spider_midsagittal", data_dir=str(tmp_path), manual_dir=REAL).source()
    studies = source.studies()
    assert not source.ledger.bad
    assert len(studies) == 171  # of 179: 2 have no image, 5 no T2, and one T2 is STIR
    assert len(source.spider.gradings) == 179
    gradings = [g for graded in source.spider.gradings.values() for g in graded]
    assert len(gradings) == 1240
    assert Counter(g["modic"] for g in gradings) == {0: 854, 1: 4, 2: 376, 3: 6}
    assert sum(len(s.files) == 2 for s in studies) == 151
    # The folder holds SPIDER's 179 training patients; the 39 of its validation are not in it.
    subsets = {name.split("_")[0]: row["subset"] for name, row in source.spider.overview.items()}
    assert Counter(subsets.values()) == {"training": 179}
    assert "patients by the archive's own subset: 171 training" in source.ledger.notes
    with (REAL / "disc_boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 951
    notes = source.ledger.notes
    unused = sum(int(n.split()[0]) for n in notes if "boxes of" in n and "not used" in n)
    assert unused + sum(map(len, source._boxes.values())) == 951
    # Our rule for joining boxes with grades is the table's own.
    flags = {r["patient"]: r["count_matches_gradings"] for r in rows if r["series"] == "t2"}
    for patient, boxes in source._boxes.items():
        levels = sorted(g["level"] for g in source.spider.gradings[patient])
        assert (levels == sorted(boxes)) == (flags[patient] == "1"), patient


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    raw = root / "raw"
    (raw / "images").mkdir(parents=True)
    for name in ("overview.csv", "radiological_gradings.csv", "disc_boxes.csv"):
        (raw / name).symlink_to((REAL / name).resolve())
    for patient in PATIENTS:
        for path in (REAL / "images").glob(f"{patient}_t[12].png"):
            (raw / "images" / path.name).symlink_to(path.resolve())
    return package(raw, root)


def edges(image):
    small = ndimage.zoom(image, [120 / image.shape[0], 104 / image.shape[1]], order=1)
    found = ndimage.gaussian_gradient_magnitude(
        np.sqrt(np.maximum(small, 0.0, dtype=np.float32)), 1.0
    )
    return found - found.mean()


def offset(t1, t2):
    """Rows and columns, of 120 and 104, by which T1's edges must move to lie on T2's."""
    a, b = np.fft.rfft2(edges(t1), (240, 208)), np.fft.rfft2(edges(t2), (240, 208))
    peak = np.unravel_index(np.fft.irfft2(b * a.conj(), (240, 208)).argmax(), (240, 208))
    return [(p + n // 2) % n - n // 2 for p, n in zip(peak, (240, 208), strict=True)]


@needs_real
def test_real_t1_lies_on_t2(real):
    paired = [study for study in real.studies if study["has_t1"]]
    assert len(paired) == 11
    for study in paired:
        moved = offset(study["t1"][0], study["t2"][0])
        assert max(map(abs, moved)) <= 1, (study["patient_id"], moved)
    # The check sees what is wrong in the files: a T1 on its head, and one that lies elsewhere.
    for patient, at_least in (("52", 20), ("57", 7)):
        t1, t2 = (np.array(Image.open(REAL / f"images/{patient}_{s}.png")) for s in ("t1", "t2"))
        assert max(map(abs, offset(t1, t2))) > at_least, patient


@needs_real
@pytest.mark.parametrize("patient", ["52", "55"])
def test_real_t1_that_was_on_its_head_is_upright(real, patient):
    study = by_patient(real)[patient]
    fixed = edges(study["t2"][0])
    ours, turned = (
        np.corrcoef(edges(t1).ravel(), fixed.ravel())[0, 1]
        for t1 in (study["t1"][0], study["t1"][0, ::-1])
    )
    assert ours > turned + 0.1


@needs_real
def test_real_boxes_and_grades(real):
    studies = by_patient(real)
    assert set(PATIENTS) - set(studies) == {"116", "132"}
    gradings, boxes = defaultdict(dict), defaultdict(dict)
    with (REAL / "radiological_gradings.csv").open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            gradings[row["Patient"]][int(row["IVD label"])] = row
    with (REAL / "disc_boxes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["series"] == "t2":
                boxes[row["patient"]][int(row["ivd_label_from_bottom"])] = row
    for patient, study in studies.items():
        rows, (_, height, width) = study["boxes"], study["t2"].shape
        assert study["t2"].max() <= 255
        boxed = rows["boxed"] == 1
        assert (rows["box"][boxed] >= 0).all()
        assert (rows["box"][boxed] <= (height, width, height, width)).all()
        assert (rows["box"][boxed, 2:] > rows["box"][boxed, :2]).all()
        assert boxed.sum() == len(boxes[patient])
        graded = {int(k): n for n, k in enumerate(rows["level"]) if k > 0}
        assert set(graded) == set(gradings[patient])
        for level, n in graded.items():
            assert rows["modic"][n] == int(gradings[patient][level]["Modic"])
            assert rows["pfirrmann"][n] == int(gradings[patient][level]["Pfirrman grade"])
            if boxed[n]:
                corners = [int(boxes[patient][level][c]) for c in ("y0", "x0", "y1", "x1")]
                assert rows["box"][n].tolist() == corners
        assert study["has_boxes"] == bool(boxes[patient])
    assert studies["28"]["has_boxes"]
    assert not studies["237"]["has_boxes"]
    assert (studies["226"]["boxes"]["level"][:6] == 0).all()  # 6 boxes, 7 graded discs
    assert not any(studies[p]["has_t1"] for p in ("57", "6"))


@needs_real
def test_real_discs_are_darker_than_the_vertebrae_beside_them(real):
    dark = total = 0
    for study in real.studies:
        for box in study["boxes"]["box"][study["boxes"]["boxed"] == 1].astype(int):
            row0, col0, row1, col1 = box
            height, inner = row1 - row0, slice(col0 + (col1 - col0) // 4, col1 - (col1 - col0) // 4)
            if row0 - height // 2 < 0:
                continue
            image = study["t2"][0]
            edge = np.concatenate([image[row0 - height // 2 : row0, inner],
                                   image[row1 : row1 + height // 2, inner]])  # fmt: skip
            core = image[row0 + height // 3 : row1 - height // 3, inner]
            dark += np.percentile(core, 20) < np.percentile(edge, 50)
            total += 1
    assert total > 40
    assert dark / total > 0.85
