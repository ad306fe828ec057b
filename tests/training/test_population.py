import dataclasses
import json
import re
import threading

import flax.linen as nn
import jax
import numpy as np
import pytest
from training.toy import StopAt, Toy, stored_state, toy, toy_examples, train

from mskjax.errors import Preempted, UserError
from mskjax.evaluation import validate
from mskjax.training import population
from mskjax.training.checkpoints import is_trained, selected_step
from mskjax.training.feed import Feed
from mskjax.training.loop import fit
from mskjax.training.member import Job
from mskjax.training.mesh import data_mesh, put_replicated
from mskjax.training.program import Program
from mskjax.training.trainer import Trainer
from mskjax.writers import read_rows

# What members may differ in: seed, fold, and what changes no shape; lengths among them.
MEMBERS = (
    {"seed": 7, "steps": 50},
    {"seed": 8, "steps": 50, "learning_rate": 0.1, "weight_decay": 0.1},
    {"seed": 9, "steps": 30, "noise": 0.3, "warmup_steps": 0},
    {"seed": 7, "steps": 41, "ema_decay": 0.0, "clip_norm": 0.1, "penalty": 0.01},
)
EVERY = {"log_every": 10, "validate_every": 10, "checkpoint_every": 20}
CHOSEN = (np.arange(40), np.arange(20), np.arange(5, 40), np.arange(40))


def jobs(folder, mesh, members=MEMBERS, break_at=-1, examples=None):
    """A job per member, on the same examples."""
    examples = examples or toy_examples()
    made = []
    for k, changes in enumerate(members):
        recipe = {name: v for name, v in changes.items() if name != "seed"}
        program = Program(toy(break_at, **EVERY, **recipe), mesh)
        where = folder / f"member_{k}"
        held = toy_examples(20, 1)
        chosen = CHOSEN[k % len(CHOSEN)]
        made.append(Job(program, examples, chosen, held, where, changes["seed"], f"member_{k}"))
    return made


def run(made, stop=None, share=population.CHOSEN, limit_mb=None):
    left = [job for job in made if not is_trained(job.folder)]
    return fit(left, validate, stop or threading.Event(), limit_mb, share)


