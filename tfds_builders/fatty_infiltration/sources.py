"""Where shoulder images in Y-view come from: generated patients, or the user's own files."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask, read_volume
from mskjax.imaging.geometry import shift_affine, slice_axis
from mskjax.imaging.volume import Volume
from tfds_builders.phantoms.shoulder import GRADES, shoulder_phantom
from tfds_builders.raw import Example, RawStudy, Source, folder_of
from tfds_builders.tables import Row, choice, number, read_table, whole

MISSING = -1
FOSSA = 1
# Shoulders of Goutallier 0 to 4 in Saavedra et al., Front Med 2024, 10.3389/fmed.2024.1416169.
PUBLISHED_COUNTS = (403, 114, 51, 24, 14)
STUDY_COLUMNS = ("patient_id", "study_id", "image", "mask", "grade")
STUDY_EXTRAS = (
    "side", "slice", "pixel_mm", "sequence", "sex", "age", "manufacturer", "field_strength_t",
    "subset",
)  # fmt: skip
# Slices may be this far, in degrees, from the left-right axis towards the front, and up or down.
MOST_OBLIQUE, MOST_TILTED = 70, 45
_FILE_NAME = re.compile(r"[\w.+-]+")
_SEEDS_APART = 1_000_000  # patients a phantom cohort may have before it meets the next seed's
_MOST_IMAGES = 4
_ORDER, _IMAGES = 101, 102  # streams beside those of a patient


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Nothing to choose."""


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of a study beside image and grade; ages in years, fields in tesla."""

    side: str = ""
    sequence: str = ""
    sex: str = ""
    age: float = math.nan
    manufacturer: str = ""
    field_strength_t: float = math.nan
    subset: str = ""


def example(
    study: RawStudy, image: Volume, mask: np.ndarray | None, grade: int, metadata: Metadata
) -> Example:
    """Assembles one example of the data set.

    Args:
      study: names it.
      image: (S, H, W) on the axes of `y_view`.
      mask: (S, H, W) of 0 and 1, or None where the fossa is not outlined.
      grade: Goutallier 0 to 4, or -1.
      metadata: the rest.
    """
    blank = np.zeros(image.data.shape, np.uint8)
    return {
        "patient_id": study.patient_id,
        "study_id": study.study_id,
        "image": np.ascontiguousarray(image.data, np.float32),
        "mask": blank if mask is None else np.ascontiguousarray(mask, np.uint8),
        "has_mask": mask is not None,
        "affine": image.affine,
        "grade": grade,
        **dataclasses.asdict(metadata),
    }


def y_view(volume: Volume, where: Any) -> Volume:
    """Turns a Y-view upright, front to the left; no voxel value is changed.

    A Y-view lies across the scapula, so its normal is between the left-right and the front-back
    axis, often nearer to neither.  The axes are therefore told by what they are, not by the patient
    axis they are closest to: slices are the one axis that is no image axis, rows the image axis
    that runs most nearly up or down.

    Args:
      volume: one image or a stack, stored in any order.
      where: the file, for the message.

    Returns:
      The same voxels at the same places.  Axis 0 is the slices, growing towards the left; axis 1
      the rows, growing towards the feet; axis 2 the columns, growing towards the back.

    Raises:
      UserError: the slices are axial or coronal.
    """
    along = volume.affine[:3, :3] / volume.spacing
    slices = through_plane(volume)
    rows, columns = sorted((a for a in range(3) if a != slices), key=lambda a: -abs(along[2, a]))
    normal = np.cross(along[:, rows], along[:, columns])
    sideways, _, upwards = np.abs(normal) / np.linalg.norm(normal)
    tilted = upwards > math.sin(math.radians(MOST_TILTED))
    if tilted or sideways < math.cos(math.radians(MOST_OBLIQUE)):
        raise UserError(
            f"{where}: the slices are {'axial' if tilted else 'coronal'}, not a Y-view; give the"
            " sagittal oblique series."
        )
    left = 1 if along[0, slices] < 0 else -1  # RAS: x grows to the right,
    down = 1 if along[2, rows] < 0 else -1  # z towards the head.
    # Left, down and back make a right-handed frame, however oblique the slices are.
    order = [slices, rows, columns]
    back = left * down * (1 if np.linalg.det(along[:, order]) > 0 else -1)
    orientation = np.empty((3, 2))
    orientation[order] = [(0, left), (1, down), (2, back)]
    data = nib.orientations.apply_orientation(volume.data, orientation)
    turned = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.data.shape)
    return Volume(np.ascontiguousarray(data), turned, dict(volume.meta))


def through_plane(volume: Volume) -> int:
    """The axis of the slices: that of length 1, else that of the coarsest pitch."""
    single = [axis for axis, size in enumerate(volume.data.shape) if size == 1]
    return single[0] if len(single) == 1 else slice_axis(volume)


def one_slice(volume: Volume, index: int) -> Volume:
    """Slice `index` of a stack, as stored, with an axis of length 1 in its place."""
    axis = through_plane(volume)
    start = [index if a == axis else 0 for a in range(3)]
    data = np.take(volume.data, [index], axis)
    return Volume(data, shift_affine(volume.affine, start), dict(volume.meta))


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
class PhantomOptions:
    """Generated patients.

    Attributes:
      patients: how many, one shoulder each.
      seed: of the first; two cohorts with different seeds share no patient.
      most_images: each patient has 1 to so many images, with the same grade.
      grades: `balanced`, as many patients of each grade, or `published`, in the proportions of
        403, 114, 51, 24 and 14 shoulders.
    """

    patients: int = 60
    seed: int = 0
    most_images: int = 2
    grades: Literal["balanced", "published"] = "balanced"

    def __post_init__(self) -> None:
        for name, least, most in (
            ("patients", 1, _SEEDS_APART),
            ("most_images", 1, _MOST_IMAGES),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(
                    f"config.data.options.{name} is {value}; it must be {least} to {most}."
                )
        if self.seed < 0:
            raise UserError(f"config.data.options.seed is {self.seed}; it must not be negative.")


class PhantomSource(Source):
    """Generated shoulders: fossa and grade are known exactly, appearance is schematic."""

    def __init__(self, options: PhantomOptions, folder: Path | None):
        del folder
        super().__init__()
        self._options = options
        self.ledger.notes.append("PHANTOM: generated images, no patient data.")

    def studies(self) -> list[RawStudy]:
        """One study an image; the details are patient, grade and number of the image."""
        options = self._options
        weights = (1,) * GRADES if options.grades == "balanced" else PUBLISHED_COUNTS
        grades = np.repeat(np.arange(GRADES), apportion(options.patients, weights))
        np.random.default_rng((options.seed, _ORDER)).shuffle(grades)
        found = []
        for i, grade in enumerate(grades.tolist()):
            rng = np.random.default_rng((options.seed, i, _IMAGES))
            for image in range(int(rng.integers(1, options.most_images + 1))):
                name = f"phantom{i:04d}"
                found.append(RawStudy(name, f"{name}_y{image}", details=(i, grade, image)))
        return found

    def read(self, study: RawStudy) -> Example:
        """Draws the image."""
        patient, grade, image = study.details
        phantom = shoulder_phantom(self._options.seed * _SEEDS_APART + patient, grade, image)
        return example(
            study,
            Volume(phantom.image, phantom.affine),
            phantom.mask,
            grade,
            Metadata(
                side=phantom.side,
                sequence="t2",
                sex=phantom.sex,
                age=float(phantom.age),
                field_strength_t=phantom.field_strength_t,
            ),
        )


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A row of studies.csv, checked; `slice` is None and `pixel_mm` NaN where not given."""

    grade: int
    slice: int | None
    pixel_mm: float
    metadata: Metadata


