"""How well boxes are found: matching, average precision, and figures at an operating point.

One class at a time.  Matching is done once per image on the host; everything after it is a
function of arrays and image weights, so the patient bootstrap is a ``vmap`` over weights.
"""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from mskjax.imaging.boxes import iou_matrix
from mskjax.metrics.intervals import patient_bootstrap

# COCO's ten thresholds, .50 to .95.
IOU_THRESHOLDS = tuple((50 + 5 * k) / 100 for k in range(10))
CLOSE_IOU = 0.7  # a pair above this is well placed
SURE = 0.9  # a detection above this is sure of itself


class ImageBoxes(NamedTuple):
    """Detections and reference boxes of one image, padding removed.

    Attributes:
      boxes: (D, 4) detections, see `imaging.boxes`.
      scores: (D,) finite confidence.
      reference: (G, 4) reference boxes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    reference: np.ndarray


class Matches(NamedTuple):
    """The reference box of each detection.

    Attributes:
      reference: (D,) int number of the reference box, -1 for a false positive.
      iou: (D,) float overlap of the pair, 0 where there is none.
    """

    reference: np.ndarray
    iou: np.ndarray


def match_detections(
    boxes: np.ndarray, scores: np.ndarray, reference: np.ndarray, iou: float
) -> Matches:
    """Pairs detections with reference boxes, greedily by descending score, as COCO does.

    Each detection takes the reference box that it overlaps most of those not yet taken, if their
    IoU is at least `iou`.  So a second detection of the same object is a false positive.  Of
    equal scores the earlier detection chooses first.

    Args:
      boxes: (D, 4) detections.
      scores: (D,).
      reference: (G, 4) reference boxes.
      iou: threshold in (0, 1].

    Raises:
      ValueError: arrays of other shapes, a score that is not finite, or a threshold outside (0, 1].
    """
    boxes, reference = np.asarray(boxes, np.float64), np.asarray(reference, np.float64)
    scores = np.asarray(scores, np.float64)
    if boxes.shape != (len(scores), 4) or reference.shape != (len(reference), 4):
        raise ValueError(
            f"{boxes.shape} boxes with {scores.shape} scores, {reference.shape} reference boxes"
        )
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite; leave padding out")
    if not 0 < iou <= 1:
        raise ValueError(f"IoU threshold {iou} is not in (0, 1]")
    matches = Matches(np.full(len(boxes), -1), np.zeros(len(boxes)))
    overlap = iou_matrix(boxes, reference)
    for d in np.argsort(-scores, kind="stable") if len(reference) else ():
        best = overlap[d].argmax()
        if overlap[d, best] >= iou:
            matches.reference[d], matches.iou[d] = best, overlap[d, best]
            overlap[:, best] = -1
    return matches


def average_precision(
    scores: ArrayLike,
    tp: ArrayLike,
    image: ArrayLike,
    references: ArrayLike,
    weights: ArrayLike | None = None,
    points: int | None = None,
) -> jax.Array:
    """Area under the precision-recall curve of detections pooled over images.

    AP = sum over ranked detections of (r_i - r_{i-1}) max_{j >= i} p_j, with recall r and
    precision p among the detections down to a score (all-point interpolation, Everingham et al.
    2015).  Detections of equal score enter together, so their order does not matter.

    Args:
      scores: (D,) confidence; -inf with ``tp`` 0 marks padding.
      tp: (D,) 1 for a true, 0 for a false positive.
      image: (D,) int, the image of each detection.
      references: (I,) number of reference boxes of each image.
      weights: (I,) image weights; k counts an image k times.  None: ones.
      points: None for all points; 101 for the mean precision at recall 0, .01, ... 1 (COCO).

    Returns:
      () float32 in [0, 1]; 0 without detections, NaN without reference boxes.
    """
    scores, tp = jnp.asarray(scores, jnp.float32), jnp.asarray(tp, jnp.float32)
    references = jnp.asarray(references, jnp.float32)
    weights = jnp.ones_like(references) if weights is None else jnp.asarray(weights, jnp.float32)
    order = jnp.argsort(scores, descending=True, stable=True)
    ranked, tp = scores[order], tp[order]
    own = weights[jnp.asarray(image, jnp.int32)[order]]
    # Inside a run of equal scores there is no threshold.
    last = jnp.append(ranked[1:], jnp.nan) != ranked
    total = jnp.sum(weights * references)

    # Recall in units of its finest step, so that a perfect detector has exactly 1.
    def reached(true: jax.Array) -> jax.Array:
        if points is None:
            return true
        return jnp.floor(true * (points - 1) / total) + 1  # points k with k / (points - 1) <= r

    # From the lowest score up, so that one pass gives the greatest precision to come and the sum.
    # Cumulative sums over whole arrays take nine times as long under the bootstrap on CPU.
    def step(state: tuple[jax.Array, ...], x: tuple[jax.Array, ...]) -> tuple[Any, None]:
        true, both, envelope, area = state
        weight, hit, threshold = x
        precision = jnp.where(threshold & (both > 0), true / jnp.where(both > 0, both, 1.0), 0.0)
        envelope = jnp.maximum(envelope, precision)
        before = true - weight * hit
        area = area + (reached(true) - reached(before)) * envelope
        return (before, both - weight, envelope, area), None

    zero = jnp.zeros((), jnp.float32)
    start = (jnp.sum(own * tp), jnp.sum(own), zero, zero)
    (_, _, highest, area), _ = lax.scan(step, start, (own, tp, last), reverse=True)
    # Recall 0 is reached by all, which counts where recalls are points.
    area = (area + reached(zero) * highest) / (total if points is None else points)
    return jnp.where(total > 0, area, jnp.nan)


def detection_estimates(
    images: Sequence[ImageBoxes],
    patients: Sequence[Hashable],
    resamples: int,
    seed: int,
    confidence: float,
) -> dict[str, Any]:
    """Figures of a detector with patient-bootstrap intervals.

    Average precision uses all detections; the others only those with a score of at least
    `confidence`, paired at IoU .5.

    Args:
      images: detections and reference boxes of each image; either may be empty.
      patients: the patient of each image.
      resamples: of the bootstrap.
      seed: of the bootstrap.
      confidence: the operating point.

    Returns:
      Estimates ``ap50``, ``ap75``, ``map`` (mean over `IOU_THRESHOLDS`); ``mean_iou`` of the
      pairs; ``share_iou_over_70``, the share of reference boxes with a pair above .7;
      ``mean_confidence`` of the pairs; ``share_confidence_over_90``, the share of reference boxes
      with a pair whose score is above .9; ``recall``, ``ppv`` and ``f1``; ``extra_per_image``,
      false positives.  ``n`` counts what a figure is a mean over: pairs (mean_iou,
      mean_confidence), detections (ppv), images (extra_per_image), else reference boxes.

    Raises:
      UserError: no images.
      ValueError: see `match_detections`; another number of patients.
    """
    if len(images) != len(patients):
        raise ValueError(f"{len(images)} images, but {len(patients)} patients")
    # A row per detection and one per image: images differ in their number of detections, and
    # rows waste nothing on padding.
    rows = [_rows(image, confidence) for image in images]
    data = {k: np.concatenate([r[k] for r in rows]) for k in rows[0]} if rows else {}
    of_row = [p for p, r in zip(patients, rows, strict=True) for _ in r["score"]]
    estimates = patient_bootstrap(_figures, data, of_row, resamples, seed)
    references = int(data["references"].sum())
    pairs = int((data["kept"] * data["tp"][:, 0]).sum())
    counts = {
        "mean_iou": pairs,
        "mean_confidence": pairs,
        "ppv": int(data["kept"].sum()),
        "extra_per_image": len(images),
    }
    return {
        name: dataclasses.replace(estimates[name], n=counts.get(name, references)).as_json()
        for name in _NAMES
    }


_NAMES = (
    "ap50",
    "ap75",
    "map",
    "mean_iou",
    "share_iou_over_70",
    "mean_confidence",
    "share_confidence_over_90",
    "recall",
    "ppv",
    "f1",
    "extra_per_image",
)


def _rows(image: ImageBoxes, confidence: float) -> dict[str, np.ndarray]:
    """A row per detection, and a last one that holds the reference boxes of the image."""
    matches = [match_detections(*image, iou) for iou in IOU_THRESHOLDS]
    detections = len(image.boxes)
    last = np.arange(detections + 1) == detections
    scores = np.append(np.asarray(image.scores, np.float64), -np.inf)
    tp = np.stack([np.append(m.reference >= 0, False) for m in matches], 1)
    return {
        "score": scores.astype(np.float32),
        "tp": tp.astype(np.float32),
        "kept": (scores >= confidence).astype(np.float32),
        "iou": np.append(matches[0].iou, 0.0).astype(np.float32),
        "references": np.where(last, len(image.reference), 0).astype(np.float32),
        "images": last.astype(np.float32),
    }


def _figures(data: dict[str, jax.Array], weights: jax.Array) -> dict[str, jax.Array]:
    # Each row is an image of its own here, which has one detection or some reference boxes.
    rows = jnp.arange(len(weights))

    def ap(tp: jax.Array) -> jax.Array:
        return average_precision(data["score"], tp, rows, data["references"], weights)

    precision = jax.vmap(ap, 1)(data["tp"])
    total = jnp.sum(weights * data["references"])
    kept = weights * data["kept"]
    pairs = kept * data["tp"][:, 0]
    found, detections = jnp.sum(pairs), jnp.sum(kept)
    score = jnp.where(data["tp"][:, 0] > 0, data["score"], 0.0)  # that of no detection is -inf
    return {
        "ap50": precision[0],
        "ap75": precision[IOU_THRESHOLDS.index(0.75)],
        "map": jnp.mean(precision),
        "mean_iou": jnp.sum(pairs * data["iou"]) / found,
        "share_iou_over_70": jnp.sum(jnp.where(data["iou"] > CLOSE_IOU, pairs, 0.0)) / total,
        "mean_confidence": jnp.sum(pairs * score) / found,
        "share_confidence_over_90": jnp.sum(jnp.where(score > SURE, pairs, 0.0)) / total,
        "recall": found / total,
        "ppv": found / detections,
        "f1": 2 * found / (total + detections),
        "extra_per_image": (detections - found) / jnp.sum(weights * data["images"]),
    }
