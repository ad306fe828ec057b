"""How members of a population share a device, beside the same trainings one after another.

    python experiments/benchmarks/population.py --stages disc_degeneration/regions \
        disc_degeneration/grades fatty_infiltration/grades --members=4

For each stage of a default study, on its own images: the product's training step for one member,
and for all of them unrolled, vmapped and mapped.  Steps alternate within a round; what is printed
is the time of the members one after another by the time of them together (median and quartiles
over rounds; above 1 together is faster), and what compiling costs in compilations of one.  Nothing
is read from the compilation cache.
"""

import argparse
import os
import time
from collections.abc import Sequence

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import default_stage

from mskjax import commands

STAGES = ("disc_degeneration/regions", "disc_degeneration/grades", "fatty_infiltration/grades")


def main() -> None:
    """Parses the flags and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--stages", nargs="+", default=STAGES, help="EXPERIMENT[:VARIANT]/STAGE")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()
    commands.configure_runtime()
    import jax

    device = jax.devices()[0]
    print(f"{flags.members} members on one {device.device_kind}, jax {jax.__version__}")
    print("| stage | share | speed | compiling |")
    print("|---|---|---|---|")
    for name in flags.stages:
        for row in _measured(name, flags.members, flags.rounds):
            print(row, flush=True)


def _measured(name: str, count: int, rounds: int) -> Sequence[str]:
    import jax
    import numpy as np

    from mskjax.data import pipeline
    from mskjax.training.feed import Feed
    from mskjax.training.mesh import data_mesh, put_replicated
    from mskjax.training.population import SHARES
    from mskjax.training.program import Program
    from mskjax.training.trainer import Trainer

    stage, examples = default_stage.cut(name)
    mesh = data_mesh(1)
    feed, size = Feed([examples], mesh, limit_mb=1e6), stage.train.batch_size
    numbers = np.resize(np.arange(pipeline.count(examples)), (1, count, size))
    balance = put_replicated(stage.balance(examples), mesh)

    def prepared(members: int, share: str) -> tuple[Trainer, list, float]:
        programs = [Program(stage, mesh) for _ in range(members)]
        keys = [jax.random.key(k) for k in range(members)]
        trainer = Trainer(programs, feed, [balance] * members, keys, share)
        first = {k: v[:1] for k, v in examples.items()} | {"index": np.zeros(1, np.int32)}
        states = [programs[0].init(put_replicated(first, mesh), key) for key in keys]
        held, start = [trainer.put(states)], time.monotonic()
        _step(trainer, held, numbers[:, :members])
        return trainer, held, time.monotonic() - start

    alone, one, compile_one = prepared(1, SHARES[0])
    together = {share: prepared(count, share) for share in SHARES}
    ratios: dict[str, list[float]] = {share: [] for share in SHARES}
    for _ in range(rounds):
        start = time.monotonic()
        for k in range(count):
            _step(alone, one, numbers[:, k : k + 1])
        after = time.monotonic() - start
        for share, (trainer, held, _) in together.items():
            start = time.monotonic()
            _step(trainer, held, numbers)
            ratios[share].append(after / (time.monotonic() - start))
    rows = []
    for share, found in ratios.items():
        low, middle, high = np.quantile(found, [0.25, 0.5, 0.75])
        cost = together[share][2] / compile_one
        rows.append(f"| {name} | {share} | {middle:.2f} ({low:.2f} to {high:.2f}) | {cost:.1f} |")
    return rows


def _step(trainer: object, held: list, numbers: object) -> None:
    """One step to its end; the state in `held` is replaced."""
    import jax

    held[0], _ = trainer.step(held[0], trainer.batches(numbers))  # type: ignore[attr-defined]
    jax.block_until_ready(held[0])


if __name__ == "__main__":
    main()
