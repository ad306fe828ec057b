"""What a report says of the division: repetitions apart, who is on both sides, who is left out."""

import dataclasses
import json
import types

import jsonschema  # type: ignore[import-untyped]
import pytest

from mskjax.config import TrainConfig
from mskjax.data.splits import Fold, Splits, save
from mskjax.reporting import limits, summary
from mskjax.tables import write_rows
from mskjax.two_stage.system import System

FINGERPRINT = "f" * 16
PATIENTS = ("p1", "p2", "p3", "p4")


class Accuracy(System):
    """Scores each patient's one case; rows alone are enough."""

    name, title, labels = "disc_degeneration", "One grade a study", ("grade",)
    published, rules, limits = (), (), ()
    primary = "accuracy"
    stages = (
        types.SimpleNamespace(
            name="grades", train=TrainConfig(steps=1, batch_size=1, warmup_steps=0)
        ),
    )

    def meaning(self):
        return {"preprocessing": {}}

    def _unused(self, *arguments):
        raise AssertionError("a report needs rows of cases.csv alone")

    stratum = cases = read = fit_baselines = score = picture = masks = _unused

    def summarise(self, rows, resamples, seed):
        right = [float(r["wrong"] == "0") for r in rows]
        people = len({r["patient"] for r in rows})
        share = sum(right) / len(right)
        estimate = {"value": share, "ci95": [0.0, 1.0], "n": len(rows), "patients": people}
        oracle = {**estimate, "value": min(share + 0.1, 1.0)}
        return {
            "stages": {"grades": {}},
            "end_to_end": {"accuracy": estimate},
            "oracle_region": {"accuracy": oracle},
            "baselines": {},
        }


def fold(train, test, **more):
    return Fold(tuple(train.split()), (), tuple(test.split()), **more)


REPEATED = (
    fold("p3 p4", "p1 p2"),
    fold("p1 p2", "p3 p4"),
    fold("p2 p4", "p1 p3", repetition=1),
    fold("p1 p3", "p2 p4", repetition=1),
)
# Wrong in the first repetition: one of four; in the second: three of four.
WRONG = {(1, "p3"), (2, "p1"), (2, "p3"), (3, "p4")}


@pytest.fixture
def report_of(tmp_path):
    """Writes a finished run of some folds and returns its report."""

    def write(*folds, images=None, kind="supplied"):
        config = {
            "system": "disc_degeneration",
            "variant": "cohort",
            "data": {"cohort": "disc_degeneration", "config": "cohort"},
            "stages": {"grades": {}},
        }
        audit = {
            "name": "disc_degeneration",
            "config": "cohort",
            "version": "1.0.0",
            "kind": "real",
            "licence": "CC0",
            "fingerprint": FINGERPRINT,
            "patients": len(PATIENTS),
            "studies": len(PATIENTS),
            "cases": len(PATIENTS),
            "counts": {},
            "excluded": [],
            "index": [[p, f"s{p}"] for p in PATIENTS],
        }
        if images:
            audit["images"] = images
        contents = {"config": config, "cohort": audit, "environment": {"python": "3.11"}}
        for name, content in contents.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        save(tmp_path / "splits.json", Splits(folds, kind, FINGERPRINT, PATIENTS))
        rows = []
        for number, own in enumerate(folds):
            for p in own.test:
                row = {"fold": number, "patient": p, "study": f"s{p}", "case": f"s{p}"}
                wrong = int((number, p) in WRONG)
                label = ("benign", "malignant")[wrong]
                rows.append({**row, "kind": "grade", "reference_grade": label, "wrong": wrong})
            stage = tmp_path / f"fold_{number}" / "grades"
            stage.mkdir(parents=True)
            cost = {"wall_s": 1.0, "steps": 2, "device": "cpu", "compile_s": 0.5}
            (stage / "cost.json").write_text(json.dumps(cost | {"peak_memory_bytes": 1}))
            (stage / "architecture.json").write_text('{"parameters": 7, "table": ""}')
            for p in own.test:
                picture = stage.parent / "pictures" / f"s{p}.png"
                picture.parent.mkdir(exist_ok=True)
                picture.write_bytes(b"")
        write_rows(tmp_path / "cases.csv", rows)
        return summary.summarise(tmp_path, Accuracy())

    return write