class CohortSource(Source):
    """The user's images in Y-view: studies.csv and the files it names (README.md)."""

    def __init__(self, options: NoOptions, folder: Path | None):
        del options
        super().__init__()
        self._folder = folder_of(folder)

    def studies(self) -> list[RawStudy]:
        """The rows of studies.csv that can be packaged."""
        table = self._folder / "studies.csv"
        self.tables = (table,) if table.is_file() else ()
        rows: list[dict[str, str]] = []
        with self.ledger.collecting(table.name):
            rows = read_table(table, STUDY_COLUMNS)
            extra = [c for c in rows[0] if c not in (*STUDY_COLUMNS, *STUDY_EXTRAS)]
            if extra:  # so that a misspelt name is seen
                self.ledger.notes.append(f"{table.name}: columns not used: {', '.join(extra)}")
            if not any(row["mask"] for row in rows):
                raise UserError(
                    "no study has a mask, so finding the fossa cannot be learnt; outline it in at"
                    " least some studies and fill in the column mask."
                )
        return self._parse(rows)

    def read(self, study: RawStudy) -> Example:
        """The one Y-view image of the study and its mask, upright."""
        entry: _Entry = study.details
        path = study.files[0]
        spacing = None if math.isnan(entry.pixel_mm) else (entry.pixel_mm, entry.pixel_mm)
        stored = read_volume(path, spacing=spacing)
        index = _slice_of(stored, entry.slice, path)
        image = y_view(one_slice(stored, index), path)
        mask = None
        if len(study.files) > 1:
            outlined = read_mask(study.files[1], stored, labels=(FOSSA,))
            mask = y_view(one_slice(outlined, index), study.files[1]).data
            if not mask.any():
                raise UserError(
                    f"{study.files[1]}: the mask shows no fossa in slice {index}; check mask and"
                    " slice, or leave the mask empty."
                )
        metadata, header = entry.metadata, stored.meta
        if not metadata.manufacturer:
            metadata = dataclasses.replace(
                metadata, manufacturer=str(header.get("manufacturer") or "")
            )
        if math.isnan(metadata.field_strength_t):
            strength = float(header.get("field_strength_t") or math.nan)
            metadata = dataclasses.replace(metadata, field_strength_t=strength)
        return example(study, image, mask, entry.grade, metadata)

    def _parse(self, rows: Sequence[Row]) -> list[RawStudy]:
        found: list[RawStudy] = []
        seen: set[str] = set()
        known: dict[tuple[str, str], str] = {}
        for n, row in enumerate(rows, start=1):
            where, faults = f"studies.csv, row {n}", len(self.ledger.bad)
            with self.ledger.collecting(where):
                _check_ids(row, seen)
            for column in ("sex", "subset"):
                with self.ledger.collecting(where):
                    _check_same(row, column, known)
            files = self._files(where, row)
            values: dict[str, Any] = {}
            for column, parse in _PARSERS.items():
                with self.ledger.collecting(where):
                    values[column] = parse(row, column)
            if len(self.ledger.bad) > faults or not self._is_usable(row):
                continue
            entry = _Entry(
                values.pop("grade"),
                values.pop("slice"),
                values.pop("pixel_mm"),
                Metadata(**values),
            )
            found.append(RawStudy(row["patient_id"], row["study_id"], files, entry))
        return found

    def _files(self, where: str, row: Row) -> tuple[Path, ...]:
        """Image, and mask where there is one; what is missing becomes a bad case."""
        if not row["image"]:
            self.ledger.bad.append(
                (where, f"study {row['study_id']!r} has no image; fill in its path.")
            )
        files = []
        for column in ("image", "mask"):
            if row[column]:
                files.append(self._folder / row[column])
                if not files[-1].exists():
                    self.ledger.bad.append(
                        (where, f"{column} is {files[-1]}: no such file or folder; check the path.")
                    )
        return tuple(files)

    def _is_usable(self, row: Row) -> bool:
        """Whether a study has a mask or a grade; lists what is missing."""
        study, mask, grade = row["study_id"], row["mask"], row["grade"]
        if not mask and not grade:
            self.ledger.exclude(study, "it has neither mask nor grade")
        elif not mask:
            self.ledger.exclude(study, "kept for grading only: it has no mask")
        elif not grade:
            self.ledger.exclude(study, "kept for segmentation only: it is not graded")
        return bool(mask or grade)


