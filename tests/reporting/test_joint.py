"""The ensemble of seeds beside one network, against plain NumPy on the same resamples."""

import math

import numpy as np
import pytest

from mskjax.config import DataConfig, StudyConfig
from mskjax.data.splits import Fold, Splits
from mskjax.metrics.estimates import means
from mskjax.metrics.intervals import weighting
from mskjax.reporting import joint
from mskjax.reporting.pooled import pooled, without_draws

PATIENTS = [f"p{i:02}" for i in range(24)]
HELD_OUT = ["q0", "q1", "q2", "q3"]
ENDS = ((1 - 0.95) / 2, 1 - (1 - 0.95) / 2)
CONFIG = StudyConfig("toy", "phantom", DataConfig("toys", "phantom"), resamples=2000, seed=3)


class System:
    """Means of Dice over structures: all that is needed of a system."""

    method, gradings = "model", ()

    def summarise(self, rows, resamples, seed):
        dice = means(rows, ["dice"], resamples, seed)
        return {"stages": {"regions": dice}, "end_to_end": dice, "oracle_region": {}}


def division():
    half = len(PATIENTS) // 2
    ours = (PATIENTS[:half], PATIENTS[half:])
    folds = [Fold(tuple(train), (), tuple(test)) for train, test in (ours, ours[::-1])]
    folds.append(Fold(tuple(PATIENTS), (), tuple(HELD_OUT), held_out=True))
    return Splits(tuple(folds), "folds_and_official", "f", (*PATIENTS, *HELD_OUT), {})


def rows(values, extra=()):
    """Two studies a patient; a reader may have more rows than another."""
    half = len(PATIENTS) // 2
    folds = {p: 2 if p in HELD_OUT else int(p in PATIENTS[:half]) for p in (*PATIENTS, *HELD_OUT)}
    return [
        {"patient": p, "fold": str(folds[p]), "dice": repr(float(v))}
        for p, own in zip((*PATIENTS, *HELD_OUT), values, strict=True)
        for v in (*own, *(own if p in extra else ()))
    ]


@pytest.fixture(scope="module")
def values():
    """Single networks: (3 seeds, patients, 2); what the ensemble reaches: (patients, 2)."""
    rng = np.random.default_rng(0)
    own = rng.normal(0.8, 0.05, (1, len(PATIENTS) + len(HELD_OUT), 2))
    singles = (
        own + rng.normal(0, 0.02, (3, *own.shape[1:])) + np.array([-0.02, 0, 0.02])[:, None, None]
    )
    return singles.astype(np.float32), (own[0] + 0.02).astype(np.float32)


@pytest.fixture(scope="module")
def report(values):
    singles, together = values
    divided = division()
    draws = joint.resamples(joint.tested(divided), CONFIG.resamples, CONFIG.seed)
    crossed, apart = len(PATIENTS), slice(len(PATIENTS), None)
    assert all(len(draws[p]) == CONFIG.resamples for p in (*PATIENTS, *HELD_OUT))
    reports = []
    with weighting(draws):
        for own in singles:
            every = rows(own)
            inside = [r for r in every if r["patient"] in PATIENTS]
            outside = [r for r in every if r["patient"] in HELD_OUT]
            found = System().summarise(inside, CONFIG.resamples, CONFIG.seed)
            last = System().summarise(outside, CONFIG.resamples, CONFIG.seed)
            reports.append({**found, "held_out": {p: last[p] for p in joint.PLACES}})
    # The ensemble has found more in one patient, which must not shift anybody's resamples.
    found = joint.ensemble(rows(together, ["p03"]), reports, divided, System(), CONFIG, draws)
    assert (crossed, apart.start) == (24, 24)
    return found, reports, draws


def test_cross_validated_and_held_out_patients_are_resampled_apart():
    draws = joint.resamples([PATIENTS, HELD_OUT, []], 50, 0)
    for group in (PATIENTS, HELD_OUT):
        np.testing.assert_array_equal(sum(draws[p] for p in group), np.full(50, len(group)))


