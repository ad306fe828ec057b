"""Part ``metrics`` of `speed.py`: surfaces of masks, and the bootstrap over patients.

* Surfaces: Dice, NSD at 1 mm, HD95 and ASSD of one 3-D structure, by the functions that score a
  study, beside MONAI's four functions (a call each, as its documentation shows) and beside a
  distance transform of the whole volume by SciPy.  All give the same four numbers.
* Bootstrap: quadratic kappa, balanced accuracy and AUROC of graded discs, 10,000 resamples of
  patients by `intervals.patient_bootstrap`, drawing and percentiles included, beside a plain loop
  of scikit-learn.  The loop does a few resamples, its time is scaled; it is given its draws, makes
  the cases of each, and takes no percentile.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from speed_rows import Row
from speed_turns import check_there, in_turn

from mskjax.metrics import classification, intervals, paired, segmentation, surfaces
from mskjax.progress import say

RESAMPLES = 10_000
LOOPED = 50  # resamples that the peer does; its time is linear in them
CLASSES = 5
DISCS = 6
PATIENTS = (30, 300)
TOLERANCE_MM = 1.0
# Name -> voxels, millimetres, half axes as a share of the field of view.
MASKS = {
    "disc": ((15, 512, 512), (4.0, 0.55, 0.55), (0.3, 0.02, 0.06)),
    "vertebrae": ((15, 512, 512), (4.0, 0.55, 0.55), (0.3, 0.4, 0.08)),
    "muscle": ((15, 512, 512), (4.0, 0.55, 0.55), (0.45, 0.3, 0.3)),
    "isotropic bone": ((128, 128, 128), (1.0, 1.0, 1.0), (0.35, 0.35, 0.35)),
}
QUICK = {"disc": ((5, 96, 64), (4.0, 1.5, 1.5), (0.3, 0.2, 0.2))}

Data = Mapping[str, Any]


def measure(flags: argparse.Namespace) -> list[Row]:
    """Rows of surfaces and of the bootstrap.

    Args:
      flags: ``rounds`` and ``quick``.

    Raises:
      UserError: torch, MONAI or scikit-learn is not installed.
    """
    check_there("torch", "monai", "sklearn")
    return [*_surface_rows(flags), *_bootstrap_rows(flags)]


# --------------------------------------------------------------------------------------------
# Surfaces

Masks = tuple[np.ndarray, np.ndarray, Sequence[float]]


def masks(
    shape: Sequence[int], spacing: Sequence[float], half: Sequence[float], seed: int = 0
) -> Masks:
    """Two ragged ellipsoids that differ as readers do, bool, and their spacing in mm.

    Args:
      shape: voxels.
      spacing: mm.
      half: half axes as shares of the field of view.
      seed: of the raggedness.
    """
    rng = np.random.default_rng(seed)
    axes = [(np.arange(n) / n - 0.5) / own for n, own in zip(shape, half, strict=True)]
    radius = sum(np.square(x) for x in np.ix_(*axes))

    def ragged() -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.normal(size=shape), [1, *[3] * (len(shape) - 1)])
        return radius + 0.1 * noise / noise.std() < 1

    return ragged(), ragged(), spacing


def surfaces_of_ours(
    reference: np.ndarray, predicted: np.ndarray, spacing: Sequence[float]
) -> tuple[float, ...]:
    """Dice, NSD, HD95, ASSD as a study is scored."""
    matrix = segmentation.confusion_counts(reference, predicted, 2)
    found = surfaces.surface_metrics(reference, predicted, spacing, TOLERANCE_MM)
    dice = float(segmentation.dice(segmentation.counts_of(matrix, 1)))
    return dice, found["nsd"], found["hd95"], found["assd"]


def surfaces_of_monai(
    reference: np.ndarray, predicted: np.ndarray, spacing: Sequence[float]
) -> tuple[float, ...]:
    """The same by MONAI."""
    import torch
    from monai import metrics

    truth, found = (torch.as_tensor(m)[None, None] for m in (reference, predicted))
    own = {"include_background": True, "spacing": list(spacing)}
    values = (
        metrics.compute_dice(found, truth),
        metrics.compute_surface_dice(found, truth, [TOLERANCE_MM], **own),
        metrics.compute_hausdorff_distance(found, truth, percentile=95, **own),
        metrics.compute_average_surface_distance(found, truth, symmetric=True, **own),
    )
    return tuple(map(float, values))


def surfaces_of_scipy(
    reference: np.ndarray, predicted: np.ndarray, spacing: Sequence[float]
) -> tuple[float, ...]:
    """The same by distance transforms of the whole volume."""
    borders = [m & ~ndimage.binary_erosion(m) for m in (reference, predicted)]
    away = [ndimage.distance_transform_edt(~border, spacing) for border in borders]
    directed = away[1][borders[0]], away[0][borders[1]]
    pooled = np.concatenate(directed)
    dice = 2 * np.sum(reference & predicted) / (reference.sum() + predicted.sum())
    worst = max(np.percentile(d, 95) for d in directed)
    return float(dice), float(np.mean(pooled <= TOLERANCE_MM)), float(worst), float(pooled.mean())


PEERS = {"MONAI": surfaces_of_monai, "SciPy, whole volume": surfaces_of_scipy}


def _surface_rows(flags: argparse.Namespace) -> list[Row]:
    rows = []
    for name, of in (QUICK if flags.quick else MASKS).items():
        own = masks(*of)
        for peer, theirs in PEERS.items():
            theirs(*own)
            pairs = in_turn(_call(surfaces_of_ours, own), _call(theirs, own), flags.rounds)
            size = f"{' x '.join(map(str, of[0]))}, {int(own[0].sum())} voxels inside"
            what = "Dice, NSD, HD95, ASSD"
            rows.append(Row("metrics", f"surfaces, {name}", what, size, "mskjax", peer, pairs))
            say(f"surfaces, {name}, {peer}: {rows[-1].ratio:.2f}")
    return rows


def _call(function: Callable[..., object], arguments: Sequence[Any]) -> Callable[[], object]:
    return lambda: function(*arguments)


# --------------------------------------------------------------------------------------------
# The bootstrap


def kappa(data: Data, weights: Any) -> Any:
    """Quadratic weighted kappa, for `patient_bootstrap`."""
    return classification.quadratic_weighted_kappa(_matrix(data, weights))


def balanced_accuracy(data: Data, weights: Any) -> Any:
    """Balanced accuracy, for `patient_bootstrap`."""
    return classification.balanced_accuracy(_matrix(data, weights))


def auroc(data: Data, weights: Any) -> Any:
    """AUROC of the upper classes, for `patient_bootstrap`."""
    return classification.auroc(data["score"], data["positive"], weights)


def _matrix(data: Data, weights: Any) -> Any:
    return classification.confusion_matrix(data["reference"], data["predicted"], CLASSES, weights)


FIGURES = {"quadratic kappa": kappa, "balanced accuracy": balanced_accuracy, "AUROC": auroc}


def graded(patients: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Graded discs with scores, and the patient of each.

    Args:
      patients: of `DISCS` discs each.
      seed: of grades and scores.
    """
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, CLASSES, patients * DISCS).astype(np.int32)
    score = (reference + rng.normal(0, 1, len(reference))).astype(np.float32)
    predicted = np.clip(np.round(score), 0, CLASSES - 1).astype(np.int32)
    data: dict[str, np.ndarray] = {
        "reference": reference,
        "predicted": predicted,
        "score": score,
        "positive": reference >= CLASSES // 2,
    }
    return data, np.repeat(np.arange(patients), DISCS)


