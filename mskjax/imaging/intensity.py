"""Intensity normalisation: pure functions of arrays, float32 out.

Only the histogram landmarks have something to fit: fit them on training patients.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

CLIPPED = (0.5, 99.5)  # percentiles between which `standardised` keeps an image
PERCENTILES = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)  # of landmarks


def none(image: np.ndarray) -> np.ndarray:
    """The values as they are, as float32."""
    return np.asarray(image, np.float32)


def min_max(image: np.ndarray) -> np.ndarray:
    """``(x - min) / (max - min)`` in [0, 1]; a constant image gives 0."""
    return _unit_range(image, float(np.min(image)), float(np.max(image)))


def percentile(image: np.ndarray, lo: float = 1.0, hi: float = 99.0) -> np.ndarray:
    """Min-max between two percentiles of the image, clipped to [0, 1].

    Args:
      image: any shape.
      lo: percentile that becomes 0.
      hi: percentile that becomes 1, greater than ``lo``.
    """
    if not 0 <= lo < hi <= 100:
        raise ValueError(f"percentiles must satisfy 0 <= lo < hi <= 100, got {lo} and {hi}")
    low, high = np.percentile(image, [lo, hi])
    return _unit_range(image, float(low), float(high))


def z_score(image: np.ndarray) -> np.ndarray:
    """Zero mean and unit (population) standard deviation; a constant image gives 0."""
    values = np.asarray(image, np.float64)
    mean, deviation = values.mean(), values.std()
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return np.zeros(values.shape, np.float32)
    return ((values - mean) / deviation).astype(np.float32)


def standardised(image: np.ndarray) -> np.ndarray:
    """The whole image with its outliers clipped, zero mean and unit deviation, float32.

    The brightest 0.5 % is surface fat near the coil: clipped, or it sets the scale.  Crops that are
    cut from it keep how bright they are beside the rest of the image.
    """
    return z_score(percentile(image, *CLIPPED))


def tissue_reference(image: np.ndarray, reference_value: float) -> np.ndarray:
    """Intensity relative to a reference tissue: ``clip(0.5 x / reference, 0, 2) / 2`` in [0, 1].

    The reference tissue comes out at 0.25.  Source: SpineNet (Jamaludin et al., Med Image Anal
    2017; Windsor et al. 2022), whose reference is the median of the two neighbouring vertebrae.

    Args:
      image: any shape, non-negative.
      reference_value: signal of the reference tissue, positive.
    """
    if not reference_value > 0:
        raise ValueError(f"the reference signal must be positive, got {reference_value}")
    scaled = np.asarray(image, np.float32) * np.float32(0.5 / reference_value)
    return np.clip(scaled, 0, 2) / np.float32(2)


def _unit_range(image: np.ndarray, low: float, high: float) -> np.ndarray:
    values = np.asarray(image, np.float64)
    if high <= low:
        return np.zeros(values.shape, np.float32)
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Landmarks:
    """A standard histogram learnt from training images (Nyul, Udupa and Zhang, TMI 2000).

    Attributes:
      percentiles: at which landmarks are measured, percent.
      standard: mean landmark values on the standard scale, where the first percentile of every
        training image lies at 0 and the last at 1.
    """

    percentiles: tuple[float, ...]
    standard: tuple[float, ...]

    @classmethod
    def fit(
        cls, images: Iterable[np.ndarray], percentiles: tuple[float, ...] = PERCENTILES
    ) -> "Landmarks":
        """Learns the standard scale; give it images of training patients only."""
        return cls.of([cls.marks(image, percentiles) for image in images], percentiles)

    @classmethod
    def of(
        cls, marks: Iterable[np.ndarray], percentiles: tuple[float, ...] = PERCENTILES
    ) -> "Landmarks":
        """As `fit`, from the `marks` of each image: those of many images fit in memory."""
        scaled = [(m - m[0]) / (m[-1] - m[0]) for m in marks if m[-1] > m[0]]
        if not scaled:
            raise ValueError("no image with more than one intensity to learn landmarks from")
        return cls(tuple(map(float, percentiles)), tuple(map(float, np.mean(scaled, axis=0))))

    @staticmethod
    def marks(image: np.ndarray, percentiles: tuple[float, ...] = PERCENTILES) -> np.ndarray:
        """Landmarks of one image on its own scale, one a percentile."""
        return _measure(image, percentiles)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Maps an image to the standard scale, piecewise linearly.

        The outer pieces go on beyond the first and last landmark, so the order of intensities is
        kept; float32, about [0, 1].
        """
        values = np.asarray(image, np.float64)
        marks = _measure(image, self.percentiles)
        # Landmarks that float32 cannot tell apart are one: their slope would be noise.
        apart = np.diff(marks) > np.finfo(np.float32).eps * np.abs(values).max()
        first = np.flatnonzero(np.concatenate([[True], apart]))
        if len(first) < 2:
            return np.zeros(values.shape, np.float32)
        marks = marks[first]
        standard = np.maximum.accumulate(np.asarray(self.standard))[first]
        slopes = np.diff(standard) / np.diff(marks)
        out = np.interp(values, marks, standard)
        out += np.minimum(values - marks[0], 0) * slopes[0]
        out += np.maximum(values - marks[-1], 0) * slopes[-1]
        return out.astype(np.float32)

    def to_json(self) -> str:
        """The landmarks as one JSON object."""
        return json.dumps({"percentiles": self.percentiles, "standard": self.standard})

    @classmethod
    def from_json(cls, text: str) -> "Landmarks":
        """What ``to_json`` wrote."""
        fields = json.loads(text)
        return cls(tuple(fields["percentiles"]), tuple(fields["standard"]))


def _measure(image: np.ndarray, percentiles: tuple[float, ...]) -> np.ndarray:
    # Voxels above the image mean are the body: the method leaves air out this way.
    values = np.asarray(image, np.float64)
    body = values[values > values.mean()]
    return np.percentile(body if body.size else values, percentiles)
