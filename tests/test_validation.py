"""Folds that are trained and validated to choose between configs, and test no patient."""

import dataclasses
import json

import pytest
from commands.command_line import SMALL, study

from mskjax import cases, commands, validation, workdir
from mskjax import study as studies
from mskjax.config import PopulationConfig
from mskjax.data import cohorts, splits
from mskjax.errors import UserError
from mskjax.sweeps import objective

FIELDS = {"data.validation_fraction": 0.4, "stages.regions.train.steps": 4}
assert set(FIELDS) - {"data.validation_fraction"} <= set(SMALL)


@pytest.fixture
def config(tmp_path, data_dir):
    changes = {k.replace(".", "__"): v for k, v in FIELDS.items()}
    return commands.study_flags(study(tmp_path / "run", data_dir, **changes)).config


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def fold(train, validation, test, **more):
    return splits.Fold(tuple(train), tuple(validation), tuple(test), **more)


def division(*folds, kind="folds"):
    patients = {p for f in folds for p in (*f.train, *f.validation, *f.test)}
    return splits.Splits(folds, kind, "fingerprint", tuple(sorted(patients)), {})


@pytest.mark.slow
@pytest.mark.long
def test_no_test_patient_is_opened_and_the_folder_is_an_ordinary_run(config, tmp_path, monkeypatch):
    divided, opened = [], set()
    make, get = studies.make_splits, cohorts.Studies.__getitem__

    def make_splits(*arguments):
        divided.append(make(*arguments))
        return divided[0]

    def getitem(self, i):
        found = get(self, i)
        if divided:
            assert found["patient_id"] not in divided[0].folds[0].test, "a test patient is opened"
            opened.add(found["patient_id"])
        return found

    monkeypatch.setattr(studies, "make_splits", make_splits)
    monkeypatch.setattr(cohorts.Studies, "__getitem__", getitem)
    run = tmp_path / "run"
    with workdir.owned(run):
        ((number, rows, left),) = validation.validated(config, run, [0])
    first = divided[0].folds[0]
    assert (number, left) == (0, 0)
    assert len(first.test) == 3
    assert opened == {*first.train, *first.validation}
    assert {r["patient"] for r in rows} == set(first.validation)
    assert {r["kind"] for r in rows} >= {"grade"}
    assert cases.read(run / "fold_0" / "validation_cases.csv") == rows
    assert not (run / "fold_0" / "cases.csv").exists()
    assert workdir.check(run, config), "not what main would go on from"
    assert validation.sealed(divided[0], [0]) == set(first.test)
    # Done already: nothing is trained or read again.
    monkeypatch.setattr(validation, "train", None)
    monkeypatch.setattr(validation.held_out, "write_rows", None)
    with workdir.owned(run):
        assert next(validation.validated(config, run, [0]))[1] == rows
    kept = json.loads((run / "splits.json").read_text())
    assert sorted(kept["folds"][0]["test"]) == sorted(first.test)


def test_patients_are_sealed_whom_no_chosen_fold_trains_or_validates_on():
    crossed = division(fold("ab", "c", "de"), fold("de", "a", "bc"))
    assert validation.sealed(crossed, [0]) == {"d", "e"}
    assert validation.sealed(crossed, [0, 1]) == set()
    apart = division(fold("ab", "c", "d"), fold("abd", "c", "xy", held_out=True))
    assert validation.check_validation(apart, []) == [0]
    assert validation.sealed(apart, [0]) == {"d", "x", "y"}


@pytest.mark.parametrize(
    ("divided", "numbers", "message"),
    [
        (division(fold("ab", "c", "d")), [1], "there is no fold 1; the division has 1"),
        (division(fold("abc", "", "d")), [], "fold_0 has no validation patients to choose by"),
    ],
)
def test_a_division_that_chooses_nothing_is_refused(divided, numbers, message):
    with pytest.raises(UserError, match=message):
        validation.check_validation(divided, numbers)


def test_a_division_by_case_is_refused():
    by_case = fold("ab", "ac", "bc", cases={"a/1": "train"})
    with pytest.raises(UserError, match="reads test patients; use another division"):
        validation.check_validation(division(by_case, kind="by_case"), [])


def test_a_part_of_a_cohort_opens_nothing_else(tmp_path):
    class Some(list):
        def __getitem__(self, i):
            assert i != 1
            return super().__getitem__(i)

    index = (("p", "a"), ("q", "b"), ("p", "c"))
    whole = cohorts.Cohort({}, Some("abc"), Some("ABC"), index, tmp_path)
    part = whole.part([0, 2])
    assert [part.studies[i] for i in range(len(part.studies))] == ["a", "c"]
    assert [*part.studies] == ["a", "c"]
    assert [*part.outlines] == ["A", "C"]
    assert part.patients == ("p",)


def test_a_recipe_among_others_is_refused(config, tmp_path):
    members = {"a": {}, "b": {}}
    several = dataclasses.replace(config, population=PopulationConfig(members=members))
    with pytest.raises(UserError, match="members must be empty: one config is chosen at a time"):
        next(validation.validated(several, tmp_path / "run"))


@pytest.mark.long
def test_seeds_of_a_trial_train_together_and_all_their_rows_count(config, tmp_path):
    several = dataclasses.replace(config, population=PopulationConfig(seeds=2))
    run = tmp_path / "run"
    with workdir.owned(run):
        ((_, rows, _),) = validation.validated(several, run, [0])
    assert {row["seed"] for row in rows} == {"0", "1"}
    alone = [[r["case"] for r in rows if r["seed"] == s and r.get("case")] for s in ("0", "1")]
    assert alone[0] == alone[1]
    assert (run / "seed_1/fold_0/validation_cases.csv").exists()
    assert not list(run.glob("**/fold_*/cases.csv"))
    name = "quadratic_weighted_kappa_pfirrmann"
    figure = objective.estimate(several, rows, name, 50)
    each = [
        objective.estimate(config, [r for r in rows if r["seed"] == s], name, 50)["value"]
        for s in ("0", "1")
    ]
    assert figure["seeds"] == each
    assert figure["value"] == pytest.approx(sum(each) / 2)
    assert "draws" not in figure