def _slice_of(volume: Volume, given: int | None, path: Path) -> int:
    """The slice that is meant, 0 being the first as stored.

    Raises:
      UserError: there are several and none is given, or the given one is not among them.
    """
    count = volume.data.shape[through_plane(volume)]
    if given is None and count > 1:
        raise UserError(
            f"{path}: has {count} slices and it is not said which is the Y-view; give the slice"
            f" column a number, 0 to {count - 1}."
        )
    if given is not None and given >= count:
        raise UserError(
            f"{path}: slice is {given}, but the file has {count}; it must be 0 to {count - 1}."
        )
    return given or 0


def _check_ids(row: Row, seen: set[str]) -> None:
    patient, study = row["patient_id"], row["study_id"]
    if not patient:
        raise UserError(f"study {study!r} has no patient_id; fill it in.")
    if not _FILE_NAME.fullmatch(study):
        raise UserError(
            f"study_id is {study!r}; it names files, so use letters, digits, '.', '_', '+', '-'."
        )
    if study in seen:
        raise UserError(f"study_id {study!r} occurs twice; give every study its own.")
    seen.add(study)


def _check_same(row: Row, column: str, known: dict[tuple[str, str], str]) -> None:
    """All studies of a patient say the same; sex, but not subset, may be left out of some."""
    patient, value = row["patient_id"], row.get(column, "")
    if not patient or (column == "sex" and not value):
        return
    first = known.setdefault((patient, column), value)
    if first != value:
        raise UserError(
            f"patient {patient!r} has {column} {first!r} and {value!r}; a patient has one."
        )


def _grade(row: Row, column: str) -> int:
    return whole(row, column, 0, GRADES - 1) if row[column] else MISSING


def _index(row: Row, column: str) -> int | None:
    return whole(row, column, 0, 9999) if row.get(column) else None


def _pixel(row: Row, column: str) -> float:
    value = number(row, column)
    if value == 0:
        raise UserError(f"{column} is {row[column]!r}; it must be above 0, in mm.")
    return value


def _among(*allowed: str) -> Callable[[Row, str], str]:
    return lambda row, column: choice(row, column, allowed)


def _text(row: Row, column: str) -> str:
    return row.get(column, "")


_PARSERS: Mapping[str, Callable[[Row, str], Any]] = {
    "grade": _grade,
    "slice": _index,
    "pixel_mm": _pixel,
    "side": _among("left", "right"),
    "sequence": _text,
    "sex": _among("F", "M"),
    "age": lambda row, column: number(row, column, 0, 130),
    "manufacturer": _text,
    "field_strength_t": lambda row, column: number(row, column, 0, 30),
    "subset": _among("training", "validation"),
}
