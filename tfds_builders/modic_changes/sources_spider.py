"""SPIDER (van der Graaf et al., Sci Data 11:264, 2024): the archive and its mid-sagittal slices."""

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask, read_volume
from mskjax.imaging.volume import Volume
from tfds_builders.columns import number, whole
from tfds_builders.ids import check_table
from tfds_builders.modic_changes.images import CHANNELS, part
from tfds_builders.modic_changes.sources import UNKNOWN_LEVEL, Disc, ModicSource, places_of_levels
from tfds_builders.paired import Pair, Place, check_pair, read_pair, read_series
from tfds_builders.raw import Example, NoOptions, RawStudy, folder_of
from tfds_builders.spider import HIGHEST_LEVEL, Grading, SpiderTables, disc_levels
from tfds_builders.tables import Row, TableRow, read_table

_SERIES = r"(?P<patient>[^_]+)_(?P<series>t1|t2|t2_SPACE)"

# Of the 330 mid-sagittal images, all of which were looked at: those that stand on their head (the
# boxes of 57_t2 are those of the upright image), and the patient whose T1 shows another part of the
# spine than the T2, moved by 8 % of the field.
UPSIDE_DOWN = frozenset({"52_t1", "55_t1", "57_t1", "57_t2"})
APART = frozenset({"57"})

# The images keep no pixel size, and that of the scanner's header (overview.csv) is not theirs:
# many were resampled, some with oblong pixels.  With these fields of view the discs are 38 mm
# apart (sd 8 %) and 38 mm deep (11 %); with the header's pixels the spread is 23 and 19 %.
FIELD_MM = (300.0, 260.0)  # head to feet, front to back
_SLICE_MM = 4.0
BOX_COLUMNS = (
    "patient", "series", "img_w", "img_h", "ivd_label_from_bottom", "x0", "y0", "x1", "y1",
)  # fmt: skip
_MOST_PIXELS = 100_000


class Box(NamedTuple):
    """A box of disc_boxes.csv, and the shape of the image it was drawn on."""

    place: Place
    shape: tuple[int, int, int]


class _SpiderSource(ModicSource):
    """Pairs the T1 and T2 files of each patient."""

    spider: SpiderTables

    def __init__(self, options: NoOptions, folder: Path | None):
        del options
        super().__init__()
        self.folder = folder_of(folder)

    def pairs(self, ending: str) -> dict[str, dict[str, Path]]:
        """Patient to series to image; only patients with a T2 that is one by its header."""
        self.spider = SpiderTables(self.folder, self.ledger)
        self.tables = self.spider.files
        images = self.folder / "images"
        if not images.is_dir():
            self.ledger.bad.append(("images", f"{images} is not a folder; unpack the images."))
            return {}
        found: defaultdict[str, dict[str, Path]] = defaultdict(dict)
        for path in sorted(p for p in images.iterdir() if not p.name.startswith(".")):
            name = re.fullmatch(_SERIES + re.escape(ending), path.name)
            if name is None:
                self.ledger.bad.append(
                    (path.name, f"is not named <patient>_<t1|t2|t2_SPACE>{ending}; move it away.")
                )
            elif self.spider.is_stir(path.name.removesuffix(ending)):
                self.ledger.exclude(
                    path.name.removesuffix(ending),
                    f"named {name['series']}, but its header says STIR",
                )
            else:
                found[name["patient"]][name["series"]] = path
        return self._with_t2(found)

    def _with_t2(self, found: Mapping[str, dict[str, Path]]) -> dict[str, dict[str, Path]]:
        kept = {}
        for patient, series in found.items():
            if "t2" in series:
                kept[patient] = series
                if "t1" not in series:
                    self.ledger.restrict(f"{patient}_t1", "kept with T2 alone: it has no T1")
            else:
                self.ledger.exclude(patient, f"it has no T2, only {', '.join(series)}")
        unused = Counter(name for series in found.values() for name in series)["t2_SPACE"]
        if unused:
            self.ledger.notes.append(f"{unused} T2-SPACE series are not used")
        self.spider.check_patients(kept)
        absent = set(self.spider.gradings) - set(kept)
        if absent:
            self.ledger.notes.append(f"{len(absent)} graded patients have no T2 here")
        return kept

    def note_subsets(self, studies: Iterable[RawStudy]) -> None:
        """Notes the archive's own division of the patients that are packaged."""
        subsets = Counter(
            self.spider.overview.get(f"{s.patient_id}_t2", {}).get("subset", "") for s in studies
        )
        counts = ", ".join(f"{n} {name or 'of none'}" for name, n in sorted(subsets.items()))
        self.ledger.notes.append(f"patients by the archive's own subset: {counts}")


