"""What a fold was trained on: geometry, intensities, scanner and person of each training study.

A new study that lies outside is flagged (`mskjax.quality`), and an external cohort is set beside
these studies (`mskjax.shift`).  Each fold keeps a row a training study, ``fold_<k>/profile.csv``,
written when its baselines have read these studies; nothing is read for it alone.

Intensities of MR have no unit: gain, coil and software scale them.  So a scanner of another gain
must not look unlike the training studies, and another contrast must.  The ``p1``, ``p50`` and
``p99`` of a volume are kept for reference; what is compared has no scale.  On ``(v - p1) /
(p99 - p1)``, clipped to [0, 1]:

* ``median`` of all voxels, low where air is dark;
* ``body``, the median of the voxels brighter than the mean, the tissue;
* ``mean``, how much is bright.

They find an inverted image and one that was windowed otherwise.  They do not tell T1 from T2
(docs/calibration.md has the figures): which sequence an image is, its header says.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mskjax import subgroups
from mskjax.tables import Row, floats, read_rows, write_rows
from mskjax.training.stage import Study
from mskjax.two_stage.system import sized, spacing_of
from mskjax.workdir import PROFILE, folds_in

SHAPE = ("median", "body", "mean")  # of the histogram of a volume
LENGTHS = ("spacing_slice_mm", "spacing_row_mm", "spacing_col_mm", "fov_row_mm", "fov_col_mm")
COUNTS = ("slices", "rows", "cols")
_USUAL = (5.0, 95.0)  # percentiles
_ENDINGS = tuple(f"_{name}" for name in ("p1", "p50", "p99", *SHAPE))
_SAMPLED = 200_000  # voxels of a volume; percentiles of more are the same to three digits


class Range(NamedTuple):
    """What a quantity was in the training studies.

    Attributes:
      low, high: least and greatest.
      usual: 5th and 95th percentile.
      n: studies that say.
    """

    low: float
    high: float
    usual: tuple[float, float]
    n: int


def measure(study: Study) -> Row:
    """The row of one study; no label is looked at.

    Args:
      study: as a cohort's builder reads it, with the values of its volumes.  Its images are its
        arrays of three axes of real numbers.

    Returns:
      ``patient``, ``study``, `COUNTS`, `LENGTHS` (empty where the pixel size is not known), of each
      image ``<name>_p1``, ``_p50``, ``_p99`` and those of `SHAPE` (empty where it has one intensity
      alone), and the columns of `subgroups`.
    """
    volumes = {name: v for name, v in study.items() if _is_image(v)}
    first = next(iter(volumes.values()))
    row: Row = {"patient": study["patient_id"], "study": study["study_id"]}
    row |= dict(zip(COUNTS, first.shape, strict=True))
    lengths: list[Any] = [""] * len(LENGTHS)
    if sized(study):
        spacing = spacing_of(study)
        lengths = [_rounded(v) for v in (*spacing, *(spacing * first.shape)[1:])]
    row |= dict(zip(LENGTHS, lengths, strict=True))
    for name, volume in volumes.items():
        row |= {f"{name}_{key}": value for key, value in _intensities(volume).items()}
    return row | subgroups.columns(study)


def watched(studies: Iterable[Study], rows: list[Row]) -> Iterator[Study]:
    """The studies as they are read by somebody else, each measured as it passes.

    Args:
      studies: of the training patients, one after the other.
      rows: gets the row of each.
    """
    for study in studies:
        rows.append(measure(study))
        yield study


def write(folder: Path, rows: list[Row], left: Iterator[Study]) -> None:
    """Writes ``profile.csv`` of a fold.

    Args:
      folder: ``fold_<k>``.
      rows: see `watched`.
      left: what `watched` gave; what nobody has read of it is read now.
    """
    for _ in left:
        pass
    write_rows(folder / PROFILE, rows)


def read(run: Path, folds: Sequence[int] | None = None) -> list[Row]:
    """The training studies of a run, each once, values as text.

    Args:
      run: folder of a study; of several seeds, the first has the same studies as the others.
      folds: numbers; None gives all.  In cross-validation they have all patients together.

    Returns:
      Rows; none of a run that was trained before profiles were kept.
    """
    seeds = sorted(run.glob("seed_*"))
    top = seeds[0] if seeds else run
    numbers = folds if folds is not None else folds_in(top)
    paths = [top / f"fold_{k}" / PROFILE for k in numbers]
    rows = [row for path in paths if path.exists() for row in read_rows(path)]
    return list({row["study"]: row for row in rows}.values())


def ranges(rows: Sequence[Row]) -> dict[str, Range]:
    """Ranges of every quantity that is a number, over the studies that say.

    Args:
      rows: of `read` or `measure`.
    """
    names = [*COUNTS, *LENGTHS]
    names += [c for c in dict.fromkeys(k for r in rows for k in r) if c.endswith(_ENDINGS)]
    found = {}
    for name in names:
        values = floats(rows, name)
        values = values[~np.isnan(values)]
        if len(values):
            usual = np.percentile(values, _USUAL).tolist()
            ends = float(values.min()), float(values.max())
            found[name] = Range(*ends, (usual[0], usual[1]), len(values))
    return found


def images_of(names: Mapping[str, Any]) -> list[str]:
    """Names of the images that ranges, or a row, have something of."""
    return [n.removesuffix("_p50") for n in names if n.endswith("_p50")]


def _is_image(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype.kind == "f"


def _intensities(volume: np.ndarray) -> Row:
    values = np.asarray(_sample(volume), np.float64)
    p1, p50, p99 = np.percentile(values, [1, 50, 99])
    row: Row = {"p1": _rounded(p1), "p50": _rounded(p50), "p99": _rounded(p99)}
    if not p99 > p1:
        return row | dict.fromkeys(SHAPE, "")
    body = values[values > values.mean()]
    marks = (p50, np.median(body), np.clip(values, p1, p99).mean())
    shape = [(mark - p1) / (p99 - p1) for mark in marks]
    return row | {name: _rounded(v) for name, v in zip(SHAPE, shape, strict=True)}


def _sample(volume: np.ndarray) -> np.ndarray:
    """Voxels at even steps that are in step with neither rows nor slices."""
    step = -(-volume.size // _SAMPLED)
    while step > 1 and math.gcd(step, math.prod(volume.shape[1:])) > 1:
        step += 1
    return volume.reshape(-1)[::step]


def _rounded(value: Any) -> float:
    return float(f"{float(value):.6g}")
