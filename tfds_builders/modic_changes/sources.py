"""What the sources of discs with Modic changes share, and the phantom source."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.volume import Volume
from tfds_builders.columns import Metadata, shared_part
from tfds_builders.modic_changes import images
from tfds_builders.paired import Place, check_place, place_in
from tfds_builders.phantoms.modic import modic_phantom
from tfds_builders.raw import Example, GeneratedOptions, GeneratedSource, RawStudy, Source
from tfds_builders.spider import GRADES, MISSING, Grading

UNKNOWN_LEVEL = 0
# Below this a Modic type can neither be learnt nor scored as a class of its own.
LEAST_CASES = 20
_TYPES = range(4)


@dataclasses.dataclass(frozen=True)
class Disc:
    """One row of the feature `boxes`.

    Attributes:
      level: 1 the lowest disc, counting upwards; `UNKNOWN_LEVEL` for a box without a level.
      place: on T2's grid; None where the disc is graded, but not boxed.
      grades: grading to grade; what is absent is missing.
    """

    level: int
    place: Place | None = None
    grades: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, object]:
        """The row as it is packaged."""
        place = self.place or Place(0, (0, 0, 0, 0))
        return {
            "level": self.level,
            "boxed": int(self.place is not None),
            "slice": place.slice,
            "box": np.asarray(place.box, np.float32),
            **{name: self.grades.get(name, MISSING) for name in GRADES},
        }


def is_graded(row: Mapping[str, int]) -> bool:
    """Whether a row of `boxes` can be a case of Modic or Pfirrmann grading."""
    return row["modic"] != MISSING or row["pfirrmann"] != MISSING


def check_order(discs: Iterable[Disc]) -> None:
    """Whether levels are counted from the lowest disc upwards.

    Raises:
      UserError: a disc lies no higher than the one of the level below.
    """
    known = [(d.level, d.place.box) for d in discs if d.place and d.level != UNKNOWN_LEVEL]
    middles = [(level, (box[0] + box[2]) / 2) for level, box in sorted(known)]
    for (below, low), (above, high) in itertools.pairwise(middles):
        if high >= low:
            raise UserError(
                f"level {above} (row {high:g}) does not lie above level {below} (row {low:g});"
                " levels count from the lowest disc, which is 1, upwards."
            )


def places_of_levels(levels: np.ndarray) -> dict[int, Place]:
    """Boxes of labelled discs, in one slice as far as one shows them all.

    That slice shows the most discs, and of such slices the most disc voxels: the mid-sagittal one
    as a rule.  A disc it does not show is boxed in the slice that shows most of it.

    Args:
      levels: (S, H, W) integers, 0 where there is no disc.
    """
    found = [int(k) for k in np.unique(levels) if k]
    areas = {k: (levels == k).sum(axis=(1, 2)) for k in found}  # (S,) each
    if not found:
        return {}
    shown = np.sum([area > 0 for area in areas.values()], axis=0)
    voxels = np.sum(list(areas.values()), axis=0)
    common = int(np.lexsort((voxels, shown))[-1])
    return {
        k: place_in(levels == k, common if areas[k][common] else int(areas[k].argmax()))
        for k in found
    }


class ModicSource(Source):
    """A source of boxed and graded discs; the Modic types are counted."""

    def example(
        self, study: RawStudy, part: Example, discs: Sequence[Disc], who: Metadata
    ) -> Example:
        """Assembles one example.

        Args:
          study: names it.
          part: the image part, T2 and T1 on T2's grid, in canonical order.
          discs: what is boxed or graded.
          who: the rest.

        Raises:
          UserError: there is no disc, a box is empty or leaves T2, or levels run downwards.
        """
        if not discs:
            raise UserError("no disc is boxed or graded; add its discs or remove the study.")
        for disc in discs:
            if disc.place:
                check_place(disc.place, part["t2"].shape, "T2")
        check_order(discs)
        rows = [disc.row() for disc in sorted(discs, key=lambda d: d.level)]
        return {
            **shared_part(study, who),
            **part,
            "boxes": rows,
            "has_boxes": any(disc.place for disc in discs),
        }

    def join_by_label(
        self, study: RawStudy, places: Mapping[int, Place], gradings: Sequence[Grading]
    ) -> list[Disc]:
        """Joins boxes of known level with gradings; a grading without its disc is listed.

        Returns:
          One disc for each box; those that are not graded serve detection only.

        Raises:
          UserError: there is no box.
        """
        if not places:
            raise UserError("the mask shows no disc; check that it is the mask of T2.")
        grades = {g["level"]: g for g in gradings}
        for level in sorted(set(grades) - set(places)):
            self.ledger.restrict(
                f"{study.study_id}/L{level}",
                f"level {level} is graded, but the mask does not show it",
            )
        return [Disc(level, place, grades.get(level, {})) for level, place in places.items()]

    def remarks(self, outlines: Iterable[Mapping[str, Any]]) -> list[str]:
        """How many discs there are of each Modic type."""
        cases: Counter[tuple[int, int]] = Counter()  # (level, type)
        for outline in outlines:
            table = outline["boxes"]
            cases.update(zip(table["level"].tolist(), table["modic"].tolist(), strict=True))
        return _type_notes({case: n for case, n in cases.items() if case[1] != MISSING})


def _type_notes(cases: Mapping[tuple[int, int], int]) -> list[str]:
    if not cases:
        return ["no disc has a Modic type"]
    levels = sorted({level for level, _ in cases})
    counts = "; ".join(
        f"level {level}: {'/'.join(str(cases.get((level, t), 0)) for t in _TYPES)}"
        for level in levels
    )
    notes = [f"discs with Modic type 0/1/2/3, {counts}"]
    totals = {t: sum(cases.get((level, t), 0) for level in levels) for t in _TYPES}
    if rare := [f"type {t} has {totals[t]}" for t in _TYPES if totals[t] < LEAST_CASES]:
        notes.append(
            f"Modic {', '.join(rare)}: fewer than {LEAST_CASES} discs are no class to train or to"
            " score, only presence (type above 0) is"
        )
    return notes


@dataclasses.dataclass(frozen=True)
class PhantomOptions(GeneratedOptions):
    """Generated patients.

    Attributes:
      modic_type_shares: relative frequency of types 1, 2 and 3 among discs with changes.  SPIDER's
        are 4, 503 and 7; the default makes the most of few patients.
    """

    patients: int = 60
    modic_type_shares: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = np.array(self.modic_type_shares)
        if not (np.isfinite(shares).all() and shares.min() >= 0 and shares.sum() > 0):
            raise UserError(
                f"config.data.options.modic_type_shares is {self.modic_type_shares}; it must hold"
                " three numbers, none negative and one positive."
            )


class PhantomSource(GeneratedSource, ModicSource):
    """Generated spines: types and boxes are known exactly, appearance is schematic."""

    series = "t1t2"

    def read(self, study: RawStudy) -> Example:
        """Draws the patient."""
        options: PhantomOptions = self.options
        phantom = modic_phantom(options.seed_of(study.details), options.modic_type_shares)
        places = places_of_levels(phantom.disc_levels)
        t2, t1 = Volume(phantom.t2, phantom.t2_affine), Volume(phantom.t1, phantom.t1_affine)
        return self.example(
            study,
            images.part(t2, t1),
            self.join_by_label(study, places, phantom.gradings),
            Metadata(sex=phantom.sex, age=float(phantom.age), field_strength_t=1.5),
        )
