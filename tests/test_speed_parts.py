"""Parts of experiments/benchmarks/speed.py: both sides do the same, and rows come out."""

import importlib
import importlib.util
import math
from types import SimpleNamespace

import numpy as np
import pytest
from commands.command_line import MINUTES, ROOT

from mskjax.errors import UserError
from mskjax.metrics import intervals, paired

FOLDER = ROOT / "experiments" / "benchmarks"
QUICK = SimpleNamespace(rounds=2, quick=True, whole=False)

needs_monai = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "monai")),
    reason="the peer is MONAI's, which needs PyTorch (CONTRIBUTING.md)",
)
# Of MONAI and torch, about themselves.
noisy = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def part(monkeypatch):
    """A part by its name; its neighbours are found as Python finds those of a script."""
    monkeypatch.syspath_prepend(FOLDER)
    return lambda name: importlib.import_module(f"speed_{name}")


def check(rows, named):
    assert {row.part for row in rows} == {named}
    assert len({(row.name, row.what, row.size, row.peer) for row in rows}) == len(rows)
    for row in rows:
        assert all(math.isfinite(v) and v > 0 for v in (row.ratio, *row.quartiles)), row


# --------------------------------------------------------------------------------------------
# Turns


def test_sides_take_turns_and_the_peer_is_scaled(part, monkeypatch):
    turns, said = part("turns"), []
    clock = iter(np.cumsum([0, 2, 0, 1, 0, 1, 0, 2]).tolist())
    rests = []
    own = SimpleNamespace(perf_counter=lambda: next(clock), sleep=rests.append)
    monkeypatch.setattr(turns, "time", own)
    pairs = turns.in_turn(lambda: said.append("a"), lambda: said.append("b"), 2, share=0.5)
    assert said == ["a", "b", "b", "a"]
    assert pairs == ((2, 2), (2, 2))
    assert turns.alternate(lambda: 1.0, lambda: 2.0, 3, settle_s=0.5) == ((1.0, 2.0),) * 3
    assert rests == 4 * [0.0] + 6 * [0.5]


def test_a_missing_peer_is_named_with_what_installs_it(part):
    part("turns").check_there("numpy")
    with pytest.raises(UserError, match=r"needs no_such_library: pip install -e '\.\[bench\]'"):
        part("turns").check_there("numpy", "no_such_library")


# --------------------------------------------------------------------------------------------
# Metrics


@needs_monai
@noisy
@pytest.mark.parametrize("half", [(0.3, 0.2, 0.2), (0.5, 0.5, 0.4), (0.1, 0.4, 0.1)])
def test_surfaces_are_the_same_on_all_sides(part, half):
    metrics = part("metrics")
    own = metrics.masks((9, 48, 40), (4.0, 1.5, 1.1), half)
    assert own[0].any()
    assert (own[0] != own[1]).any()
    ours = metrics.surfaces_of_ours(*own)
    assert 0.3 < ours[0] < 1
    for theirs in metrics.PEERS.values():
        assert theirs(*own) == pytest.approx(ours, rel=1e-5)


@noisy
@pytest.mark.parametrize("name", ["quadratic kappa", "balanced accuracy", "AUROC"])
def test_the_loop_draws_what_the_bootstrap_draws(part, name):
    pytest.importorskip("sklearn")
    metrics = part("metrics")
    data, patients = metrics.graded(30)
    drawn = paired.multiplicities(30, 40, 0)
    with intervals.weighting(dict(enumerate(drawn.T))):
        found = intervals.patient_bootstrap(metrics.FIGURES[name], data, patients)
    assert found.draws == pytest.approx(metrics.looped(name, data, patients, drawn), abs=2e-6)
    assert found.draws.std() > 0.005


@needs_monai
@noisy
def test_metrics_give_rows(part):
    rows = part("metrics").measure(QUICK)
    check(rows, "metrics")
    assert len(rows) == 5


# --------------------------------------------------------------------------------------------
# Packaging


@needs_monai
@noisy
def test_packages_and_caches_hold_the_same_studies(part, tmp_path):
    packaging = part("packaging")
    packaging.write_raw(tmp_path / "raw", 2)
    ours = packaging.packaged(tmp_path / "raw", tmp_path / "ours")
    theirs = packaging.persistent(tmp_path / "raw", tmp_path / "theirs")
    assert len(ours.studies) == len(theirs) == 2
    assert not ours.audit["excluded"]
    assert ours.audit["cases"] > 0
    for study, item in zip(ours.studies, theirs, strict=True):
        np.testing.assert_array_equal(study["mask"], np.asarray(item["mask"])[0])
        image = np.asarray(item["image"])[0]
        normal = (study["image"] - study["image"].mean()) / study["image"].std()
        np.testing.assert_allclose(image, normal, atol=1e-4)


@needs_monai
@noisy
def test_packaging_gives_rows(part):
    rows = part("packaging").measure(QUICK)
    check(rows, "packaging")
    assert [row.what for row in rows] == ["studies packaged", "studies read"]


# --------------------------------------------------------------------------------------------
# Growth


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (lambda n: 3 * n, (1, 1)),
        (lambda n: n * math.log(n), (1.149, 1.125)),
        (lambda n: n**2, (2, 2)),
        (lambda n: 5.0, (0, 0)),
    ],
)
def test_exponents_are_those_of_the_growth(part, cost, expected):
    growth = part("growth")
    found = {n: cost(n) for n in (100, 1_000, 10_000)}
    assert (growth.exponent(found), growth.last_exponent(found)) == pytest.approx(
        expected, abs=0.005
    )
    assert growth.is_linear(found) == (max(expected) <= 1.1)


def test_what_every_run_costs_hides_no_square(part):
    growth = part("growth")
    found = {n: 1e6 + n**2 for n in (100, 1_000, 10_000)}
    assert growth.exponent(found) < 1.1
    assert growth.last_exponent(found) > 1.1
    assert not growth.is_linear(found)


def test_growth_is_beside_linear_growth_from_the_first_size(part):
    growth = part("growth")
    costs = {n: {"report": growth.Cost(n**2 / 100, 200.0, 1.0)} for n in (10, 40)}
    time, memory = growth.rows(costs)
    check([time, memory], "growth")
    assert (time.name, time.what, time.ratio) == ("report", "time", pytest.approx(1 / 4))
    assert time.size == "10, 40 studies: exponent 2.00, last 2.00"
    assert (memory.what, memory.ratio) == ("memory", pytest.approx(4))


def test_packaging_of_small_studies_is_measured(part, tmp_path):
    growth = part("growth")
    growth.write_raw(tmp_path / "raw", 10)
    cost = growth.package(tmp_path / "raw", tmp_path / "data")
    assert min(cost.seconds, cost.anonymous_mb) > 0
    (audit,) = (tmp_path / "data").rglob("audit.json")
    assert '"studies": 10' in audit.read_text()


@pytest.mark.long
@MINUTES
def test_growth_gives_rows(part, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # one device
    rows = part("growth").measure(QUICK)
    check(rows, "growth")
    parts = ("packaging", "cut", "train", "evaluate", "report")
    assert [(row.name, row.what) for row in rows] == [
        (name, what) for name in parts for what in ("time", "memory")
    ]
