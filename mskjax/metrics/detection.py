"""How well boxes are found: matching, average precision, and figures at an operating point.

One class at a time.  Matching is done once per image; everything after it is a function of arrays
and weights of images.
"""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mskjax.imaging.boxes import iou_matrix
from mskjax.metrics.intervals import patient_bootstrap
from mskjax.metrics.weights import Weights, of_cases, ratio, running, sums

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
    weights: Weights = None,
    points: int | None = None,
) -> np.ndarray:
    """Area under the precision-recall curve of detections pooled over images.

    AP = sum over ranked detections of (r_i - r_{i-1}) max_{j >= i} p_j, with recall r and
    precision p among the detections down to a score (all-point interpolation, Everingham et al.
    2015).  Detections of equal score enter together, so their order does not matter.

    Args:
      scores: (D,) confidence; -inf with ``tp`` 0 is no detection.
      tp: (D,) 1 for a true, 0 for a false positive.
      image: (D,) int, the image of each detection.
      references: (I,) number of reference boxes of each image.
      weights: of the I images, see `metrics.weights`.
      points: None for all points; 101 for the mean precision at recall 0, .01, ... 1 (COCO).

    Returns:
      () float64 in [0, 1], with the columns of the weights behind; 0 without detections, NaN
      without reference boxes.
    """
    image = np.asarray(image, np.int64)
    ranking = _Ranking.of(np.asarray(scores, np.float32), image, weights)
    total = sums(references, weights)
    return _average_precision(ranking, np.asarray(tp) > 0, image, weights, total, points)


class _Ranking(NamedTuple):
    """Detections by descending score.

    Attributes:
      order: (D,) numbers of detections.
      down: (D,) float32, minus their scores, ascending.
      above: (D + 1,) weight of the first 0, 1, ... D of them.
    """

    order: np.ndarray
    down: np.ndarray
    above: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, image: np.ndarray, weights: Weights) -> "_Ranking":
        order = np.argsort(-scores, kind="stable")
        return cls(order, -scores[order], running(of_cases(image[order], weights)))


def _average_precision(
    ranking: _Ranking,
    hit: np.ndarray,
    image: np.ndarray,
    weights: Weights,
    total: np.ndarray,
    points: int | None,
) -> np.ndarray:
    """As `average_precision`, of (D,) bool `hit` and () `total` reference boxes."""
    places = np.flatnonzero(hit[ranking.order])
    own = of_cases(image[ranking.order[places]], weights)
    true, down = running(own), ranking.down[places]
    # With a false positive precision falls: its envelope lies on the thresholds of the hits.
    reached = true[np.searchsorted(down, down, "right")]
    both = ranking.above[np.searchsorted(ranking.down, down, "right")]
    precision = np.nan_to_num(ratio(reached, both))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if points is None:
        area = ratio((own * envelope).sum(0), total)
    else:
        # Points k with k / (points - 1) <= r, of which recall 0 is reached by all.
        levels = np.floor(ratio(true * (points - 1), total)) + 1
        area = (np.diff(levels, axis=0) * envelope).sum(0)
        area = (area + (envelope[0] if len(envelope) else 0.0)) / points
    return np.where(total > 0, area, np.nan)[()]


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


def _figures(data: dict[str, np.ndarray], weights: Weights) -> dict[str, np.ndarray]:
    # Each row is an image of its own here, which has one detection or some reference boxes.
    rows = np.arange(len(data["score"]))
    hit, kept, score = data["tp"] > 0, data["kept"], data["score"]
    pair = kept * hit[:, 0]
    columns = {
        "total": data["references"],
        "images": data["images"],
        "kept": kept,
        "pairs": pair,
        "iou": pair * data["iou"],
        "close": pair * (data["iou"] > CLOSE_IOU),
        "confidence": np.where(pair > 0, score, 0.0),  # that of no detection is -inf
        "sure": pair * (score > SURE),
    }
    summed = sums(np.stack([*columns.values()], 1), weights)
    of = dict(zip(columns, summed, strict=True))
    ranking = _Ranking.of(score, rows, weights)
    precision = np.stack(
        [_average_precision(ranking, own, rows, weights, of["total"], None) for own in hit.T]
    )
    return {
        "ap50": precision[0],
        "ap75": precision[IOU_THRESHOLDS.index(0.75)],
        "map": precision.mean(0),
        "mean_iou": ratio(of["iou"], of["pairs"]),
        "share_iou_over_70": ratio(of["close"], of["total"]),
        "mean_confidence": ratio(of["confidence"], of["pairs"]),
        "share_confidence_over_90": ratio(of["sure"], of["total"]),
        "recall": ratio(of["pairs"], of["total"]),
        "ppv": ratio(of["pairs"], of["kept"]),
        "f1": ratio(2 * of["pairs"], of["total"] + of["kept"]),
        "extra_per_image": ratio(of["kept"] - of["pairs"], of["images"]),
    }
