"""Checkpoints by Orbax: the only module that knows it.

A checkpoint is (train state, position in the data, loop record).  Two folders are kept:
``latest`` to go on from, ``best`` to evaluate.  Orbax writes to a temporary name and renames, so a
process that dies while saving leaves the checkpoint before intact.
"""

import errno
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mskjax.errors import UserError
from mskjax.training.state import TrainState

SPARE_BYTES = 16_000_000  # for all that is written between two saves
KINDS = ("latest", "best")
# Of a stage's folder, written in this order once it is trained to its end.
ARCHITECTURE, COST = "architecture.json", "cost.json"


class _RaisedLater(logging.Filter):
    """Drops what Orbax prints of an error in the background; the next wait raises it all the same.

    A process whose peer has vanished, or whose disk is full, ends with one sentence; whether a
    save is under way at that moment is chance.
    """

    # All raise it in whoever waits.
    _MODULES = ("async_checkpointer", "checkpoint_manager", "future")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be printed."""
        return not (record.exc_info and record.module in self._MODULES)


_raised_later = _RaisedLater()


class Checkpoints:
    """Save and restore the state of one stage of one fold.

    Args:
      folder: ``fold_<k>/<stage>/checkpoints``.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        logging.getLogger("absl").addFilter(_raised_later)  # Orbax's; twice is once
        self._managers = {
            kind: ocp.CheckpointManager(
                (folder / kind).resolve(),
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=1,
                    create=True,
                    cleanup_tmp_directories=True,
                    # Both may save at one step; processes must not take one for the other.
                    multiprocessing_options=ocp.options.MultiprocessingOptions(
                        barrier_sync_key_prefix=kind
                    ),
                ),
            )
            for kind in KINDS
        }

    def save(self, kind: str, state: TrainState, record: dict[str, Any]) -> None:
        """Saves in the background; `state` may be donated as soon as this returns.

        ``latest`` is not begun before ``best`` is on disk, for its record names the best step: a
        process killed between the two would go on without it, and select other weights.

        Args:
          kind: ``latest`` or ``best``.
          state: the train state.
          record: JSON: the data iterator's state, wall-clock so far, best loss so far and its step.

        Raises:
          OSError: ENOSPC: the disk has no room for it.
        """
        if int(state.step) in self._managers[kind].all_steps():
            return  # a run killed between two saves comes here again, with the same bits
        self._check_space(state)
        if kind == "latest":
            self._managers["best"].wait_until_finished()
        self._managers[kind].save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
            ),
            force=True,
        )

    def step(self, kind: str) -> int | None:
        """Step of the stored checkpoint; None if there is none."""
        return self._managers[kind].latest_step()

    def restore(self, kind: str, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restores onto the devices of `like`, whatever number of devices saved it.

        Args:
          kind: ``latest`` or ``best``.
          like: arrays, or ShapeDtypeStructs with shardings, of the wanted state.

        Raises:
          UserError: the checkpoint is of another network.
        """
        _check_fits(self._folder.resolve() / kind / str(self.step(kind)) / "state", like)
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        manager = self._managers[kind]
        restored = manager.restore(
            manager.latest_step(),
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), record=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], restored["record"]

    def _check_space(self, state: TrainState) -> None:
        """Ends before Orbax begins, which leaves half of a checkpoint behind on a full disk."""
        needed = sum(x.nbytes for x in jax.tree.leaves(state)) + SPARE_BYTES
        if shutil.disk_usage(self._folder).free < needed:
            raise OSError(errno.ENOSPC, "no room for a checkpoint", str(self._folder))

    def wait(self) -> None:
        """Returns when all saves are on disk."""
        for manager in self._managers.values():
            manager.wait_until_finished()

    def close(self) -> None:
        """Waits and releases the background threads."""
        self.wait()
        for manager in self._managers.values():
            manager.close()


def _check_fits(path: Path, like: TrainState) -> None:
    """Whether a stored state has the arrays of the wanted one; Orbax would print both trees.

    Raises:
      UserError: naming the first array that differs.
    """
    stored, wanted = ocp.PyTreeCheckpointHandler().metadata(path).tree, {}
    for names, value in jax.tree_util.tree_leaves_with_path(like):
        wanted[jax.tree_util.keystr(names, simple=True, separator=".")] = tuple(value.shape)
    found = {
        jax.tree_util.keystr(names, simple=True, separator="."): tuple(value.shape)
        for names, value in jax.tree_util.tree_leaves_with_path(stored)
    }
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise UserError(
                f"{path} is of another network: {name} is {found.get(name, 'missing')} there and"
                f" {wanted.get(name, 'missing')} here;"
                f" remove {path.parents[3]} to train it anew, or give another --workdir."
            )


def is_trained(folder: Path) -> bool:
    """Whether the stage of ``fold_<k>/<stage>`` is trained to its end."""
    return (folder / ARCHITECTURE).exists() and (folder / COST).exists()


def selected_step(folder: Path) -> int:
    """The step whose weights a finished stage is used with, of architecture.json.

    Args:
      folder: ``fold_<k>/<stage>``.

    Raises:
      UserError: the stage is not trained to its end.
    """
    path = folder / ARCHITECTURE
    if not path.exists():
        raise UserError(f"{path} is missing: the stage is not trained; run with --mode=train.")
    return json.loads(path.read_text())["selected_step"]


def restore_variables(folder: Path, sharding: jax.sharding.Sharding | None = None) -> Any:
    """The selected weights of a finished stage, as its checkpoint describes them.

    Neither the network nor a batch is needed.

    Args:
      folder: ``fold_<k>/<stage>``.
      sharding: where the arrays go; None gives NumPy arrays.

    Returns:
      Flax collections.

    Raises:
      UserError: the stage is not trained to its end, or the checkpoint is gone.
    """
    return restore_average(folder / "checkpoints", selected_step(folder), sharding)


def restore_average(folder: Path, step: int, sharding: jax.sharding.Sharding | None = None) -> Any:
    """The average of weights at a step; the state beside it is not read.

    Args:
      folder: ``fold_<k>/<stage>/checkpoints``.
      step: of either checkpoint.
      sharding: where the arrays go; None gives NumPy arrays.

    Returns:
      Flax collections.

    Raises:
      UserError: neither checkpoint is of this step.
    """
    paths = [folder.resolve() / kind / str(step) / "state" for kind in KINDS]
    path = next((p for p in paths if p.exists()), None)
    if path is None:
        raise UserError(
            f"{folder}: no checkpoint of step {step}; remove {folder.parent} to train it again."
        )
    handler = ocp.PyTreeCheckpointHandler()
    stored = handler.metadata(path).tree["average"]
    if sharding is None:
        how = ocp.RestoreArgs(restore_type=np.ndarray)
    else:
        how = ocp.ArrayRestoreArgs(sharding=sharding)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), stored)
    arguments = ocp.args.PyTreeRestore(
        item={"average": shapes},
        restore_args={"average": jax.tree.map(lambda _: how, stored)},
        partial_restore=True,
    )
    return handler.restore(path, args=arguments)["average"]
