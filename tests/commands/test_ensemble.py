"""Trainings of one run read a study together: one reading, and what each says of it."""

import json

import numpy as np
import pytest

from mskjax import applied, cases, ensemble
from mskjax.data.cohorts import prepare_cohort
from mskjax.reading import rows_of_fold

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def together(finished):
    return ensemble.load(finished.workdir, devices=1)


@pytest.fixture(scope="module")
def studies(finished):
    cohort = prepare_cohort(
        "disc_degeneration", "phantom", str(finished.data_dir), None, patients=6, seed=0
    )
    return [cohort.studies[i] for i in range(2)]


def test_one_member_alone_says_what_its_fold_says(together, studies):
    alone = ensemble.Ensemble(together.members[:1])
    for ours, theirs in zip(alone.read(studies), together.members[0].read(studies), strict=True):
        np.testing.assert_array_equal(ours.located.mask, theirs.located.mask)
        for head, p in theirs.probabilities[cases.MODEL].items():
            np.testing.assert_array_equal(ours.probabilities[cases.MODEL][head], p)


def test_regions_come_from_the_mean_of_all_first_stages(together, studies):
    first, second = together.members
    stage = together.system.find
    for study, joint in zip(studies, together.read_jointly(studies), strict=True):
        examples = stage.inference_examples(study)
        outputs = [m.predict(stage.name, examples)["probabilities"] for m in (first, second)]
        mean = np.mean(np.array(outputs, np.float32), 0).astype(np.float16)
        np.testing.assert_array_equal(
            joint.reading.located.mask, stage.decode(study, {"probabilities": mean})
        )
        for member, mask, own in zip((first, second), joint.masks, outputs, strict=True):
            expected = stage.decode(study, {"probabilities": own})
            np.testing.assert_array_equal(mask, expected)
            np.testing.assert_array_equal(member.read([study])[0].located.mask, expected)


def test_probabilities_are_the_means_of_the_members_on_the_same_regions(together, studies):
    counted = 0
    for joint in together.read_jointly(studies):
        rows = together.system.columns({"patient_id": "p", "study_id": "s"}, joint.reading)
        assert len(rows) == len(joint.rows[0]) == len(joint.rows[1])
        names = [k for k in rows[0] if k.startswith("p_")] if rows else []
        for row, *each in zip(rows, *joint.rows, strict=True):
            for name in names:
                mean = np.mean([own[name] for own in each])
                assert row[name] == pytest.approx(mean, abs=2e-6)
                counted += 1
    assert counted


def test_an_ensemble_is_scored_like_a_fold(together, studies, tmp_path):
    rows = [{"fold": 0, "seed": 0, **row} for row in rows_of_fold(together, studies)]
    cases.write(tmp_path / "cases.csv", rows)
    kinds = {row["kind"] for row in rows}
    assert kinds == {"structure", "regions", "grade"}


def test_baselines_of_an_ensemble_are_the_means_of_the_folds(together):
    ridges = [m.baselines["pfirrmann"]["ridge"] for m in together.members]
    features = np.random.default_rng(0).normal(size=len(ridges[0]["mean"]))
    from mskjax.baselines import Ridge

    scores = [Ridge.of(r).predict(features) for r in ridges]
    joint = Ridge.of(together.baselines["pfirrmann"]["ridge"]).predict(features)
    assert joint == pytest.approx(np.mean(scores))


def test_the_label_maps_of_held_out_studies_lie_on_the_grid_of_the_file(finished):
    from mskjax.imaging.files import read_volume

    splits = json.loads((finished.workdir / "splits.json").read_text())["folds"]
    cohort = prepare_cohort(
        "disc_degeneration", "phantom", str(finished.data_dir), None, patients=6, seed=0
    )
    for number, fold in enumerate(splits):
        folder = finished.workdir / f"fold_{number}" / "predictions"
        own = [i for i, (patient, _) in enumerate(cohort.index) if patient in fold["test"]]
        (loaded,) = applied.load(finished.workdir, [number], devices=1)
        names = {"labels.json"}
        for i in own:
            study = cohort.studies[i]
            names |= {f"{study['study_id']}{end}.nii.gz" for end in ("", "_levels")}
            mask = read_volume(folder / f"{study['study_id']}.nii.gz")
            np.testing.assert_allclose(mask.affine, study["stored_affine"], atol=1e-4)
            (reading,) = loaded.read([study])
            np.testing.assert_array_equal(mask.data, reading.located.mask)
            levels = read_volume(folder / f"{study['study_id']}_levels.nii.gz")
            np.testing.assert_array_equal(levels.data, reading.located.found["levels"])
        assert {p.name for p in folder.iterdir()} == names
        labels = json.loads((folder / "labels.json").read_text())
        assert labels[""] == {"1": "vertebra", "2": "disc", "3": "canal"}
        assert labels["levels"]["1"] == "disc L5/S1"
