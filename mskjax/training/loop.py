"""The one training loop of all stages of all systems."""

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
from jax.sharding import Mesh

from mskjax.errors import Diverged, Preempted, UserError
from mskjax.progress import Progress, say
from mskjax.training import processes
from mskjax.training.feed import Feed, one_ahead
from mskjax.training.member import Job, Member, Validate
from mskjax.training.mesh import DATA, check_batch_size
from mskjax.training.population import CHOSEN
from mskjax.training.stage import Stage
from mskjax.training.state import TrainState
from mskjax.training.trainer import Trainer


def fit(
    jobs: Sequence[Job],
    validate: Validate,
    stop: processes.Signal,
    limit_mb: float | None = None,
    share: str = CHOSEN,
) -> list[Diverged | None]:
    """Trains a stage, or like stages of several folds or recipes as one program, to the end.

    Each says so in its folder, and is saved there as if it had been trained alone.  Weights come
    from, in this order: the latest checkpoint in the folder; `Stage.initial`, e.g. a file of
    weights of another task; initialisation from the seed.

    Args:
      jobs: what is to be trained: alike, on the same examples or on some of their own.
      validate: mean loss and monitors of weights over examples, see `evaluation.validate`.
      stop: says when the process must end soon.
      limit_mb: see `Feed`.
      share: see `Trainer`.

    Returns:
      Of each job what ended it, None where it is trained: a step was not finite, and nothing was
      saved after it.  The others went on.

    Raises:
      UserError: a batch or the jobs do not fit the mesh or one another; or a checkpoint that
        training goes on from is gone.
      Preempted: `stop` was set and all states were saved.
    """
    _check(jobs)
    program = jobs[0].program
    own = [job.examples for job in jobs]
    feed = Feed(own if any(e is not own[0] for e in own) else own[:1], program.mesh, limit_mb)
    with contextlib.ExitStack() as opened:
        members = [Member(job, validate, opened) for job in jobs]
        states = [m.start() for m in members]
        if any(not m.has_ended for m in members):
            balances, keys = [m.balance for m in members], [m.key for m in members]
            trainer = Trainer([j.program for j in jobs], feed, balances, keys, share)
            title = _common(jobs)
            feed.announce(title)
            if trainer.how:
                say(f"{title}: {trainer.how}")
            _steps(trainer, members, states, stop, Progress(title, *_length(members)))
    for m in members:
        m.conclude()
    processes.sync("trained")
    return [m.failure for m in members]


def check_alike(titles: Sequence[str], stages: Sequence[Stage]) -> None:
    """Whether stages can train as one program.

    Raises:
      UserError: they differ in more than seed, fold, and what changes no shape.
    """
    first = stages[0]
    for title, stage in zip(titles, stages, strict=True):
        same_batch = stage.train.batch_size == first.train.batch_size
        if not same_batch or stage.traced() != first.traced():
            raise UserError(
                f"{title} and {titles[0]} cannot train as one program: members of a population may"
                " differ in seed, fold and in what changes no shape (steps, rates, decays,"
                " strengths of augmentation), not in batch size, network or images."
            )


def check_batch(stage: Stage, mesh: Mesh, trainings: int) -> None:
    """Whether the devices that a training has divide its batch.

    Raises:
      UserError: they do not.
    """
    over = mesh.size if trainings == 1 else mesh.shape[DATA]
    where = f"config.stages.{stage.name}.train.batch_size"
    check_batch_size(stage.train.batch_size, over, where)


def _check(jobs: Sequence[Job]) -> None:
    """Whether the jobs can train together on their mesh.

    Raises:
      UserError: they cannot; naming the first that differs.
    """
    stages, mesh = [job.program.stage for job in jobs], jobs[0].program.mesh
    check_alike([job.title for job in jobs], stages)
    check_batch(stages[0], mesh, len(jobs))


def _steps(
    trainer: Trainer,
    members: Sequence[Member],
    states: Sequence[TrainState],
    stop: processes.Signal,
    progress: Progress,
) -> None:
    """Steps all members until the last has ended."""
    together = trainer.put(states)
    del states  # or twice the memory: the step takes over what it is given
    began = [m.step for m in members]
    rounds = _rounds(members, trainer.most_steps)
    batches = one_ahead(map(trainer.batches, _numbers(members, began, rounds)))
    for m in members:
        m.clock, m.together = time.monotonic(), len(members)
    with contextlib.closing(batches):
        for count, batch in zip(rounds, batches, strict=False):
            together, scalars = trainer.step(together, batch)
            training = {k: m for k, m in enumerate(members) if not m.has_ended}
            for m in training.values():
                m.step += count
            note = ""
            if any(m.is_due for m in training.values()):
                values = trainer.values(together, scalars)
                for k, m in training.items():
                    if m.is_due:
                        note = m.look(functools.partial(trainer.of, together, k), values[k]) or note
            if stop.is_set() and not all(m.has_ended for m in members):
                _save_all(trainer, members, together)
            for _ in range(count):
                progress.advance(note)
            if all(m.has_ended for m in members):
                break
    for m in members:
        m.checkpoints.wait()
    progress.close()


def _save_all(trainer: Trainer, members: Sequence[Member], states: TrainState) -> None:
    """Saves who has not ended.

    Raises:
      Preempted: always.
    """
    saved = []
    for k, m in enumerate(members):
        if not m.has_ended:
            m.save(trainer.of(states, k))
            saved.append(f"{m.job.title}: saved at step {m.step} of {m.length}")
    for m in members:
        m.checkpoints.wait()
    more = f" and {len(saved) - 1} more" if len(saved) > 1 else ""
    raise Preempted(saved[0] + more)


def _rounds(members: Sequence[Member], most: int) -> list[int]:
    """Steps of each dispatch, such that between two of them somebody may have to look.

    Only 1 and one other length occur, or every length would be compiled.
    """
    dues = [d for m in members for d in m.dues]
    several = math.gcd(*dues, *(m.length for m in members))
    several = next(n for n in range(min(most, several), 0, -1) if several % n == 0)
    steps, left, found = [m.step for m in members], [m.length - m.step for m in members], []
    done = 0
    while done < max(left):
        aligned = all(
            (s + done) % several == 0 for s, n in zip(steps, left, strict=True) if done < n
        )
        found.append(several if aligned else 1)
        done += found[-1]
    return found


def _numbers(
    members: Sequence[Member], began: Sequence[int], rounds: Sequence[int]
) -> Iterator[np.ndarray]:
    """(n, K, B) numbers of the examples of each round; who has ended is given its last again."""
    orders = [m.numbers() for m in members]
    for done, count in zip(itertools.accumulate(rounds, initial=0), rounds, strict=False):
        yield np.stack(
            [
                [
                    o[min(b + done + i, m.length - 1)]
                    for o, b, m in zip(orders, began, members, strict=True)
                ]
                for i in range(count)
            ]
        )


def _length(members: Sequence[Member]) -> tuple[int, int]:
    """Steps of the longest training, and those that are done of it."""
    left = max(m.length - m.step for m in members)
    longest = max(m.length for m in members)
    return longest, longest - left


def _common(jobs: Sequence[Job]) -> str:
    """Title of jobs that train together."""
    if len(jobs) == 1:
        return jobs[0].title
    return f"{jobs[0].title} to {jobs[-1].title}"
