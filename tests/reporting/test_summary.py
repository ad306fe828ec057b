"""report.json of a run folder written by hand, of a system that grades each study once."""

import json
import types

import pytest

from mskjax.config import TrainConfig
from mskjax.data.splits import Fold, Splits, save
from mskjax.reporting import summary
from mskjax.tables import write_rows
from mskjax.two_stage.system import System

FINGERPRINT = "f" * 16
ROWS = [
    # study, patient, fold, reference, wrong
    ("s1", "p1", 0, "benign", 0),
    ("s2", "p2", 1, "malignant", 1),
    ("s3", "p3", 1, "malignant", 0),
]


class OneGrade(System):
    name, title, labels = "one_grade", "One grade a study", ("grade",)
    published, rules, limits = (), (), ("One centre.",)
    primary = "auroc_task_d"
    stages = (
        types.SimpleNamespace(
            name="grades", train=TrainConfig(steps=1, batch_size=1, warmup_steps=0)
        ),
    )

    def _unused(self, *arguments):
        raise AssertionError("a report needs rows of cases.csv alone")

    stratum = cases = read = fit_baselines = score = picture = masks = _unused

    def meaning(self):
        return {"preprocessing": {"grades": {"normalisation": "z_score_volume"}}}

    def facts(self, rows):
        return [("Reference", r["reference_grade"]) for r in rows if r["kind"] == "grade"]

    def summarise(self, rows, resamples, seed):
        estimate = {"value": 0.75, "ci95": [0.5, 1.0], "n": 3, "patients": 3}
        return {
            "stages": {"grades": {}},
            "end_to_end": {"auroc_task_d": estimate},
            "oracle_region": {},
            "baselines": {},
            "tables": [{"title": "Readers", "note": "", "columns": ["Reader"], "rows": [["A"]]}],
            "folds": {"auroc_task_d": {"mean": 0.75, "sd": None, "values": [0.75, None]}},
        }


def rows_of_cases(cases):
    rows = []
    for study, patient, fold, reference, wrong in cases:
        who = {"fold": fold, "patient": patient, "study": study}
        rows.append({**who, "kind": "structure", "name": "disc", "dice": 0.9})
        case = {"case": study, "reference_grade": reference, "wrong": wrong}
        rows.append({**who, "kind": "grade", **case})
    return rows


@pytest.fixture
def run(tmp_path):
    """Writes a finished run and returns its report."""

    def write(kind="folds", rows=None, **data):
        config = {
            "system": "one_grade",
            "variant": "cohort",
            "data": {"cohort": "one_grade", "config": "cohort", **data},
            "stages": {"grades": {}},
        }
        audit = {
            "name": "one_grade",
            "config": "cohort",
            "version": "1.0.0",
            "kind": "real",
            "licence": "CC0",
            "fingerprint": FINGERPRINT,
            "patients": 3,
            "studies": 3,
            "cases": 3,
            "counts": {"grade": {"-1": 2, "0": 1, "1": 2}},
            "parts": {
                "image": {"patients": 3, "studies": 3},
                "mask": {"patients": 2, "studies": 2},
                "grade": {"patients": 3, "studies": 3},
            },
            "studies_without_pixel_size": 1,
            "excluded": [],
            "index": [[p, s] for s, p, *_ in ROWS],
        }
        contents = {"config": config, "cohort": audit, "environment": {"python": "3.11"}}
        for name, content in contents.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        cases = {"s1": "test"} if kind == "by_case" else None
        folds = (
            Fold(("p2", "p3"), (), ("p1",), cases),
            Fold(("p1",), (), ("p2", "p3"), cases),
        )
        save(tmp_path / "splits.json", Splits(folds, kind, FINGERPRINT))
        write_rows(tmp_path / "cases.csv", rows_of_cases(ROWS) if rows is None else rows)
        for fold in (0, 1):
            stage = tmp_path / f"fold_{fold}" / "grades"
            stage.mkdir(parents=True, exist_ok=True)
            cost = {"wall_s": 1.0, "steps": 2, "device": "cpu", "compile_s": 0.5}
            (stage / "cost.json").write_text(json.dumps(cost | {"peak_memory_bytes": 1}))
            (stage / "architecture.json").write_text('{"parameters": 7, "table": ""}')
        for study, _, fold, *_ in ROWS:
            picture = tmp_path / f"fold_{fold}" / "pictures" / f"{study}.png"
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(b"")
        return summary.summarise(tmp_path, OneGrade())

    return write


