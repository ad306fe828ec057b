"""What the sources of graded lumbar discs share, and the phantom source."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.regions import disc_regions
from mskjax.imaging.volume import Volume
from tfds_builders.columns import Metadata, shared_part
from tfds_builders.images import image_part
from tfds_builders.phantoms.spine import spine_phantom
from tfds_builders.raw import Example, GeneratedSource, RawStudy, Source
from tfds_builders.spider import INSTANCE_CANAL, Grading, disc_levels, painted

VERTEBRA, DISC, CANAL = 1, 2, 3


def example(
    study: RawStudy,
    images: Example,
    mask: np.ndarray,
    levels: np.ndarray | None,
    gradings: Sequence[Grading],
    sequence: str,
    metadata: Metadata,
) -> Example:
    """Assembles one example of the data set.

    Args:
      study: names it.
      images: the image part, (S, H, W) in canonical order.
      mask: (S, H, W) of 0 to 3.
      levels: (S, H, W) uint8, the level of each disc; None where levels are unknown.
      gradings: of its discs.
      sequence: any text.
      metadata: the rest.

    Raises:
      UserError: the mask shows no disc.
    """
    if not np.any(mask == DISC):
        raise UserError("the mask shows no disc; check that it is the mask of this image.")
    return {
        **shared_part(study, metadata),
        **images,
        "mask": np.ascontiguousarray(mask, np.uint8),
        "disc_levels": np.zeros(mask.shape, np.uint8) if levels is None else levels,
        "has_mask": True,
        "levels": sorted(gradings, key=lambda g: g["level"]),
        "sequence": sequence,
    }


class DiscSource(Source):
    """A source that joins graded levels with the discs of a mask."""

    def join_by_count(
        self, study: RawStudy, mask: np.ndarray, affine: np.ndarray, gradings: Sequence[Grading]
    ) -> tuple[np.ndarray | None, Sequence[Grading]]:
        """Levels of a semantic mask, if it shows as many discs as were graded.

        Returns:
          The levels and the gradings, or None and none where they cannot be joined: such a study
          is kept for segmentation and listed.
        """
        if not gradings:
            self.ledger.restrict(study.study_id, "kept for segmentation only: it is not graded")
            return None, []
        regions, _ = disc_regions(mask == DISC, affine)
        count = len(regions)
        graded = sorted(g["level"] for g in gradings)
        if graded != list(range(1, count + 1)):
            self.ledger.restrict(
                study.study_id,
                f"kept for segmentation only: the mask shows {count} discs, but {len(graded)} were"
                f" graded (levels {_ranges(graded)})",
            )
            return None, []
        levels = np.zeros(mask.shape, np.uint8)
        for region in regions:
            levels[region.slices][region.mask] = region.level
        return levels, gradings

    def join_by_label(
        self, study: RawStudy, levels: np.ndarray, gradings: Sequence[Grading]
    ) -> Sequence[Grading]:
        """The gradings whose disc an instance mask shows; the others are listed."""
        if not gradings:
            self.ledger.restrict(study.study_id, "kept for segmentation only: it is not graded")
        shown = set(np.unique(levels).tolist())
        for grading in gradings:
            if grading["level"] not in shown:
                self.ledger.restrict(
                    f"{study.study_id}/L{grading['level']}",
                    f"level {grading['level']} is graded, but the mask does not show it",
                )
        return [g for g in gradings if g["level"] in shown]


class PhantomSource(GeneratedSource):
    """Generated spines: geometry and grades are known exactly, appearance is schematic."""

    series = "t2"

    def read(self, study: RawStudy) -> Example:
        """Draws the patient."""
        phantom = spine_phantom(self.options.seed_of(study.details))
        return example(
            study,
            image_part(Volume(phantom.image, phantom.affine)),
            phantom.mask,
            phantom.disc_levels,
            [{k: int(v) for k, v in g.items()} for g in phantom.gradings],
            "t2",
            Metadata(sex=phantom.sex, age=float(phantom.age)),
        )


def _ranges(levels: Sequence[int]) -> str:
    if list(levels) == list(range(levels[0], levels[-1] + 1)):
        return f"{levels[0]} to {levels[-1]}"
    return ", ".join(map(str, levels))


def checked_semantic(labels: np.ndarray, where: Any) -> np.ndarray:
    """A semantic mask as uint8.

    Args:
      labels: (S, H, W) integers.
      where: the file, for the message.

    Raises:
      UserError: a label other than 0 to 3.
    """
    unknown = sorted(set(np.unique(labels).tolist()) - {0, VERTEBRA, DISC, CANAL})
    if unknown:
        raise UserError(
            f"{where}: unknown label {', '.join(map(str, unknown[:10]))}{painted(labels)}; a"
            " semantic mask holds 0 background, 1 vertebra, 2 disc, 3 canal: write these numbers."
        )
    return labels.astype(np.uint8)


def as_semantic(labels: np.ndarray, where: Any) -> tuple[np.ndarray, np.ndarray]:
    """SPIDER's instance labels (`disc_levels`) as a semantic mask and disc levels.

    Args:
      labels: (S, H, W) integers.
      where: the file, for the message.

    Returns:
      Semantic mask and levels, both (S, H, W) uint8.

    Raises:
      UserError: another label.
    """
    levels = disc_levels(labels, where)
    table = np.zeros(256, np.uint8)
    table[1:26] = table[101:126] = VERTEBRA
    table[INSTANCE_CANAL] = CANAL
    table[201:226] = DISC
    return table[labels], levels
