"""Part ``study`` of `speed.py`: the trainings of default studies, from nothing to the end.

Of each stage of two phantom variants, on the examples that the product itself cuts: the product's
`fit`, its compilation, augmentation, averages, validation and checkpoints included, beside as many
steps of that batch written in torch, with a plain augmentation and nothing else.  Ours is a process
of its own with a cache of compiled programs that is empty (``cold``), then one that finds them
there (``warm``).  Not counted on either side: start of Python, imports, cutting.

Run as a script, this file is that process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import default_stage
import numpy as np
from speed_peer import Peer, named
from speed_rows import Row

STUDIES = ("fatty_infiltration", "disc_degeneration")
STAGES = ("regions", "grades")
QUICK_STEPS = 20
ROUNDS_EACH = 3  # a training is long: a third of the rounds


def measure(flags: argparse.Namespace) -> list[Row]:
    """Rows of all stages, cold and warm.

    Args:
      flags: ``rounds``, ``quick``, ``threads``, ``steps``.

    Raises:
      UserError: torch is not installed.
    """
    from mskjax.progress import say

    steps = flags.steps or (QUICK_STEPS if flags.quick else None)
    rows = []
    with Peer(flags.threads) as peer, tempfile.TemporaryDirectory() as folder:
        for study in STUDIES:
            for stage in STAGES:
                rows += _stage(f"{study}/{stage}", steps, peer, Path(folder), flags.rounds)
                say(f"{study}/{stage}: {rows[-2].ratio:.2f} cold, {rows[-1].ratio:.2f} warm")
    return rows


def _stage(name: str, steps: int | None, peer: Peer, folder: Path, rounds: int) -> list[Row]:
    """Two rows of a stage."""
    path = folder / f"{name.replace('/', '_')}.npz"
    told = ours(name, steps, path, folder / "unused", cut_only=True)
    best = peer.fastest(told["spec"], ("training step",))["training step"]
    pairs: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    for _ in range(max(1, round(rounds / ROUNDS_EACH))):
        with tempfile.TemporaryDirectory() as cache:
            took = [ours(name, steps, path, Path(cache))["seconds"] for _ in pairs]
        peer.prepare(told["spec"], best)
        theirs = peer.ask("train", path=str(path), steps=told["steps"], patch=told["patch"])
        for own, cost in zip(pairs.values(), took, strict=True):
            own.append((cost, theirs))
    peer.ask("forget")
    size = f"{told['steps']} steps of {' x '.join(map(str, told['spec']['shape']))}"
    return [
        Row("study", name, f"training, {k}", size, "mskjax", named(best), tuple(own))
        for k, own in pairs.items()
    ]


def ours(
    name: str, steps: int | None, path: Path, cache: Path, cut_only: bool = False
) -> dict[str, Any]:
    """What our process says: ``seconds`` of the training, or the peer's ``spec``.

    Args:
      name: STUDY/STAGE.
      steps: instead of the recipe's.
      path: gets the examples, if `cut_only`.
      cache: of compiled programs.
      cut_only: whether examples are cut for the peer, and nothing is trained.
    """
    more = {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    more["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"  # as the commands have it
    request = json.dumps([name, steps, str(path), cut_only])
    done = subprocess.run(
        [sys.executable, __file__, request],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **more},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --------------------------------------------------------------------------------------------
# In our process


def _train_or_cut(name: str, steps: int | None, path: Path, cut_only: bool) -> dict[str, Any]:
    import dataclasses

    import jax

    from mskjax.data import pipeline
    from mskjax.training.mesh import data_mesh

    stage, examples = default_stage.cut(name)
    config = stage.train
    if steps is not None:
        due = {"validate_every": steps, "checkpoint_every": steps}
        warm = min(config.warmup_steps, steps - 1)
        config = dataclasses.replace(config, steps=steps, warmup_steps=warm, **due)
        options = dataclasses.replace(stage.options, train=config)
        stage = dataclasses.replace(stage, options=options)
    if cut_only:
        spec = _spec(stage, examples)
        np.savez(path, **_for_torch(examples))
        patch = list(stage.options.patch) if spec["kind"] == "masks" else None
        return {"spec": spec, "steps": config.steps, "patch": patch}
    mesh = data_mesh(1)
    jax.block_until_ready(jax.numpy.zeros(1))  # the back end has started
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        _fit(stage, examples, mesh, Path(folder))
        return {"seconds": time.perf_counter() - start, "examples": pipeline.count(examples)}


def _fit(stage: Any, examples: Any, mesh: Any, folder: Path) -> None:
    from mskjax.data.pipeline import count, take
    from mskjax.evaluation import validate
    from mskjax.training.loop import fit
    from mskjax.training.member import Job
    from mskjax.training.program import Program

    job = Job(
        program=Program(stage, mesh),
        examples=examples,
        chosen=np.arange(count(examples)),
        validation=take(examples, np.arange(max(1, count(examples) // 10))),  # as by default
        folder=folder / "stage",
        seed=0,
        title=stage.name,
    )
    (failure,) = fit([job], validate, threading.Event())
    if failure is not None:
        raise failure


def _spec(stage: Any, examples: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the peer builds for a stage, see `speed_torch_steps`."""
    from speed_cases import grader_spec, image_spec, unet_spec

    shape, model = examples["image"].shape[1:], stage.options.model
    batch = stage.train.batch_size
    if stage.name == "regions":
        seen = [min(p, n) for p, n in zip(stage.options.patch, shape, strict=False)]
        return unet_spec((batch, *seen, shape[-1]), model, len(stage.structures) + 1)
    make = grader_spec if len(shape) == 4 else image_spec
    return make((batch, *shape), model, {h.name: h.classes for h in stage.heads})


def _for_torch(examples: dict[str, np.ndarray]) -> dict[str, Any]:
    """Labels as class numbers, int64."""
    from mskjax.stages.slice_segmentation import classes_of

    found = {k: np.asarray(v, np.int64) for k, v in examples.items() if k.startswith("target_")}
    if "label" in examples:
        found["label"] = np.asarray(classes_of(examples["label"]), np.int64)
    return {"image": np.asarray(examples["image"], np.float32), **found}


if __name__ == "__main__":
    from mskjax import commands

    commands.configure_runtime()
    _name, _steps, _path, _cut_only = json.loads(sys.argv[1])
    print(json.dumps(_train_or_cut(_name, _steps, Path(_path), _cut_only)))