def test_the_gallery_begins_with_failures_and_carries_the_facts_of_each_study(run):
    failure, *others = run()["pictures"]
    assert failure == {
        "path": "fold_1/pictures/s2.png",
        "caption": "s2, fold 1: wrong",
        "failure": True,
        "facts": [["Reference", "malignant"]],
    }
    assert [p["caption"] for p in others] == ["s1, fold 0", "s3, fold 1"]
    assert [p["facts"] for p in others] == [[["Reference", "benign"]], [["Reference", "malignant"]]]
    assert not any(p["failure"] for p in others)


def test_captions_count_the_cases_of_a_study_with_several(run):
    rows = rows_of_cases(ROWS)
    rows += [{**rows[3], "case": "s2/b"}, {**rows[3], "case": "s2/c", "wrong": 0}]
    assert run(rows=rows)["pictures"][0]["caption"] == "s2, fold 1: 2 of 3 cases wrong"


def test_a_study_without_a_picture_is_left_out_of_the_gallery(run, tmp_path):
    run()
    (tmp_path / "fold_1/pictures/s2.png").unlink()
    captions = [p["caption"] for p in summary.summarise(tmp_path, OneGrade())["pictures"]]
    assert captions == ["s1, fold 0", "s3, fold 1"]


def test_counts_are_those_of_the_cohort_and_of_the_held_out_cases(run):
    report = run()
    assert report["class_counts"] == {
        "grade": {"cohort": {"0": 1, "1": 2, "not graded": 2}},
        "held_out_grade": {
            "fold 0": {"benign": 1, "malignant": 0},
            "fold 1": {"benign": 0, "malignant": 2},
        },
    }
    assert report["flow"] == [
        {"step": "packaged, with image", "patients": 3, "studies": 3},
        {"step": "packaged, with mask", "patients": 2, "studies": 2},
        {"step": "packaged, with grade", "patients": 3, "studies": 3, "cases": 3},
        {"step": "scored on held-out folds, regions", "patients": 3, "studies": 3},
        {"step": "scored on held-out folds, grades", "patients": 3, "studies": 3, "cases": 3},
    ]


def test_studies_without_a_pixel_size_are_a_limit(run):
    limits = run()["limits"]
    assert any(limit.startswith("1 of 3 studies do not say how large") for limit in limits)


def test_a_case_with_several_rows_is_one_case(run):
    rows = rows_of_cases(ROWS)
    report = run(rows=[*rows, {**rows[1], "kind": "regions"}])
    assert report["flow"][-1]["cases"] == 3
    assert report["class_counts"]["held_out_grade"]["fold 0"] == {"benign": 1, "malignant": 0}


def test_rows_without_graded_cases_leave_the_counts_of_the_cohort_alone(run):
    rows = [r for r in rows_of_cases(ROWS) if r["kind"] == "structure"]
    assert list(run(rows=rows)["class_counts"]) == ["grade"]


def test_what_a_system_adds_reaches_the_page(run, tmp_path):
    report = run()
    assert report["headline"].startswith("AUROC, task D, end to end: 0.750 (95 % interval 0.500")
    assert report["tables"][0]["title"] == "Readers"
    page = summary.write_report(tmp_path, OneGrade()).read_text()
    assert "<caption>Readers</caption>" in page
    assert "CONTROL RUN" not in page
    assert "control" not in report["protocol"]


def test_a_control_run_says_so_before_anything_else(run, tmp_path):
    report = run(shuffle_labels=True)
    assert report["limits"][0] == (
        "CONTROL RUN: labels were shuffled between patients; figures should lie at chance."
    )
    assert report["headline"].startswith("CONTROL RUN (shuffled labels): AUROC, task D")
    page = summary.write_report(tmp_path, OneGrade()).read_text()
    assert "<strong>CONTROL RUN</strong>: labels were shuffled between patients" in page


def test_the_command_is_the_one_that_the_run_kept(run, tmp_path):
    assert run()["command"] == "python -m mskjax.main --config=RUN/config.json --workdir=WORKDIR"
    (tmp_path / "command.json").write_text('{"command": "python -m mskjax.main --config=mine"}')
    assert run()["command"] == "python -m mskjax.main --config=mine"


def test_a_leaking_split_is_told_in_terms_of_any_system(run):
    first, *_ = run(kind="by_case")["limits"]
    assert first.startswith("LEAKING SPLIT")
    assert "cases of one patient lie on both sides" in first
    assert "disc" not in first
