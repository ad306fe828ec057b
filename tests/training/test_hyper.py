"""Hyper-parameters are arrays: they act as constants would, and others compile nothing."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training.toy import Net, one_step, toy, toy_config, toy_examples, train

from mskjax.config import TrainConfig
from mskjax.errors import UserError
from mskjax.training import hyper as hypers
from mskjax.training.hyper import Hyper
from mskjax.training.mesh import data_mesh, put_batch
from mskjax.training.program import Program
from mskjax.training.state import example_keys, initial_state, train_step

rate = jax.jit(jax.vmap(hypers.learning_rate, (None, 0)))
OTHER = {
    "steps": 8,
    "learning_rate": 0.0123,
    "warmup_steps": 2,
    "weight_decay": 0.5,
    "clip_norm": 0.03,
    "ema_decay": 0.02,
    "noise": 0.0,
    "penalty": 3.0,
}


@pytest.fixture
def compilations():
    """Every compilation from here on, of whatever function."""
    seen = []

    def note(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield seen
    jax.monitoring.unregister_event_duration_listener(note)


@settings(max_examples=25)
@given(
    peak=st.floats(1e-5, 1.0),
    lengths=st.tuples(st.integers(0, 20), st.integers(1, 60)),
)
def test_the_schedule_is_that_of_optax(peak, lengths):
    warmup, rest = lengths
    config = TrainConfig(steps=warmup + rest, batch_size=1, learning_rate=peak, warmup_steps=warmup)
    theirs = optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, config.steps)
    steps = jnp.arange(100)
    ours = rate(Hyper.of(config), steps)
    np.testing.assert_allclose(ours, theirs(steps.astype(jnp.float32)), rtol=1e-5, atol=2e-7 * peak)
    assert ours.dtype == jnp.float32
    assert not ours[config.steps :].any()


def test_the_average_warms_up_to_its_decay_and_the_record_says_how_far():
    long, short = (toy_config(steps=n, ema_decay=0.95) for n in (400, 120))
    decays = jax.vmap(hypers.average_decay, (None, 0))(Hyper.of(long), jnp.arange(400))
    np.testing.assert_allclose(decays[:3], [1 / 10, 2 / 11, 3 / 12], rtol=1e-6)
    np.testing.assert_allclose(decays[170:], 0.95, rtol=1e-6)
    assert decays[169] < 0.95
    assert hypers.effective(long) == {
        "peak_learning_rate": 0.05, "peak_step": 6, "last_ema_decay": 0.95,
    }  # fmt: skip
    assert hypers.effective(short)["last_ema_decay"] == pytest.approx(120 / 129, abs=1e-6)
    none = dataclasses.replace(long, ema_decay=0.0)
    assert hypers.effective(none)["last_ema_decay"] == 0


@pytest.mark.parametrize(("steps", "warmup"), [(6, 6), (5, 6), (6, -1)])
def test_a_warm_up_that_does_not_end_is_refused(steps, warmup):
    message = f"train.warmup_steps is {warmup} and train.steps is {steps}; .* shorter"
    with pytest.raises(UserError, match=message):
        toy_config(steps=steps, warmup_steps=warmup)
    assert toy_config(steps=6, warmup_steps=5).warmup_steps == 5


def test_other_hyper_parameters_compile_nothing(tmp_path, compilations):
    def run(name, **changes):
        program = Program(toy(break_at=9, **changes), data_mesh(1))  # of no other test
        train(program, tmp_path / name)
        return json.loads((tmp_path / name / "cost.json").read_text())

    run("first", steps=4, warmup_steps=0)
    before = len(compilations)
    assert before > 0
    assert run("second", **OTHER)["compile_s"] == 0
    assert len(compilations) == before


def some_steps(stage, number=4):
    """State and losses after a few steps of the compiled program."""
    program = Program(stage, data_mesh(1))
    key, examples = jax.random.key(3), toy_examples(8)
    batch = put_batch({**examples, "index": np.arange(8, dtype=np.int32)}, program.mesh)
    state, losses = program.init(batch, key), []
    for _ in range(number):
        state, scalars = one_step(program, state, batch, (), key)
        losses.append(float(scalars["loss"]))
    return state, losses


def test_each_hyper_parameter_takes_effect():
    state, losses = some_steps(toy(**OTHER))
    for name in OTHER:
        others = {k: v for k, v in OTHER.items() if k != name}
        less, less_losses = some_steps(toy(**others))
        kept = (state.average, state.variables, losses), (less.average, less.variables, less_losses)
        difference = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), *kept)
        assert max(jax.tree.leaves(difference)) > 1e-7, name


def test_steps_are_those_of_an_optimiser_made_of_constants():
    """The recipe written once more, with numbers where the step has traced arrays."""
    recipe = {"weight_decay": 0.1, "clip_norm": 0.5, "learning_rate": 0.02, "ema_decay": 0.3}
    key = jax.random.key(3)
    batch = {**toy_examples(8), "index": np.arange(8, dtype=np.int32)}
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.02, 6, 12)
    optimiser = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(
            lambda count: schedule(count.astype(jnp.float32)),
            weight_decay=0.1,
            mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
        ),
    )

    @jax.jit
    def step(variables, moments, average, t):
        keys = example_keys(key, t, batch["index"])
        noise = jax.vmap(lambda k: jax.random.normal(k, (6,)))(keys)
        dropout = jax.random.fold_in(jax.random.fold_in(key, t), 2**31 - 1)

        def mean_loss(params):
            outputs, updates = Net().apply(
                {**variables, "params": params},
                batch["image"] + 0.1 * noise,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout},
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["label"])
            return losses.mean(), updates

        (loss, updates), gradient = jax.value_and_grad(mean_loss, has_aux=True)(variables["params"])
        change, moments = optimiser.update(gradient, moments, variables["params"])
        after = {"params": optax.apply_updates(variables["params"], change), **updates}
        decay = jnp.minimum(0.3, (1 + t) / (10 + t))
        average = jax.tree.map(lambda a, v: decay * a + (1 - decay) * v, average, after)
        return after, moments, average, loss

    variables = Net().init(key, batch["image"][:1], train=False)
    average, moments, losses = variables, optimiser.init(variables["params"]), []
    for t in range(4):
        variables, moments, average, loss = step(variables, moments, average, t)
        losses.append(float(loss))
    state, ours = some_steps(toy(**recipe))
    np.testing.assert_allclose(ours, losses, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        (state.variables, state.average),
        (variables, average),
    )


def same_bits(a, b):
    equal = jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)
    return all(jax.tree.leaves(equal))


def test_a_state_beyond_its_last_step_or_after_a_bad_one_is_frozen():
    stage, key = toy(break_at=1, steps=3, warmup_steps=0), jax.random.key(0)
    hyper = Hyper.of(stage.train, stage.hyper())
    bad = {**toy_examples(8), "index": np.arange(8, dtype=np.int32)}
    good = bad | {"label": np.zeros(8, np.int32)}
    step = jax.jit(lambda state, batch: train_step(stage, state, hyper, batch, (), key)[0])
    states = [initial_state(stage, hyper, good, key)]
    for done in range(3):
        states.append(step(states[-1], good))
        assert int(states[-1].step) == done + 1
        assert not same_bits(states[-1].variables, states[-2].variables)
    assert same_bits(step(states[-1], good), states[-1])
    # What is not finite is no failure of a training that has ended.
    assert same_bits(step(states[-1], bad), states[-1])

    failed = step(states[1], bad)
    assert int(failed.bad_step) == 1
    assert same_bits(failed.replace(bad_step=jnp.int32(-1)), states[1])
    # A batch that would do comes too late.
    assert same_bits(step(failed, good), failed)


def test_the_state_given_to_a_step_is_consumed():
    program = Program(toy(), data_mesh(1))
    batch = put_batch({**toy_examples(8), "index": np.arange(8, dtype=np.int32)}, program.mesh)
    state = program.init(batch, jax.random.key(0))
    after, _ = one_step(program, state, batch, (), jax.random.key(0))
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    assert not any(x.is_deleted() for x in jax.tree.leaves(after))


def test_weights_of_a_file_are_copied_before_steps_write_over_them():
    program = Program(toy(), data_mesh(2))
    batch = put_batch({**toy_examples(8), "index": np.arange(8, dtype=np.int32)}, program.mesh)
    state = program.init(batch, jax.random.key(0))
    given = jax.tree.map(lambda x: np.full_like(x, 0.5), state.variables)
    state = program.start_from(state, given)
    for _ in range(3):
        state, _ = one_step(program, state, batch, (), jax.random.key(0))
    assert all((x == 0.5).all() for x in jax.tree.leaves(given))
    assert not same_bits(state.variables, given)
    assert not same_bits(state.average, state.variables)