def looped(name: str, data: Data, patients: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(R,) a figure by scikit-learn on each resample.

    Args:
      name: of `FIGURES`.
      data: see `graded`.
      patients: (N,) number of the patient of each case.
      drawn: (R, P) how often each patient is drawn.
    """
    from sklearn import metrics  # type: ignore[import-untyped]

    reference, predicted = data["reference"], data["predicted"]
    found = []
    for times in drawn:
        rows = np.repeat(np.arange(len(patients)), times[patients].astype(int))
        if name == "quadratic kappa":
            value = metrics.cohen_kappa_score(reference[rows], predicted[rows], weights="quadratic")
        elif name == "balanced accuracy":
            value = metrics.balanced_accuracy_score(reference[rows], predicted[rows])
        else:
            value = metrics.roc_auc_score(data["positive"][rows], data["score"][rows])
        found.append(value)
    return np.array(found)


def _bootstrapped(*arguments: Any) -> object:
    """`intervals.patient_bootstrap` with draws of its own, which a report keeps."""
    paired.multiplicities.cache_clear()
    return intervals.patient_bootstrap(*arguments)


def _bootstrap_rows(flags: argparse.Namespace) -> list[Row]:
    rows = []
    resamples, some = (500, 5) if flags.quick else (RESAMPLES, LOOPED)
    for count in PATIENTS[:1] if flags.quick else PATIENTS:
        data, patients = graded(count)
        drawn = paired.multiplicities(count, some, 0)
        for name, figure in FIGURES.items():
            ours = _call(_bootstrapped, (figure, data, patients, resamples))
            theirs = _call(looped, (name, data, patients, drawn))
            ours(), theirs()
            pairs = in_turn(ours, theirs, flags.rounds, some / resamples)
            what = f"{resamples} resamples (peer: {some}, scaled)"
            size = f"{count} patients x {DISCS} discs"
            row = Row(
                "metrics", f"bootstrap, {name}", what, size, "mskjax", "scikit-learn, loop", pairs
            )
            rows.append(row)
            say(f"bootstrap, {name}, {count} patients: {row.ratio:.1f}")
    return rows
