"""The training examples of one stage, cut once and read by folds, restarts and other studies.

They lie in ``prepared/<stage>-<key>/`` of the packaged cohort, memory-mapped, so that memory does
not grow with the cohort.  The key is a hash of whatever they depend on (`key_of`): examples of
other options, another cohort or other code lie beside them.  A folder is safe to delete while no
study runs: what is needed is cut again.
"""

import dataclasses
import errno
import functools
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mskjax.imaging
from mskjax.data import pipeline, shards, splits
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.progress import say

FOLDER = "prepared"
_FORMAT = 1  # of the folder
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class Rows(np.lib.mixins.NDArrayOperatorsMixin):
    """Some rows of an array, which are read when they are asked for.

    Arithmetic and comparisons read all of them.

    Args:
      array: N rows, in memory or memory-mapped.
      numbers: of the rows.
    """

    def __init__(self, array: Any, numbers: np.ndarray):
        self._array, self._numbers = array, np.asarray(numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self._array[self._numbers[rows]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        own = (np.asarray(x) if isinstance(x, Rows) else x for x in inputs)
        return getattr(ufunc, method)(*own, **kwargs)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the rows together."""
        return (len(self), *self._array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Of the array."""
        return self._array.dtype

    @property
    def nbytes(self) -> int:
        """Of the rows together."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def rows_of(examples: Examples, numbers: np.ndarray) -> Examples:
    """The examples with the given numbers, without a copy; `pipeline.take` copies."""
    return {name: Rows(values, numbers) for name, values in examples.items()}  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The training examples of one stage, of the whole cohort.

    Attributes:
      examples: arrays with N rows, memory-mapped.
      patients: N patient ids.
      cases: N case ids, or None where examples are not graded cases.
    """

    examples: Examples
    patients: np.ndarray
    cases: np.ndarray | None

    def rows(self, fold: splits.Fold, part: str) -> np.ndarray:
        """Numbers of the examples of one part (``train``, ``validation``, ``test``) of a fold."""
        if fold.cases is not None and self.cases is not None:
            inside = [fold.cases.get(str(c)) == part for c in self.cases]
        else:
            inside = list(np.isin(self.patients, getattr(fold, part)))
        return np.flatnonzero(inside)

    def training_rows(self, fold: splits.Fold, title: str) -> np.ndarray:
        """Numbers of the training examples of a fold.

        Raises:
          UserError: it has none.
        """
        chosen = self.rows(fold, "train")
        if not len(chosen):
            raise UserError(
                f"{title}: no training example among {len(fold.train)} patients; give a division"
                " with patients who have what this stage learns from."
            )
        return chosen


@dataclasses.dataclass(frozen=True)
class Cutting:
    """Cuts the studies of a cohort for a stage; can be pickled.

    Attributes:
      stage: see `training.stage.Stage.cutting`.
      studies: of the cohort.
    """

    stage: Any
    studies: Sequence[Mapping[str, Any]]

    def __call__(self, number: int) -> Examples | None:
        """The examples of a study."""
        return self.stage.training_examples(self.studies[number])


def prepare(
    stage: str,
    key: Mapping[str, Any],
    cut: shards.Cut,
    patients: Sequence[str],
    folders: Sequence[Path],
) -> Prepared:
    """The training examples of a stage: found, or cut together with other processes.

    Args:
      stage: its name.
      key: whatever the examples depend on, JSON.
      cut: number of a study -> its examples, ``case`` with their ids among them where they are
        graded cases; None where it has none.
      patients: the patient of each study of the cohort.
      folders: where ``<stage>-<key>`` may lie: the first that can be written is taken.

    Raises:
      UserError: there is no example; or the disk is full.
    """
    text = json.dumps(key, sort_keys=True, default=repr)
    name = f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    for folder in (above / name for above in folders):
        if (stored := shards.load(folder)) is not None:
            return _said(stage, stored, folder, "cut before, ", patients)
    for above in folders:
        folder = above / name
        try:
            stored = shards.make(folder, stage, cut, len(patients), json.loads(text))
        except OSError as error:
            if error.errno not in _FORBIDDEN or above == folders[-1]:
                raise
            say(f"{above} cannot be written; examples are kept in {folders[-1]}")
            continue
        return _said(stage, stored, folder, "", patients)
    raise AssertionError("no folder was given")


def _said(
    stage: str, stored: shards.Stored, folder: Path, how: str, patients: Sequence[str]
) -> Prepared:
    say(
        f"stage {stage}: {pipeline.count(stored.examples)} examples, {how}"
        f"{stored.nbytes / 1e6:.0f} MB in {folder}"
    )
    owners = np.repeat(np.array(patients), stored.counts)
    return Prepared(stored.examples, owners, stored.cases)


def key_of(
    fingerprint: str, options: Mapping[str, Any], classes: Sequence[type], **more: Any
) -> dict[str, Any]:
    """Whatever the examples of a stage depend on.

    Args:
      fingerprint: of the cohort: the content of its studies.
      options: of the stage, as far as it reads them when it cuts.
      classes: whose code cuts, the first being the stage's.
      **more: e.g. the seed of shuffled labels.
    """
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in classes]
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy")}
    return {
        "format": _FORMAT,
        "cohort": fingerprint,
        "stage": names[0],
        "options": dict(options),
        "code": code_of(classes),
        "versions": versions,
        **more,
    }


def code_of(classes: Iterable[type]) -> str:
    """Hash of the code that cuts: the folders of these classes' modules, and `mskjax.imaging`.

    Whoever changes a line there cuts anew: a number that has to be raised by hand is forgotten.
    `mskjax.training` and the standard library, where the last of the bases are, cut nothing.
    """
    modules = {cls.__module__ for cls in classes} - {"abc", "builtins", "mskjax.training.stage"}
    files = [sys.modules[name].__file__ for name in modules]
    folders = {Path(file).parent for file in files if file} | {Path(mskjax.imaging.__path__[0])}
    digests = sorted(_digest(folder) for folder in folders)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@functools.cache
def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()