class SpiderSource(_SpiderSource):
    """The archive as published: ``images/``, ``masks/`` and the two tables."""

    def studies(self) -> list[RawStudy]:
        """The T2 series with a mask, with T1 where there is one."""
        found = []
        for patient, series in self.pairs(".mha").items():
            mask = self.folder / "masks" / series["t2"].name
            if not mask.is_file():
                self.ledger.bad.append((series["t2"].stem, f"{mask} is missing; unpack masks.zip."))
                continue
            images = (series["t2"], *([series["t1"]] if "t1" in series else []))
            files = (*images, mask)
            found.append(RawStudy(patient, f"{patient}_t1t2", files, images=len(images)))
        self.note_subsets(found)
        return found

    def read(self, study: RawStudy) -> Example:
        """Boxes and levels come from the instance labels of T2's mask."""
        image, *rest, mask = study.files
        pair = read_pair({"t2": image}, CHANNELS, math.nan)
        levels = disc_levels(read_mask(mask, pair.reference).data, mask)
        gradings = self.spider.gradings.get(study.patient_id, [])
        discs = self.join_by_label(study, places_of_levels(levels), gradings)
        if not gradings:
            self.ledger.restrict(study.study_id, "kept for detection only: it is not graded")
        for path in rest:
            pair = self._with_t1(pair, levels, path)
        who = self.spider.metadata(image.stem)
        return self.example(study, part(pair.reference, pair.other), discs, who)

    def _with_t1(self, t2: Pair, levels: np.ndarray, path: Path) -> Pair:
        """With T1, unless it does not show what T2 shows: that is no fault of the user's."""
        files = *t2.files, path
        pair = dataclasses.replace(t2, files=files, other=read_series(path, "t1"))
        shown = np.argwhere(levels)
        place = shown.min(axis=0), shown.max(axis=0) + 1
        try:
            check_pair(pair, place, "the region of the discs")
        except UserError as error:
            self.ledger.restrict(path.stem, f"kept with T2 alone: {error}")
            return t2
        return pair


