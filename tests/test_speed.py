"""mskjax beside its peers (experiments/benchmarks/speed.py); most of it needs PyTorch."""

import importlib
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from commands.command_line import MINUTES, ROOT

from mskjax.errors import UserError

FOLDER = ROOT / "experiments" / "benchmarks"
SPEED = FOLDER / "speed.py"

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="the peer is PyTorch (CONTRIBUTING.md)",
)


@pytest.fixture
def module(monkeypatch):
    """Imports a script by name; its neighbours are found as Python finds those of a script."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def row(module):
    rows = module("speed_rows")
    pairs = ((1.0, 2.0), (2.0, 2.0), (1.0, 4.0), (1.0, 3.0), (2.0, 10.0))
    return rows.Row("loop", "layer", "step", "8 x 6", "fit", "scan", pairs)


def run(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, str(SPEED), *arguments], capture_output=True, text=True, **kwargs
    )


def test_a_ratio_is_the_median_of_the_pairs_and_not_of_the_sides(row):
    assert row.ratio == 3.0  # of 2, 1, 4, 3, 5
    assert row.quartiles == (2.0, 4.0)
    content = json.loads(json.dumps(row.as_json()))
    assert content["pairs"][4] == [2.0, 10.0]
    assert (content["ratio"], content["quartiles"]) == (3.0, [2.0, 4.0])


def test_the_table_has_ratios_and_no_seconds(row, module):
    *_, line = module("speed_rows").table([row]).splitlines()
    assert line == "| loop | layer | step | 8 x 6 | fit | scan | 3.00 (2.00 to 4.00) |"


def test_a_small_ratio_is_not_nothing(row, module):
    rows = module("speed_rows")
    slow = rows.Row("loop", "layer", "step", "", "fit", "scan", ((1.0, 0.0213),))
    assert rows.table([slow]).endswith("| 0.021 (0.021 to 0.021) |")


def test_a_row_without_pairs_says_so(row, module):
    empty = module("speed_rows").Row("loop", "layer", "step", "", "", "", ())
    with pytest.raises(ValueError, match="loop/layer has no pairs"):
        _ = empty.ratio


def test_a_part_that_is_not_there_is_named(module, monkeypatch, capsys, tmp_path):
    speed = module("speed")
    monkeypatch.setattr(speed, "module", lambda part: tmp_path / f"speed_{part}.py")
    assert speed.main(["--parts", "growth"]) == 2
    assert "growth is not here" in capsys.readouterr().err


def test_a_missing_torch_gives_the_extra_to_install(module, monkeypatch):
    peer = module("speed_peer")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs torch: pip install -e '.\[bench\]'"):
        peer.Peer(1)


def test_an_unknown_network_is_named_with_those_there_are(module):
    networks = module("speed_networks")
    with pytest.raises(networks.UserError, match="no unet_imagined; there are unet_phantom"):
        networks.wanted(["unet_imagined", "unet_real"])


@needs_torch
def test_networks_have_the_parameters_of_ours(module):
    """At a tiny size; at their own size the command holds the two against each other."""
    cases, torch_side = module("speed_cases"), module("speed_torch")
    import jax

    from mskjax.models.summary import parameter_count

    for name in cases.CASES:
        own = cases.case(name, tiny=True)
        inputs = [own.examples()[k] for k in own.stage.inputs]
        variables = jax.eval_shape(
            lambda own=own, inputs=inputs: own.stage.model().init(
                jax.random.key(0), *inputs, train=False
            )
        )
        network = torch_side.build(own.spec["network"], own.spec["options"])
        assert torch_side.parameters(network) == parameter_count(variables["params"]), name


@needs_torch
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_step_of_every_torch_network_changes_it_and_is_finite(module, layout):
    cases, steps = module("speed_cases"), module("speed_torch_steps")
    for name in cases.CASES:
        session = steps.Session(cases.case(name, tiny=True).spec, layout, fused=True)
        before = [p.detach().clone() for p in session.network.parameters()]
        assert np.isfinite(float(session.train(session.batch))), name
        after = [p.detach() for p in session.network.parameters()]
        assert any((a != b).any() for a, b in zip(before, after, strict=True)), name
        session.infer(session.batch)


@needs_torch
@pytest.mark.parametrize("name", ["unet_real", "vgg19_bn"])
def test_operations_are_those_that_torch_counts(module, name):
    """But for the rim: torch counts what is multiplied with padding, and nothing but products."""
    from torch.utils.flop_counter import FlopCounterMode

    own = module("speed_cases").case(name, tiny=True)
    ours = module("speed_ours").Ours(own)
    session = module("speed_torch_steps").Session(own.spec, "contiguous", fused=False)
    for what, work in (("inference", session.infer), ("training step", session.train)):
        with FlopCounterMode(display=False) as counter:
            work(session.batch)
        assert 0.75 < ours.needs(what)[0] / counter.get_total_flops() < 1.1, what


def test_the_floor_is_the_larger_of_operations_and_bytes(module):
    need = module("speed_floor").Need(flops=6e9, bytes=1e9)
    assert need.seconds(1e9, 1e9) == 6.0
    assert need.seconds(1e9, 1e8) == 10.0


@needs_torch
def test_regions_are_cut_as_ours_are(module):
    """RoIAlign by `grid_sample`, at regions inside the map."""
    import jax
    import torch

    from mskjax.models.roi_align import roi_align

    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, 20, 24, 3)).astype(np.float32)
    corner = rng.uniform(8, 30, (5, 2))
    regions = np.concatenate([corner, corner + rng.uniform(10, 40, (5, 2))], 1).astype(np.float32)
    cut = module("speed_torch_boxes")._roi_align
    theirs = cut(torch.from_numpy(features).movedim(-1, 1), torch.from_numpy(regions[None]), 1 / 4)
    ours = jax.jit(lambda f, r: roi_align(f, r, (7, 7), 1 / 4))(features[0], regions)
    np.testing.assert_allclose(theirs[0].movedim(1, -1), ours, atol=1e-4)


@needs_torch
def test_augmentation_moves_image_and_label_alike(module):
    import torch

    steps = module("speed_torch_steps")
    torch.manual_seed(0)
    label = torch.zeros(2, 32, 32, dtype=torch.int64)
    label[:, 8:24, 10:20] = 1
    batch = {"image": 10.0 * label[:, None].float(), "label": label}
    moved = steps.augmented(batch, (24, 24))
    assert moved["image"].shape == (2, 1, 24, 24)
    bright = moved["image"][:, 0] > 5
    assert (bright == (moved["label"] == 1)).float().mean() > 0.95


@pytest.mark.long
@pytest.mark.slow
def test_the_loop_is_timed_and_written(tmp_path):
    output = tmp_path / "speed.json"
    done = run("--parts", "loop", "--quick", "--output", str(output))
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text())
    assert {r["part"] for r in content["rows"]} == {"loop"}
    assert all(len(r["pairs"]) == 2 for r in content["rows"])
    assert content["settings"]["threads"] == 1
    assert content["environment"]["packages"]["jax"]
    assert "steps/s; one compiled scan" in done.stdout
    assert done.stdout.count("| loop | one layer |") == 2


@needs_torch
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("--parts", "networks", "--networks", "spinenet_real"), 2),
        pytest.param(("--parts", "study", "--steps", "4"), 8, marks=MINUTES),
    ],
    ids=["networks", "study"],
)
def test_what_is_beside_torch_runs(arguments, count, tmp_path):
    output = tmp_path / "speed.json"
    done = run(*arguments, "--quick", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(output.read_text())["rows"]) == count


@pytest.mark.slow
@pytest.mark.long
def test_the_floor_says_what_it_is_of(tmp_path):
    output = tmp_path / "speed.json"
    done = run("--parts", "floor", "--networks", "unet_real", "--quick", "--output", str(output))
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())["rows"]
    assert [r["what"] for r in rows] == ["training step", "inference"]
    assert all("GFLOP" in r["peer"] and r["ratio"] > 0 for r in rows)


@pytest.mark.slow
@pytest.mark.long
def test_the_accelerators_part_runs_on_a_cpu_if_told_to(tmp_path):
    own = ("--parts", "accelerator", "--networks", "unet_real", "--quick")
    assert "accelerator: there is none" in run(*own).stdout
    output = tmp_path / "speed.json"
    done = run(*own, "--anyway", "--peak-tflops", "1", "--output", str(output))
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())["rows"]
    assert [r["what"] for r in rows] == ["share of the peak", "feeding"]
    assert 0 < rows[0]["ratio"] < 1
