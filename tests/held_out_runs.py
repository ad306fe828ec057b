"""Folders of evaluated runs, written by hand: what calibrations are fitted on."""

import json

import numpy as np
from scipy.special import softmax

from mskjax import cases
from mskjax.data.splits import Fold, Splits, save
from mskjax.metrics.grading import Grading

GRADE = Grading("grade", ("none", "mild", "severe"), ordinal=True)
KIND = Grading("kind", ("benign", "malignant"))
FINGERPRINT = "f" * 16


def folds_of(patients, count):
    """Cross-validation by patient."""
    return [
        Fold(tuple(p for p in patients if p not in test), (), test)
        for test in (tuple(patients[k::count]) for k in range(count))
    ]


def rows_of(folds, gradings=(GRADE, KIND), each=4, seeds=(0,), sure=2.0, missed=0.0, methods=None):
    """Graded cases of all test patients; networks are `sure` times as sure as they should be."""
    rows = []
    for number, fold in enumerate(folds):
        for seed in seeds:
            for patient in fold.test:
                rng = np.random.default_rng((int(patient[1:]), seed, number))
                for case in range(each):
                    row = {"fold": number, "seed": seed, "patient": patient, "study": patient}
                    row |= {"kind": "grade", "case": f"{patient}/{case}"}
                    lost = rng.random() < missed
                    for g in gradings:
                        row |= _cells(g, (int(patient[1:]), case), rng, sure, lost, methods)
                    rows.append(row)
    return rows


def _cells(grading, who, rng, sure, lost, methods):
    count = len(grading.classes)
    truth = np.random.default_rng((*who, count)).integers(count)
    # Of a Gaussian reading around the truth, each class is as likely as its posterior says.
    seen = truth + rng.normal(0, 0.7)
    logits = -((np.arange(count) - seen) ** 2) / (2 * 0.7**2)
    p = None if lost else softmax(sure * logits)
    return cases.cells(grading, int(truth), dict.fromkeys(methods or ["model"], p), {}, {})


def write_run(folder, folds, rows, kind="real", **data):
    """The files of a run that a calibration is fitted on; folders of networks are not there."""
    patients = sorted({p for f in folds for p in (*f.train, *f.test)})
    config = {"system": "one_grade", "variant": "cohort", "stages": {}, "resamples": 200}
    config["data"] = {"cohort": "one_grade", "config": "cohort", **data}
    audit = {"kind": kind, "fingerprint": FINGERPRINT, "index": [[p, p] for p in patients]}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "cohort.json").write_text(json.dumps(audit))
    split = data.get("split", "folds")
    save(folder / "splits.json", Splits(tuple(folds), split, FINGERPRINT, tuple(patients)))
    cases.write(folder / "cases.csv", rows)
    return folder


def names(count):
    """Patients ``p0``, ``p1``..."""
    return [f"p{i}" for i in range(count)]
