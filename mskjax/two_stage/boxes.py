"""Regions that a first stage finds as boxes, scored against reference boxes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.metrics.detection import ImageBoxes, detection_estimates
from mskjax.tables import Row, floats

Box = tuple[float, float, float, float]  # row0, col0, row1, col1, half-open, native pixels

CORNERS = ("row0", "col0", "row1", "col1")


def box_rows(found: Iterable[tuple[Any, float]], reference: Iterable[tuple[Any, Any]]) -> list[Row]:
    """Rows of cases.csv of one image: its detections and its reference boxes.

    Args:
      found: (box, score) of every detection, those that are not used included.
      reference: (box, name).
    """
    return [
        *(
            {"kind": "detection", "score": round(float(score), 6), **_corners(box)}
            for box, score in found
        ),
        *({"kind": "box", "name": name, **_corners(box)} for box, name in reference),
    ]


def box_figures(
    rows: Sequence[Row], confidence: float, settings: Mapping[str, int]
) -> dict[str, Any]:
    """Figures of detection over the images that have such rows; see `detection_estimates`.

    Args:
      rows: of cases.csv.
      confidence: score at which a detection counts, where one is chosen.
      settings: ``resamples`` and ``seed`` of the bootstrap.
    """
    images: dict[str, list[Row]] = {}
    for row in (r for r in rows if r["kind"] in ("detection", "box")):
        images.setdefault(row["study"], []).append(row)
    if not images:
        return {}
    gathered, patients = [], []
    for own in images.values():
        found = [r for r in own if r["kind"] == "detection"]
        boxes = [r for r in own if r["kind"] == "box"]
        gathered.append(ImageBoxes(_boxes(found), floats(found, "score"), _boxes(boxes)))
        patients.append(own[0]["patient"])
    return detection_estimates(gathered, patients, confidence=confidence, **settings)


def as_box(values: Any) -> Box:
    """Four numbers as a box."""
    row0, col0, row1, col1 = (float(v) for v in values)
    return row0, col0, row1, col1


def _corners(box: Any) -> Row:
    return {name: round(float(v), 3) for name, v in zip(CORNERS, box, strict=True)}


def _boxes(rows: Sequence[Row]) -> np.ndarray:
    return np.stack([floats(rows, c) for c in CORNERS], 1).reshape(-1, 4)
