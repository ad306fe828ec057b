"""A run folder is enough: a trained fold reads studies it has never seen, labelled or not."""

import json
import shutil

import numpy as np
import pytest

from mskjax import applied, cases
from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import UserError
from mskjax.training.program import Program

pytestmark = pytest.mark.slow

LABELS = ("mask", "has_mask", "disc_levels", "levels", "subset")


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A copy of the run far from its cohort: nothing else is needed."""
    return shutil.copytree(finished.workdir, tmp_path_factory.mktemp("elsewhere") / "run")


@pytest.fixture(scope="module")
def fold(run):
    (found,) = applied.load(run, [0], devices=1)
    return found


@pytest.fixture(scope="module")
def held_out(finished):
    """Studies of the patients that fold 0 held out."""
    cohort = prepare_cohort(
        "disc_degeneration", "phantom", str(finished.data_dir), None, patients=6, seed=0
    )
    patients = json.loads((finished.workdir / "splits.json").read_text())["folds"][0]["test"]
    return [cohort.studies[i] for i, (p, _) in enumerate(cohort.index) if p in patients]


def unlabelled(study, **changes):
    return {k: v for k, v in study.items() if k not in LABELS} | changes


def test_scores_of_the_loaded_fold_are_those_of_the_study(run, fold, held_out, tmp_path):
    readings, oracle = fold.read(held_out), fold.read(held_out, "reference")
    rows = [
        {"fold": 0, "seed": 0, **row}
        for study, ours, ideal in zip(held_out, readings, oracle, strict=True)
        for row in fold.system.score(study, ours, ideal, fold.baselines)
    ]
    cases.write(tmp_path / "cases.csv", rows)
    mine, theirs = cases.read(tmp_path / "cases.csv"), cases.read(run / "fold_0" / "cases.csv")
    assert len(mine) == len(theirs) > 0
    for a, b in zip(mine, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if a[name] != b[name]:
                assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-4), name


def test_labels_change_nothing_of_what_is_read(run, fold, held_out):
    bare = fold.read([unlabelled(s) for s in held_out])
    for ours, theirs in zip(bare, fold.read(held_out), strict=True):
        np.testing.assert_array_equal(ours.located.mask, theirs.located.mask)
        for head, p in theirs.probabilities[cases.MODEL].items():
            np.testing.assert_array_equal(ours.probabilities[cases.MODEL][head], p)
    rows = {row["case"]: row for row in cases.read(run / "fold_0" / "cases.csv")}
    for study, reading in zip(held_out, bare, strict=True):
        said = {r["case"]: r for r in fold.system.columns(unlabelled(study), reading)}
        assert len(said) == len(reading.located.regions)
        own = [r for r in rows.values() if r["study"] == study["study_id"] and r["level_found"]]
        for row in own:
            columns = said[f"{row['study']}/{row['level_found']}"]
            assert columns["call_pfirrmann"] == row["call_pfirrmann"]
            assert columns["call_severity"] == row["call_severity"]
    picture = fold.system.picture(unlabelled(held_out[0]), bare[0], None, False)
    assert picture.startswith(b"\x89PNG")


def test_studies_of_any_size_are_read_together(fold, held_out, monkeypatch):
    image = held_out[0]["image"]
    # The same image several times over has the same intensities.
    larger = unlabelled(held_out[0], image=np.tile(image, (1, 3, 2)), study_id="larger")
    sizes = set()
    predict = Program.predict

    def watched(self, variables, batch):
        sizes.add(batch["image"].shape[1:])
        return predict(self, variables, batch)

    monkeypatch.setattr(Program, "predict", watched)
    small, large = fold.read([unlabelled(held_out[0]), larger])
    assert small.located.mask.shape == image.shape
    assert large.located.mask.shape == larger["image"].shape
    rows, cols = fold.system.find.canvas
    slices = {s for s in sizes if len(s) == 3}
    assert len(slices) == 2
    assert (rows, cols, 1) in slices
    for size in slices - {(rows, cols, 1)}:
        assert size[0] % 64 == size[1] % 64 == 0 or size[1] == cols
    # Where both see the same they find the same, but for the border.
    inside = (slice(None), slice(8, image.shape[1] - 16), slice(8, image.shape[2] - 16))
    assert (large.located.mask[inside] == small.located.mask[inside]).mean() > 0.9


def test_a_finished_training_is_evaluated_without_any_training_work(run, finished, main_here):
    from commands.command_line import study

    own = shutil.copytree(run, run.parent / "again")
    for name in ("cases.csv", "fold_0/cases.csv", "fold_1/cases.csv"):
        (own / name).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mskjax.setting.prepare", None)  # cuts examples
        patch.setattr("mskjax.fold_training.fit", None)
        patch.setattr("mskjax.two_stage.system.System.measure", None)
        assert main_here(*study(own, finished.data_dir, "--mode=evaluate")) == 0
    assert (own / "cases.csv").read_bytes() == (run / "cases.csv").read_bytes()


def test_what_a_fold_fitted_is_said_as_data(run):
    values = applied.read_system(run / "fold_0")
    assert values["system"] == "disc_degeneration"
    assert values["labels"] == {"1": "vertebra", "2": "disc", "3": "canal"}
    assert values["gradings"][0] == {
        "task": "pfirrmann", "classes": ["i", "ii", "iii", "iv", "v"], "ordinal": True,
        "call": "the class nearest to the expected class number; halfway, the higher one",
    }  # fmt: skip
    assert values["preprocessing"]["regions"]["spacing_mm"] == [None, 2.5, 2.5]
    assert values["preprocessing"]["grades"]["normalisation"] == "tissue_reference"
    ridge = values["baselines"]["pfirrmann"]["ridge"]
    assert len(ridge["weights"]) == len(ridge["mean"]) + 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "config.json").unlink(), r"config.json is missing; give the --workdir"),
        (lambda r: shutil.rmtree(r / "fold_0"), "has folds 1, not 0; train it"),
        (lambda r: (r / "fold_0/system.json").unlink(), "system.json is missing; run with --mode"),
        (lambda r: (r / "fold_0/grades/cost.json").unlink(), "grades is not trained"),
        (lambda r: relabel(r / "fold_0/system.json"), "labels of this version .* differ"),
    ],
)
def test_a_folder_that_is_no_trained_run_is_refused(run, tmp_path, spoil, message):
    broken = shutil.copytree(run, tmp_path / "run")
    spoil(broken)
    with pytest.raises(UserError, match=message):
        applied.load(broken, [0], devices=1)


def relabel(path):
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"labels": {"1": "disc"}}))