class MidsagittalSource(_SpiderSource):
    """One PNG per T1 and T2 series, ``disc_boxes.csv`` for part of them, and the two tables."""

    def __init__(self, options: NoOptions, folder: Path | None):
        super().__init__(options, folder)
        self._boxes: Mapping[str, Mapping[int, Box]] = {}

    def studies(self) -> list[RawStudy]:
        """The patients with a T2."""
        pairs = self.pairs(".png")
        path = self.folder / "disc_boxes.csv"
        with self.ledger.collecting(path.name):
            rows = read_table(path, BOX_COLUMNS)
            self.tables = (*self.spider.files, path)
            self._boxes = self._parse_boxes(rows, pairs)
        self.ledger.notes.append(
            "one slice per series, 8 bit, rescaled image by image; pixel sizes are nominal: every"
            f" image is taken to show {FIELD_MM[0]:g} x {FIELD_MM[1]:g} mm"
        )
        found = []
        for patient, series in pairs.items():
            use_t1 = "t1" in series and patient not in APART
            if "t1" in series and not use_t1:
                self.ledger.restrict(
                    f"{patient}_t1", "kept with T2 alone: T1 shows another part of the spine"
                )
            files = (series["t2"], *([series["t1"]] if use_t1 else []))
            found.append(RawStudy(patient, f"{patient}_t1t2", files, images=len(files)))
        self.note_subsets(found)
        return found

    def read(self, study: RawStudy) -> Example:
        """T1 is laid over T2 edge to edge: both series of a patient show one field."""
        t2, *t1 = (_upright(path) for path in study.files)
        boxes = self._boxes.get(study.patient_id, {})
        if other := next((b.shape for b in boxes.values() if b.shape != t2.data.shape), None):
            raise UserError(
                f"its boxes are those of an image of {other[2]} x {other[1]} pixels, but"
                f" {study.files[0]} has {t2.data.shape[2]} x {t2.data.shape[1]}; give the image"
                " that was boxed."
            )
        gradings = self.spider.gradings.get(study.patient_id, [])
        discs = self._join_by_count(study, boxes, gradings)
        who = self.spider.metadata(study.files[0].stem)
        return self.example(study, part(t2, t1[0] if t1 else None), discs, who)

    def _join_by_count(
        self, study: RawStudy, boxes: Mapping[int, Box], gradings: list[Grading]
    ) -> list[Disc]:
        """Boxes with their grades, if there are as many as were graded; else each on its own."""
        levels = sorted(g["level"] for g in gradings)
        if boxes and levels != sorted(boxes):
            self.ledger.restrict(
                study.study_id,
                f"boxes kept for detection only: {len(boxes)} discs are boxed, but {len(levels)}"
                " were graded, so no box has a level; grades are kept without boxes",
            )
            unjoined = [Disc(UNKNOWN_LEVEL, box.place) for _, box in sorted(boxes.items())]
            return unjoined + [Disc(g["level"], None, g) for g in gradings]
        places = {level: box.place for level, box in boxes.items()}
        return [Disc(g["level"], places.get(g["level"]), g) for g in gradings]

    def _parse_boxes(
        self, rows: list[TableRow], pairs: Mapping[str, Mapping[str, Path]]
    ) -> Mapping[str, Mapping[int, Box]]:
        """Boxes of T2 images; those of other series lie on other grids and are counted only."""
        found: defaultdict[str, dict[int, Box]] = defaultdict(dict)
        others: Counter[str] = Counter()
        known = frozenset(pairs)
        check_table("disc_boxes.csv", (row["patient"] for row in rows), known, self.ledger)
        for row in rows:
            patient, series = row["patient"], row["series"]
            if series != "t2" or patient not in pairs:
                others[series if series != "t2" else "t2 that is not packaged"] += 1
                continue
            with self.ledger.collecting(row.where):
                level, box = _box(row)
                if level in found[patient]:
                    raise UserError(f"patient {patient}, level {level} is boxed twice; remove one.")
                found[patient][level] = box
        for series, count in sorted(others.items()):
            self.ledger.notes.append(f"{count} boxes of {series} are not used")
        return found


def _box(row: Row) -> tuple[int, Box]:
    x0, y0, x1, y1 = (number(row, c, -np.inf) for c in BOX_COLUMNS[5:])
    width, height = (whole(row, c, 1, _MOST_PIXELS) for c in ("img_w", "img_h"))
    level = whole(row, "ivd_label_from_bottom", 1, HIGHEST_LEVEL)
    return level, Box(Place(0, (y0, x0, y1, x1)), (1, height, width))


def _upright(path: Path) -> Volume:
    """An image with the head up, on the nominal field that T1 and T2 of a patient share."""
    data = read_volume(path).data
    if path.stem in UPSIDE_DOWN:
        data = data[:, ::-1]
    step = _SLICE_MM, FIELD_MM[0] / data.shape[1], FIELD_MM[1] / data.shape[2]
    affine = np.zeros((4, 4))
    affine[[0, 2, 1], [0, 1, 2]] = [-s for s in step]  # towards left, feet and back
    affine[[2, 1], 3] = -step[1] / 2, -step[2] / 2  # the edges of the field, not the centres, meet
    affine[3, 3] = 1
    return Volume(np.ascontiguousarray(data), affine, {"pixel_size_known": False})  # nominal
