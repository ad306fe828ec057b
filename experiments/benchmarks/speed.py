"""mskjax beside its peers, step by step in turn: ratios of times, above 1 ours is faster.

    pip install -e '.[bench]' && pip install --no-deps monai
    python experiments/benchmarks/speed.py --output speed.json
    python experiments/benchmarks/speed.py --parts networks --networks unet_real vgg19_bn

Parts, each a module ``speed_PART.py`` beside this file:

* networks: training step and inference of each network, float32, beside the same network in plain
  torch, eager, in the memory format (and with the AdamW) that is fastest there;
* floor: the same beside the least time that the machine needs, by operations and by bytes;
* loop: the product's training loop around a network of no size, beside the same steps as one
  compiled scan: what the loop costs;
* study: the trainings of two default studies from nothing, compilation included, beside as many
  steps written in torch;
* accelerator: where there is one: bfloat16 beside `torch.compile`, share of the peak, feeding;
* packaging, metrics: beside MONAI, SciPy, scikit-learn; growth: with the number of studies.

The peer runs in a process of its own and both have the same threads; a round is one measurement of
ours and one of theirs, and what is printed is the median over rounds of their time by ours, with
quartiles.  Seconds, which are a machine's, stand in the JSON alone.  Run it on a free machine.
"""

import argparse
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mskjax import commands
from mskjax.errors import EXIT_DONE, EXIT_USER, UserError

PARTS = ("networks", "floor", "loop", "study", "accelerator", "packaging", "metrics", "growth")
QUICK_ROUNDS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the parts, prints a table, writes a JSON.

    Args:
      argv: flags; None takes the process's.

    Returns:
      The exit code.
    """
    flags = parsed(argv)
    try:
        for part in flags.parts:
            check_part(part)
        configure(flags.threads)
        rows: list[Any] = []
        for part in flags.parts:
            rows += importlib.import_module(f"speed_{part}").measure(flags)
            if flags.output is not None:  # each time: a later part may fail
                write(flags, rows)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER
    from speed_rows import table

    print(table(rows))
    if flags.output is not None:
        print(f"every pair: {flags.output}")
    return EXIT_DONE


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; parts that have no module yet are no default.

    Args:
      argv: see `main`.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    there = [part for part in PARTS if module(part).exists()]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=there)
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="all by default")
    parser.add_argument("--rounds", type=int, help="pairs of measurements (9)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, 2 rounds: does it run")
    parser.add_argument("--threads", type=int, help="of either side; all, or 1 if quick")
    parser.add_argument("--steps", type=int, help="of the trainings of `study`; all by default")
    parser.add_argument("--peak-tflops", type=float, help="of the accelerator in bfloat16")
    parser.add_argument("--anyway", action="store_true", help="`accelerator` on a CPU: does it run")
    parser.add_argument("--whole", action="store_true", help="`growth`: the largest cohort too")
    parser.add_argument("--output", type=Path, help="JSON that is written")
    flags = parser.parse_args(argv)
    if flags.rounds is None:
        flags.rounds = QUICK_ROUNDS if flags.quick else 9
    if flags.threads is None:
        flags.threads = 1 if flags.quick else len(os.sched_getaffinity(0))
    for name in ("rounds", "threads", "steps"):
        if getattr(flags, name) is not None and getattr(flags, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return flags


def configure(threads: int) -> None:
    """Run-time settings of the product, and as many threads as the peer has; before jax.

    Args:
      threads: of either side.
    """
    os.environ["NPROC"] = str(threads)
    # The peer's process has its part of an accelerator's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    processors = sorted(os.sched_getaffinity(0))
    if threads < len(processors):
        os.sched_setaffinity(0, processors[:threads])
    commands.configure_runtime()


def write(flags: argparse.Namespace, rows: Sequence[Any]) -> None:
    """Writes the JSON.

    Args:
      flags: see `parsed`.
      rows: of the parts that are done.
    """
    from mskjax.reporting.environment import environment
    from mskjax.writers import write_json

    settings = {k: v for k, v in vars(flags).items() if k != "output"}
    own = {**environment(), "instructions": instructions(), "peer": peer_environment(flags.threads)}
    content = {"settings": settings, "environment": own, "rows": [r.as_json() for r in rows]}
    write_json(flags.output, content)


def check_part(part: str) -> None:
    """Raises UserError if a part has no module."""
    if not module(part).exists():
        raise UserError(f"--parts: {part} is not here; it would be {module(part)}.")


def module(part: str) -> Path:
    """Where a part lies."""
    return Path(__file__).with_name(f"speed_{part}.py")


def instructions() -> list[str]:
    """Vector instructions of the processor, as Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    words = next((x.split() for x in lines if x.startswith(("flags", "Features"))), [])
    return sorted(w for w in words if w.startswith(("avx", "amx", "asimd", "fma", "sve")))


@functools.cache
def peer_environment(threads: int) -> dict[str, Any] | None:
    """Version and threads of torch; None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    from speed_peer import Peer

    with Peer(threads) as peer:
        return dict(peer.ask("environment"))


if __name__ == "__main__":
    sys.exit(main())
