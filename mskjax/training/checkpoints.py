"""Checkpoints by Orbax: the only module that knows it.

A checkpoint is (train state, position in the data, loop record).  Two folders are kept:
``latest`` to go on from, ``best`` to evaluate.  Orbax writes to a temporary name and renames, so a
process that dies while saving leaves the checkpoint before intact.
"""

import errno
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mskjax.training.state import TrainState

SPARE_BYTES = 16_000_000  # for all that is written between two saves


class Checkpoints:
    """Save and restore the state of one stage of one fold.

    Args:
      folder: ``fold_<k>/<stage>/checkpoints``.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._managers = {
            name: ocp.CheckpointManager(
                (folder / name).resolve(),
                options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True),
            )
            for name in ("latest", "best")
        }

    def save(self, kind: str, state: TrainState, record: dict[str, Any]) -> None:
        """Saves in the background.

        Args:
          kind: ``latest`` or ``best``.
          state: the train state.
          record: JSON: the data iterator's state, wall-clock so far, best loss so far.

        Raises:
          OSError: ENOSPC: the disk has no room for it.
        """
        if int(state.step) in self._managers[kind].all_steps():
            return  # a run killed between two saves comes here again, with the same bits
        self._check_space(state)
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
        """
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
        """Ends before Orbax begins: its threads report a full disk with pages of tracebacks."""
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
