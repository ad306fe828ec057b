"""What the sources of shoulder images in Y-view share, and the phantom source."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.volume import Volume
from tfds_builders.columns import Metadata, shared_part
from tfds_builders.images import image_part
from tfds_builders.phantoms.shoulder import GRADES, shoulder_phantom
from tfds_builders.raw import Example, GeneratedOptions, GeneratedSource, RawStudy

MISSING = -1
FOSSA = 1
# Shoulders of Goutallier 0 to 4 in Saavedra et al., Front Med 2024, 10.3389/fmed.2024.1416169.
PUBLISHED_COUNTS = (403, 114, 51, 24, 14)
_MOST_IMAGES = 4
_ORDER, _IMAGES = 101, 102  # streams beside those of a patient


def example(
    study: RawStudy,
    images: Example,
    mask: np.ndarray | None,
    grade: int,
    side: str,
    sequence: str,
    metadata: Metadata,
) -> Example:
    """Assembles one example of the data set.

    Args:
      study: names it.
      images: the image part, (S, H, W) on the axes of `y_view`.
      mask: (S, H, W) of 0 and 1, or None where the fossa is not outlined.
      grade: Goutallier 0 to 4, or -1.
      side: left, right or empty.
      sequence: any text.
      metadata: the rest.
    """
    blank = np.zeros(images["image"].shape, np.uint8)
    return {
        **shared_part(study, metadata),
        **images,
        "mask": blank if mask is None else np.ascontiguousarray(mask, np.uint8),
        "has_mask": mask is not None,
        "grade": grade,
        "side": side,
        "sequence": sequence,
    }


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Whole shares of a total in proportion to weights, by largest remainder (Hamilton's method).

    Args:
      total: to divide.
      weights: not negative, not all 0.

    Returns:
      Shares in the order of the weights, which sum to `total`; equal remainders go to the first.
    """
    whole_shares = [total * w // sum(weights) for w in weights]
    remainders = [total * w % sum(weights) for w in weights]
    largest = sorted(range(len(weights)), key=lambda i: -remainders[i])
    for i in largest[: total - sum(whole_shares)]:
        whole_shares[i] += 1
    return whole_shares


@dataclasses.dataclass(frozen=True)
class PhantomOptions(GeneratedOptions):
    """Generated patients, one shoulder each.

    Attributes:
      most_images: each patient has 1 to so many images, with the same grade.
      grades: `balanced`, as many patients of each grade, or `published`, in the proportions of
        403, 114, 51, 24 and 14 shoulders.
    """

    patients: int = 60
    most_images: int = 2
    grades: Literal["balanced", "published"] = "balanced"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.most_images <= _MOST_IMAGES:
            raise UserError(
                f"config.data.options.most_images is {self.most_images}; it must be 1 to"
                f" {_MOST_IMAGES}."
            )


class PhantomSource(GeneratedSource):
    """Generated shoulders: fossa and grade are known exactly, appearance is schematic."""

    series = "y"

    def studies(self) -> list[RawStudy]:
        """One study an image; the details are patient, grade and number of the image."""
        options = self.options
        weights = (1,) * GRADES if options.grades == "balanced" else PUBLISHED_COUNTS
        grades = np.repeat(np.arange(GRADES), apportion(options.patients, weights))
        np.random.default_rng((options.seed, _ORDER)).shuffle(grades)
        found = []
        for first, grade in zip(super().studies(), grades.tolist(), strict=True):
            rng = np.random.default_rng((options.seed, first.details, _IMAGES))
            for image in range(int(rng.integers(1, options.most_images + 1))):
                details = first.details, grade, image
                found.append(RawStudy(first.patient_id, f"{first.study_id}{image}", (), details))
        return found

    def read(self, study: RawStudy) -> Example:
        """Draws the image."""
        patient, grade, image = study.details
        phantom = shoulder_phantom(self.options.seed_of(patient), grade, image)
        return example(
            study,
            image_part(Volume(phantom.image, phantom.affine)),
            phantom.mask,
            grade,
            phantom.side,
            "t2",
            Metadata(
                sex=phantom.sex,
                age=float(phantom.age),
                field_strength_t=phantom.field_strength_t,
            ),
        )