def test_the_difference_is_that_to_the_mean_of_seeds_on_the_same_resamples(values, report):
    found, reports, draws = report
    singles, together = values
    weights = np.stack([draws[p] for p in PATIENTS], 1).astype(np.float64)
    counts = np.array([4 if p == "p03" else 2 for p in PATIENTS])
    sums = np.stack([own.sum() * (2 if p == "p03" else 1)
                     for p, own in zip(PATIENTS, together, strict=False)])  # fmt: skip
    ours = (weights @ sums) / (weights @ counts)
    theirs = (weights @ singles[:, : len(PATIENTS)].mean((0, 2))) / len(PATIENTS)
    low, high = np.quantile(ours - theirs, ENDS, method="inverted_cdf")
    expected = sums.sum() / counts.sum() - singles[:, : len(PATIENTS)].mean()
    for place in (found["minus_single"]["end_to_end"], found["minus_single"]["stages"]["regions"]):
        own = place["dice"]
        assert own["value"] == pytest.approx(expected, abs=1e-6)
        assert own["ci95"] == pytest.approx([low, high], abs=1e-5)
        assert (own["n"], own["patients"]) == (50, 24)
        assert own["method"] == "paired patient bootstrap, percentile, 2000 resamples"
    alone = found["end_to_end"]["dice"]
    assert alone["ci95"] == pytest.approx(
        np.quantile(ours, ENDS, method="inverted_cdf").tolist(), abs=1e-5
    )
    # What is hard for both cancels.
    assert own["ci95"][1] - own["ci95"][0] < 0.7 * (alone["ci95"][1] - alone["ci95"][0])
    assert len(reports) == found["seeds"] == 3


def test_held_out_patients_have_their_own_difference(values, report):
    singles, together = (v[..., len(PATIENTS) :, :] for v in values)
    own = report[0]["held_out"]
    assert own["end_to_end"]["dice"]["value"] == pytest.approx(together.mean(), abs=1e-6)
    difference = own["minus_single"]["end_to_end"]["dice"]
    assert difference["value"] == pytest.approx(together.mean() - singles.mean(), abs=1e-6)
    assert difference["patients"] == 4


def test_a_figure_that_is_undefined_or_that_a_seed_lacks_has_no_difference(report):
    (first, second, _), own = report[1], report[0]["end_to_end"]["dice"]
    undefined = {**first["end_to_end"]["dice"], "value": None, "ci95": None}
    found = joint.difference(own, [undefined, second["end_to_end"]["dice"]])
    assert (found["value"], found["ci95"]) == (None, None)
    assert found["why"] == "undefined for the ensemble or a seed"
    infinite = {**own, "draws": np.full(2000, math.inf)}
    assert joint.difference(infinite, [infinite])["ci95"] is None


def test_rows_of_the_page_have_one_network_the_ensemble_and_the_difference(report):
    found, reports, _ = report
    whole = without_draws(pooled(reports, 0) | {"ensemble": found, "primary": "dice"})
    tables = joint.beside(whole)
    assert list(tables) == ["End to end", "Stage regions", "Held-out patients, end to end"]
    (row,) = tables["End to end"]
    assert row["metric"] == "dice"
    assert row["single"]["seeds"] == [r["end_to_end"]["dice"]["value"] for r in reports]
    assert row["single"]["sd"] == pytest.approx(np.std(row["single"]["seeds"], ddof=1))
    assert row["ensemble"] == whole["ensemble"]["end_to_end"]["dice"]
    assert row["difference"] == whole["ensemble"]["minus_single"]["end_to_end"]["dice"]
    assert joint.beside({"ensemble": {}}) == {}
    said = joint.sentence(whole)
    assert said.startswith(f" All 3 as an ensemble: {row['ensemble']['value']:.3f} (0.")
    assert "), difference to one network +0." in said
    assert joint.sentence({**whole, "primary": "auroc"}) == ""
