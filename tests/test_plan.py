"""A plan says what the real program has: counts are held against initialisation and compilation."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands.command_line import SMALL, complaint

from mskjax import commands, experiment, fields, plan
from mskjax.config import StudyConfig, parse
from mskjax.main import main


def config_of(spec, **changes):
    """The resolved config of an experiment; ``__`` stands for a dot."""
    values = fields.completed(experiment.load(spec))
    for name, value in changes.items():
        *above, last = name.split("__")
        node = values
        for part in above:
            node = node[part]
        node[last] = value
    return parse(StudyConfig, values.to_dict())


def variants():
    for name, (_, described) in experiment.listing().items():
        yield from (f"{name}:{variant}" for variant in described)


def test_flops_and_activations_of_a_convolutional_stage():
    """Of a U-Net of one level and of known widths, by hand."""
    config = config_of(
        "fatty_infiltration:phantom",
        stages__regions__model__widths=(8,),
        stages__regions__patch=(32, 32),
        stages__regions__train__batch_size=4,
        devices=1,
    )
    sample = plan.sample_of(config)
    regions = sample.system.stages[0]
    one, two = (plan.cost(regions, sample, n) for n in (1, 2))
    kernels = jax.eval_shape(
        lambda: regions.model().init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)
    )["params"]
    weights = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(kernels) if x.ndim == 4)
    # A multiplication and an addition for each weight and pixel, forward and twice backward (the
    # gradient of the first input is not needed).
    convolutions = 3 * 2 * weights * 4 * 32 * 32
    assert convolutions / 2 < one.flops < 3 * convolutions
    maps = 4 * 32 * 32 * 8 * 4  # bytes of one map of the whole batch
    assert 2 * maps < one.activation_bytes < 40 * maps
    assert two.activation_bytes == pytest.approx(one.activation_bytes / 2, rel=0.01)
    assert (two.flops, two.state_bytes) == (one.flops, one.state_bytes)
    assert one.parameters == sum(int(np.prod(x.shape)) for x in jax.tree.leaves(kernels))


def test_a_plan_as_typed_leaves_plan_json_and_nothing_else(tmp_path, capsys):
    flags = [f"--config.{k}={v}" for k, v in SMALL.items() if k != "devices"]
    arguments = ["--config=disc_degeneration", "--mode=plan", "--config.devices=4", *flags]
    speed = ["--memory_gb=0.1", "--tflops=0.001"]
    assert main([*arguments, *speed, f"--workdir={tmp_path / 'run'}"]) == 0
    said = capsys.readouterr().out
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["plan.json"]
    found = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (found["devices"], found["folds"], found["memory_bytes_of_device"]) == (4, 2, 1e8)
    assert "generated patients" in found["shapes_from"]
    regions = found["stages"]["regions"]
    assert regions["step_s"] == pytest.approx(regions["flops"] / (4 * 1e9))
    seconds = sum(s["step_s"] * s["steps"] * 2 for s in found["stages"].values())
    assert found["training_s"] == pytest.approx(seconds)
    assert regions["fits"]
    assert regions["resident"]
    assert not regions["compiled"]
    assert f"{regions['parameters']:,}" in said
    assert "stage grades" in said


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--mode=plan,train"], "it stands alone"),
        (["--tflops=3"], "--tflops is a flag of --mode=plan alone"),
        (["--mode=plan", "--config.devices=3"], "which 3 devices do not divide"),
        (["--mode=plan", "--config.devices=64", "--compile"], "64, but 8 are visible"),
        (["--mode=plan", "--memory_gb=-1"], "memory_gb"),
    ],
)
def test_what_makes_no_plan_is_refused_without_a_trace(flags, says, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert main(["--config=disc_degeneration", f"--workdir={workdir}", *flags]) == 2
    assert says in complaint(capsys.readouterr().err)
    assert not workdir.exists()


def test_a_packaged_cohort_gives_its_own_canvas(tmp_path, monkeypatch):
    """Where the user's cohort is packaged, its slices are measured and its studies counted."""
    from commands import fatty_cohort

    from mskjax.data.cohorts import prepare_cohort

    raw = fatty_cohort.own_cohort(tmp_path / "raw")
    config = config_of("fatty_infiltration:cohort", data__data_dir=str(tmp_path / "data"))
    assert plan.sample_of(config, 50).count == 50
    cohort = prepare_cohort("fatty_infiltration", "cohort", tmp_path / "data", raw)
    sample = plan.sample_of(config, 50)
    assert sample.count == len(cohort.studies)
    assert sample.system.stages[0].canvas == sample.system.stages[0].canvas_for(cohort.studies)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(s, marks=() if s == "fatty_infiltration:cohort" else pytest.mark.long)
        for s in variants()
    ],
)
def test_every_shipped_variant_can_be_planned(spec, capsys):
    commands.configure_runtime()
    found = plan.run(config_of(spec, devices=1), memory_gb=80, tflops=100, studies=100)
    assert found["training_s"] > 0
    for stage in found["stages"].values():
        assert stage["fits"], "a published network fits on a device of 80 GB"
        assert stage["flops"] > 2 * stage["parameters"] / 1e3
