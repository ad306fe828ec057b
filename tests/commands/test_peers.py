"""A run beside MONAI (experiments/benchmarks/peers.py); training needs PyTorch and MONAI."""

import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands.command_line import MINUTES, ROOT

from mskjax import cases
from mskjax.metrics import paired
from mskjax.metrics.grading import Grading

FOLDER = ROOT / "experiments" / "benchmarks"
GRADE = Grading("grade", ("i", "ii", "iii"), ordinal=True)
SIGN = Grading("sign", ("absent", "present"))
SETTINGS = {"resamples": 300, "seed": 4}
SYSTEM = SimpleNamespace(gradings=(GRADE, SIGN), method="model")

needs_monai = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "monai")),
    reason="the peer is MONAI's, which needs PyTorch (CONTRIBUTING.md)",
)


@pytest.fixture
def peers(monkeypatch):
    """The script as a module; its neighbours are found as Python finds those of a script."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("peers", FOLDER / "peers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clock(peers, monkeypatch):
    """Lets a second pass at each look, so that a minute is as many steps on any machine."""
    import monai_peer

    seconds = itertools.count()
    monkeypatch.setattr(monai_peer, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    return monai_peer


def rows(seed, method, noise):
    """Two structures of six patients, one of them with two studies, and three cases of a study."""
    rng, found = np.random.default_rng(seed), []
    for number in range(7):
        who = {"fold": "0", "seed": "0", "patient": f"p{number % 6}", "study": f"s{number}"}
        for name in ("disc", "canal"):
            dice = "" if (number, name) == (3, "canal") else str(rng.uniform(0.5, 1))
            found.append({**who, "kind": "structure", "name": name, "dice": dice})
        for level in range(3):
            row = {**who, "kind": "grade", "case": f"s{number}/{level}"}
            for g in (GRADE, SIGN):
                truth = (number + level) % len(g.classes)
                p = np.exp(rng.normal(0, noise, len(g.classes)) + 2 * np.eye(len(g.classes))[truth])
                own = None if (number, level) == (1, 2) and method == "model" else p / p.sum()
                row |= cases.cells(g, truth, {method: None}, {method: own}, {})
            found.append({k: str(v) for k, v in row.items()})
    return found


def kappa(reference, calls, weights, power):
    count = max(reference.max(), calls.max()) + 1
    matrix = np.zeros((count, count))
    np.add.at(matrix, (reference, calls), weights)
    cost = np.abs(np.subtract.outer(np.arange(count), np.arange(count))) ** power
    expected = np.outer(matrix.sum(1), matrix.sum(0)) / matrix.sum()
    return 1 - (cost * matrix).sum() / (cost * expected).sum()


def auroc(reference, score, weights):
    ahead = np.subtract.outer(score[reference == 1], score[reference == 0])
    both = np.outer(weights[reference == 1], weights[reference == 0])
    return (both * ((ahead > 0) + (ahead == 0) / 2)).sum() / both.sum()


def check(entry, figure, ours, theirs, patients):
    """Holds an entry against a figure of (data, case weights) that NumPy computes."""
    units = [*dict.fromkeys(patients)]
    drawn = paired.multiplicities(len(units), **SETTINGS)
    of_case = drawn[:, [units.index(p) for p in patients]]
    plain = np.ones(len(patients))
    for side, data in (("ours", ours), ("peer", theirs)):
        assert entry[side]["value"] == pytest.approx(figure(data, plain), abs=1e-5)
    draws = np.array([figure(ours, w) - figure(theirs, w) for w in of_case])
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    difference = entry["difference"]
    assert difference["value"] == pytest.approx(
        figure(ours, plain) - figure(theirs, plain), abs=1e-5
    )
    assert difference["ci95"] == pytest.approx([low, high], abs=1e-5)
    assert (difference["n"], difference["patients"]) == (len(patients), len(units))


def test_differences_of_dice_are_numpys_on_the_same_patients(peers):
    ours, theirs = rows(0, "model", 1), rows(1, "peer", 1)
    disc, canal = peers.overlaps(ours, theirs, SETTINGS)
    assert (disc["figure"], canal["figure"]) == ("dice_disc", "dice_canal")

    def mean(values, weights):
        there = ~np.isnan(values)
        return np.average(values[there], weights=weights[there])

    for entry, name in ((disc, "disc"), (canal, "canal")):
        sides = [
            np.array([float(r["dice"] or "nan") for r in own if r.get("name") == name])
            for own in (ours, theirs)
        ]
        check(entry, mean, *sides, [f"p{n % 6}" for n in range(7)])


def test_differences_of_grades_are_numpys_on_the_cases_of_both(peers):
    ours, theirs = rows(0, "model", 1), rows(1, "peer", 3)
    found = peers.gradings(SYSTEM, ours, (theirs, "peer"), SETTINGS)
    assert [entry["figure"] for entry in found] == [
        "quadratic_weighted_kappa_grade",
        "cohen_kappa_sign",
        "auroc_sign",
    ]

    def data(own, method, grading):
        # Ours has no reference region for one case, which is left out of both.
        of_case = [r for r in own if r["kind"] == "grade" and r["case"] != "s1/2"]
        names = [f"oracle_p_{method}_{grading.task}_{c}" for c in grading.classes]
        p = np.array([[float(r[name]) for name in names] for r in of_case])
        reference = [grading.classes.index(r[f"reference_{grading.task}"]) for r in of_case]
        return np.array(reference), p

    patients = [f"p{n % 6}" for n in range(7) for level in range(3) if (n, level) != (1, 2)]
    grade = [data(own, m, GRADE) for own, m in ((ours, "model"), (theirs, "peer"))]
    sign = [data(own, m, SIGN) for own, m in ((ours, "model"), (theirs, "peer"))]

    def rounded(p):
        return np.floor(p @ np.arange(p.shape[1]) + 0.5).astype(int)

    check(found[0], lambda d, w: kappa(d[0], rounded(d[1]), w, 2), *grade, patients)
    check(found[1], lambda d, w: kappa(d[0], (d[1][:, 1] >= 0.5) * 1, w, 1), *sign, patients)
    check(found[2], lambda d, w: auroc(d[0], d[1][:, 1], w), *sign, patients)


def beside(peers, run, output, *flags):
    return peers.main(["--run", str(run), "--output", str(output), *flags])


@needs_monai
@pytest.mark.slow
@pytest.mark.long
def test_a_killed_comparison_goes_on_and_a_finished_one_trains_nothing(
    finished, peers, clock, tmp_path, monkeypatch, capsys
):
    output, kept = tmp_path / "peer.json", tmp_path / "peer" / "fold_0"

    def killed(*_):
        raise KeyboardInterrupt

    def never(*_):
        raise AssertionError("trained again")

    flags = ("--folds", "0", "--minutes", "0.05")
    with monkeypatch.context() as patch:
        patch.setattr(clock.Grades, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            beside(peers, finished.workdir, output, *flags)
    assert (kept / "masks.json").exists()
    assert not (kept / "grades.json").exists()
    assert not output.exists()
    monkeypatch.setattr(clock.Masks, "train", never)
    assert beside(peers, finished.workdir, output, *flags) == 0
    monkeypatch.setattr(clock.Grades, "train", never)
    content = json.loads(output.read_text())
    assert beside(peers, finished.workdir, output, *flags) == 0
    assert json.loads(output.read_text()) == content

    test = json.loads((finished.workdir / "splits.json").read_text())["folds"][0]["test"]
    theirs = cases.read(kept / "masks.csv")
    assert {r["patient"] for r in theirs} == {*test}
    figures = {entry["figure"]: entry for entry in content["figures"]}
    assert [*figures] == [
        "dice_vertebra",
        "dice_disc",
        "dice_canal",
        "quadratic_weighted_kappa_pfirrmann",
        "balanced_accuracy_severity",
    ]
    # Ours are the run's own figures; the peer's mask is scored on the native grid.
    ours = [r for r in cases.read(finished.workdir / "cases.csv") if r["fold"] == "0"]
    for found, side in ((ours, "ours"), (theirs, "peer")):
        dice = [float(r["dice"]) for r in found if r["name"] == "disc"]
        assert figures["dice_disc"][side]["value"] == pytest.approx(np.mean(dice), abs=1e-6)
    for part in content["training"]:
        assert part["peer_steps"] == part["peer_seconds"] - 1 == 3
        assert part["ours_s"] > 0
    said = capsys.readouterr().out
    assert "PHANTOM" in said
    assert "| dice_disc |" in said

    assert beside(peers, finished.workdir, output, "--folds", "0", "--minutes", "9") == 2
    assert "another comparison" in capsys.readouterr().err


@needs_monai
@pytest.mark.slow
@pytest.mark.long
def test_boxes_are_graded_beside_a_peer_for_the_time_of_all_our_graders(
    tiny_run, peers, clock, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(tiny_run("modic_changes").workdir, run)
    costs = [*run.glob("fold_0/grades_*/cost.json")]
    assert len(costs) == 3
    for cost in costs:  # as if each had taken a second
        cost.write_text(json.dumps(json.loads(cost.read_text()) | {"wall_s": 1.0}))
    output = tmp_path / "peer.json"
    monkeypatch.chdir(ROOT)
    assert beside(peers, run, output, "--match-time", "--network", "dyn_unet") == 0
    content = json.loads(output.read_text())
    assert [entry["figure"] for entry in content["figures"]] == [
        "cohen_kappa_presence",
        "auroc_presence",
        "quadratic_weighted_kappa_pfirrmann",
    ]
    (part,) = content["training"]  # there is no mask, and boxes are not compared
    assert (part["part"], part["ours_s"], part["peer_steps"]) == ("grades", 3.0, 3)
    graded = [r for r in cases.read(run / "cases.csv") if r["kind"] == "grade"]
    boxed = [r for r in graded if r["oracle_p_z_score_volume_presence_present"]]
    assert content["figures"][0]["difference"]["n"] == len(boxed)


@needs_monai
@pytest.mark.long
@MINUTES
@pytest.mark.parametrize("network", ["basic_unet", "dyn_unet"])
def test_the_peer_learns_masks(clock, network):
    rng = np.random.default_rng(0)
    volumes, labels = [], []
    for shift in range(6):
        label = np.zeros((3, 2, 40, 36), np.float32)
        label[1, :, 4 + shift : 14 + shift, 6:18] = 1
        label[2, :, 24:36, 10 + shift : 22 + shift] = 1
        label[0] = 1 - label[1] - label[2]
        volumes.append(rng.normal(label[1:2] - label[2:], 0.2).astype(np.float32))
        labels.append(label)
    peer = clock.Masks(network, 1, 3, (32, 32), seed=0)
    done = peer.train(volumes[:5], labels[:5], seconds=60, batch=4)
    assert (done.steps, done.seconds) == (60, 61.0)
    found = peer.predict(volumes[5])
    assert found.shape == (3, 2, 40, 36)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    called = found.argmax(0)
    for k in (1, 2):
        both = (called == k) & (labels[5][k] == 1)
        assert 2 * both.sum() / ((called == k).sum() + labels[5][k].sum()) > 0.9


@needs_monai
@pytest.mark.long
@MINUTES
@pytest.mark.parametrize(("slices", "steps"), [(1, 40), (2, 40)])
def test_the_peer_learns_grades_from_the_labels_that_there_are(clock, slices, steps):
    rng = np.random.default_rng(0)
    grade = np.arange(36) % 3
    crops = rng.normal(0, 0.3, (36, slices, 8, 12, 2)).astype(np.float32)
    crops[:, :, 2:6, 3:9, 0] += grade[:, None, None, None]
    targets = {"grade": np.where(np.arange(36) < 6, -1, grade), "sign": np.full(36, -1)}
    peer = clock.Grades(crops.shape[1:], {"grade": 3, "sign": 2}, seed=0)
    peer.train(crops[6:], {k: v[6:] for k, v in targets.items()}, seconds=steps, batch=8)
    found = peer.predict(crops[:6])
    assert {name: p.shape for name, p in found.items()} == {"grade": (6, 3), "sign": (6, 2)}
    np.testing.assert_array_equal(found["grade"].argmax(1), grade[:6])


@pytest.mark.parametrize("missing", ["torch", "monai"])
def test_a_missing_library_is_named_with_what_installs_it(peers, missing, monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else there("json")
    )
    assert beside(peers, "nowhere", "peer.json") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {missing} is not installed; run pip install -e '.[bench]'")
    assert said.count("\n") == 1


@needs_monai
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--minutes", "0"], "--minutes is 0"),
        (["--folds", "0", "7"], "has 0, 1, not 7."),
        (["--output", "peer.txt"], "ends with .json"),
        (["--data_dir", "nowhere"], "give --data_dir"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(finished, peers, flags, said, tmp_path, capsys):
    output = tmp_path / "peer.json"
    assert beside(peers, finished.workdir, output, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert not [*tmp_path.iterdir()]


@needs_monai
def test_of_several_seeds_one_is_asked_for(peers, tmp_path, capsys):
    (tmp_path / "run" / "seed_0").mkdir(parents=True)
    assert beside(peers, tmp_path / "run", tmp_path / "peer.json") == 2
    assert f"give one, {tmp_path / 'run' / 'seed_0'}." in capsys.readouterr().err


@pytest.mark.long
@needs_monai
@pytest.mark.slow
def test_the_script_runs_as_it_is_typed(tmp_path):
    command = [sys.executable, str(FOLDER / "peers.py"), "--run=nowhere", "--output=peer.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: nowhere/config.json is missing; give the --workdir of a run.\n"
    assert not [*tmp_path.iterdir()]