def test_repetitions_are_scored_apart_and_never_pooled(report_of, tmp_path):
    report = report_of(*REPEATED)
    first, second = report["repetitions"]
    assert [first["repetition"], second["repetition"]] == [0, 1]
    assert [r["end_to_end"]["accuracy"]["value"] for r in (first, second)] == [0.75, 0.25]
    assert [r["oracle_region"]["accuracy"]["value"] for r in (first, second)] == [0.85, 0.35]
    # What leads, and all that is counted, is of the first repetition: no patient counts twice.
    assert report["end_to_end"] == first["end_to_end"]
    assert report["oracle_region"] == first["oracle_region"]
    assert report["end_to_end"]["accuracy"]["n"] == len(PATIENTS)
    assert report["headline"] == (
        "Accuracy, end to end: 0.750 (95 % interval 0.000 to 1.000; 4 cases of 4 patients;"
        " repetition 0, the first of 2)."
    )
    assert report["class_counts"]["held_out_grade"] == {
        "fold 0": {"benign": 2, "malignant": 0},
        "fold 1": {"benign": 1, "malignant": 1},
    }
    assert {p["path"].split("/")[0] for p in report["pictures"]} == {"fold_0", "fold_1"}
    assert report["protocol"]["folds"] == 2
    assert report["protocol"]["repetitions"] == 2
    assert report["cost"]["wall_s"] == 4.0  # the cost is that of all folds
    page = summary.write_report(tmp_path, Accuracy()).read_text()
    assert "Folds: 2 in each of 2 repetitions" in page
    assert "0.250 to 0.750" in page
    assert "0.750, 0.250" in page


def test_held_out_patients_stay_apart_from_every_repetition(report_of):
    crossed = [
        dataclasses.replace(f, test=tuple(p for p in f.test if p != "p4"), train=("p1", "p2", "p3"))
        for f in REPEATED
    ]
    crossed = [
        dataclasses.replace(f, train=tuple(p for p in f.train if p not in f.test)) for f in crossed
    ]
    report = report_of(*crossed, fold("p1 p2 p3", "p4", held_out=True))
    assert report["end_to_end"]["accuracy"]["n"] == 3
    assert report["held_out"]["end_to_end"]["accuracy"]["n"] == 1
    assert [r["end_to_end"]["accuracy"]["n"] for r in report["repetitions"]] == [3, 3]
    assert report["limits"] == [limits.ONE_SEED, limits.NO_EXTERNAL]


def test_one_cross_validation_has_no_table_of_repetitions(report_of, tmp_path):
    report = report_of(*REPEATED[:2])
    assert report["repetitions"] == []
    assert report["protocol"]["repetitions"] == 1
    assert "repetition" not in report["headline"]
    assert 'id="repetitions"' not in summary.write_report(tmp_path, Accuracy()).read_text()


def test_patients_who_share_an_image_are_overlap(report_of, tmp_path):
    images = {"sp1": ["a"], "sp2": ["b"], "sp3": ["b", "c"], "sp4": ["d"]}
    report = report_of(*REPEATED[:2], images=images)
    assert report["protocol"]["patient_overlap"] == 1
    assert report["splits"]["overlapping"] == ["p2", "p3"]
    assert report["limits"][0] == (
        "Patients who share an image lie on both sides of a fold: p2, p3."
    )
    page = summary.write_report(tmp_path, Accuracy()).read_text()
    assert "1 patient(s) are in more than one partition of a fold" in page
    assert "Listed as: p2, p3." in page


@pytest.mark.parametrize("images", [None, {f"s{p}": [p] for p in PATIENTS}])
def test_what_overlap_was_computed_from_is_said(report_of, tmp_path, images):
    assert report_of(*REPEATED[:2], images=images)["protocol"]["patient_overlap"] == 0
    what = "identifiers and images" if images else "identifiers"
    assert f"0 found, computed from the {what} of every fold" in (
        summary.write_report(tmp_path, Accuracy()).read_text()
    )


def test_patients_left_out_are_named_among_the_limits(report_of):
    report = report_of(fold("p2", "p1"), fold("p1", "p2 p3"))
    assert report["splits"]["left_out"] == {"p3": (0,), "p4": (0, 1)}
    assert report["limits"][:2] == [
        "Left out of every fold: patient p4.",
        "Left out of fold 0: patient p3.",
    ]


def test_the_report_of_repetitions_holds_to_the_contract(report_of):
    jsonschema.validate(json.loads(json.dumps(report_of(*REPEATED))), summary.schema())