def assert_close(a, b, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=atol), a, b)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Each member trained by itself on one device."""
    folder = tmp_path_factory.mktemp("alone")
    for job in jobs(folder, data_mesh(1)):
        assert run([job]) == [None]
    return folder


@pytest.mark.parametrize(
    ("share", "devices", "limit_mb"),
    [
        ("unrolled", 1, None),
        pytest.param("vmapped", 1, None, marks=pytest.mark.long),
        pytest.param("mapped", 2, None, marks=pytest.mark.long),
        ("vmapped", 8, 0),
    ],
)
def test_each_member_is_what_it_is_alone(tmp_path, alone, share, devices, limit_mb):
    made = jobs(tmp_path, data_mesh(devices, len(MEMBERS)))
    assert run(made, share=share, limit_mb=limit_mb) == [None] * 4
    for job in made:
        solo = alone / job.folder.name
        assert_close(stored_state(solo), stored_state(job.folder))
        assert selected_step(solo) == selected_step(job.folder)
        ours, theirs = read_rows(job.folder / "metrics.jsonl"), read_rows(solo / "metrics.jsonl")
        assert [sorted(r) for r in ours] == [sorted(r) for r in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine, {k: other[k] for k in mine}, atol=1e-4)
        cost = json.loads((job.folder / "cost.json").read_text())
        assert cost["trained_together"] == 4
        assert cost["steps"] == job.program.stage.train.steps


@pytest.mark.parametrize(
    ("share", "devices", "limit_mb"), [("unrolled", 1, None), ("vmapped", 8, 0)]
)
def test_members_with_examples_of_their_own_are_what_they_are_alone(
    tmp_path, share, devices, limit_mb
):
    def made(folder, mesh):
        own = [toy_examples(40 + k, seed=10 + k) for k in range(len(MEMBERS))]
        pairs = zip(jobs(tmp_path / folder, mesh), own, strict=True)
        return [dataclasses.replace(job, examples=examples) for job, examples in pairs]

    together = made("together", data_mesh(devices, len(MEMBERS)))
    assert run(together, share=share, limit_mb=limit_mb) == [None] * 4
    for job, mate in zip(made("alone", data_mesh(1)), together, strict=True):
        assert run([job], limit_mb=0) == [None]
        assert_close(stored_state(job.folder), stored_state(mate.folder))


@pytest.mark.parametrize("at", [1, 33])
def test_a_population_that_was_stopped_goes_on(tmp_path, alone, at):
    made = jobs(tmp_path, data_mesh(1))
    with pytest.raises(Preempted, match=r"member_0: saved at step \d+ of 50 and \d more"):
        run(made, StopAt(at))
    # One went on alone meanwhile, so they stand at different steps.
    assert run(made[1:2]) == [None]
    left = [job for job in made if not is_trained(job.folder)]
    assert len(left) == 3
    assert run(made) == [None] * 3
    for job in made:
        assert_close(stored_state(alone / job.folder.name), stored_state(job.folder))


def test_a_member_that_fails_is_named_and_the_others_go_on(tmp_path, alone):
    examples = toy_examples()
    spoilt = {**examples, "label": examples["label"].copy()}
    spoilt["label"][39] = 2  # of which the members that hold it fail, and member 1 does not
    made = jobs(tmp_path, data_mesh(1), break_at=2, examples=spoilt)
    found = run(made)
    assert [failure is None for failure in found] == [False, True, False, False]
    assert re.search(r"member_2: loss or gradient was not finite at step \d+", str(found[2]))
    assert [is_trained(job.folder) for job in made] == [False, True, False, False]
    assert_close(stored_state(alone / "member_1"), stored_state(made[1].folder))


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"break_at": 1}])
def test_members_of_other_shape_are_refused(tmp_path, change):
    mesh = data_mesh(1)
    break_at = change.pop("break_at", -1)
    first = jobs(tmp_path, mesh, MEMBERS[:1])
    other = Job(
        Program(toy(break_at, steps=50, **EVERY, **change), mesh),
        *(first[0].examples, CHOSEN[0], None, tmp_path / "b", 1, "fold_1 toy"),
    )
    with pytest.raises(UserError, match="fold_1 toy and member_0 cannot train as one program"):
        run([*first, other])


def test_a_mesh_that_does_not_divide_the_batch_is_refused(tmp_path):
    made = jobs(tmp_path, data_mesh(6, 2), MEMBERS[:2])
    with pytest.raises(UserError, match="batch_size is 8, which 3 devices do not divide"):
        run(made)


class Unnormed(nn.Module):
    """Batch norm brings reductions of its own; this brings none."""

    @nn.compact
    def __call__(self, image, train):
        return nn.Dense(2)(nn.relu(nn.Dense(4)(image)))


@dataclasses.dataclass(frozen=True)
class ToyUnnormed(Toy):
    def model(self):
        return Unnormed()


@pytest.mark.parametrize("share", population.SHARES)
@pytest.mark.parametrize("normed", [True, False])
def test_members_do_not_communicate(share, normed):
    """In the compiled step, groups of devices that exchange data never span two members."""
    mesh, stage = data_mesh(8, 4), toy() if normed else ToyUnnormed("toy", toy().options)
    programs = [Program(stage, mesh)] * 4
    feed = Feed([toy_examples()], mesh)
    trainer = Trainer(programs, feed, [()] * 4, [jax.random.key(k) for k in range(4)], share)
    batch = {k: v[:8] for k, v in toy_examples().items()} | {"index": np.arange(8, dtype=np.int32)}
    states = [programs[0].init(put_replicated(batch, mesh), jax.random.key(0)) for _ in range(4)]
    trainer.step(trainer.put(states), trainer.batches(np.zeros((1, 4, 8), np.int64)))
    (text,) = [step.as_text() for step in trainer._steps.values()]
    reduces = [line for line in text.splitlines() if re.search(r"= .*all-reduce(-start)?\(", line)]
    others = re.findall(r"= \S+ (all-gather|all-to-all|collective-permute)", text)
    # Of the gradients, and with it the loss; batch norm has its own beside it.
    assert len(reduces) > 1 if normed else len(reduces) == 1
    assert not others
    for line in reduces:
        iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[(\d+)\]", line)
        groups = re.search(r"replica_groups=\{(\{[\d,]+\}(?:,\{[\d,]+\})*)\}", line)
        if iota:
            assert iota.groups() == ("4", "2", "8")
        else:
            found = [list(map(int, g.split(","))) for g in re.findall(r"\{([\d,]+)\}", groups[1])]
            assert found == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_one_training_needs_no_share(tmp_path):
    whole = train(Program(toy(), data_mesh(2)), tmp_path)
    assert whole.step
    program = Program(toy(), data_mesh(2))
    trainer = Trainer([program], Feed([toy_examples()], program.mesh), [()], [jax.random.key(0)])
    assert trainer.how == ""


def test_shares_are_chosen_by_platform():
    found = {p: population.chosen(population.CHOSEN, p) for p in ("cpu", "gpu", "tpu")}
    assert found["cpu"] == "unrolled"
    assert set(found.values()) <= set(population.SHARES)
    assert population.chosen("mapped", "cpu") == "mapped"
