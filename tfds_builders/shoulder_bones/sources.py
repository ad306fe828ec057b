"""Where shoulder series with outlined bones come from: generated patients, or the user's files."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask, read_volume
from mskjax.imaging.geometry import slice_axis
from mskjax.imaging.volume import Volume
from tfds_builders.phantoms.shoulder_bones import (
    HUMERUS,
    PAPER,
    SCAPULA,
    SMALL,
    Plane,
    bones_phantom,
)
from tfds_builders.raw import Example, RawStudy, Source, folder_of
from tfds_builders.tables import Row, choice, number, read_table

STRUCTURES: Mapping[str, int] = {"humerus": HUMERUS, "scapula": SCAPULA}
STUDY_COLUMNS = ("patient_id", "study_id", "image")
MASK_COLUMNS = ("mask", *STRUCTURES)
STUDY_EXTRAS = ("side", "sequence", "sex", "age", "manufacturer", "field_strength_t", "subset")
# Display axes by the patient axis that the slices are closest to.
DISPLAY_AXES: Mapping[str, str] = {"S": "IPL", "A": "PIL", "R": "LIP"}
_FILE_NAME = re.compile(r"[\w.+-]+")
_SEEDS_APART = 1_000_000  # patients a phantom cohort may have before it meets the next seed's
# The paper keeps five of eight patients for training and cross-validation, and three for testing.
_OF_EIGHT, _TRAINING = 8, 5


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Nothing to choose."""


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of a series beside image and mask; ages in years, fields in tesla."""

    side: str = ""
    sequence: str = ""
    sex: str = ""
    age: float = math.nan
    manufacturer: str = ""
    field_strength_t: float = math.nan
    subset: str = ""


def canonical(volume: Volume) -> Volume:
    """Turns a series to the display axes of its plane; no voxel value is changed.

    Each array axis is given one patient axis, such that the cosines are the largest in sum.  The
    one given to the slices names the plane, so an oblique coronal series is coronal as long as it
    is turned by less than 45 degrees.

    Args:
      volume: a series, stored in any order.

    Returns:
      The same voxels at the same places.  Axis 0 is the slices, axes 1 and 2 are rows and columns
      as a viewer shows them.  Axial: head to feet, front to back, right to left.  Coronal: front
      to back, head to feet, right to left.  Sagittal: right to left, head to feet, front to back.
    """
    cosines = volume.affine[:3, :3] / volume.spacing
    world = max(
        itertools.permutations(range(3)),
        key=lambda order: sum(abs(cosines[w, axis]) for axis, w in enumerate(order)),
    )
    single = [axis for axis, size in enumerate(volume.data.shape) if size == 1]
    slices = single[0] if len(single) == 1 else slice_axis(volume)
    codes = DISPLAY_AXES["RAS"[world[slices]]]
    orientation = np.empty((3, 2))
    for axis, w in enumerate(world):
        target = next(k for k, code in enumerate(codes) if code in ("LR", "PA", "IS")[w])
        # L, P and I are where R, A and S, the axes of the affine, decrease.
        orientation[axis] = target, 1 if cosines[w, axis] < 0 else -1
    data = nib.orientations.apply_orientation(volume.data, orientation)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.data.shape)
    meta = {**volume.meta, "slice_axis": 0}
    return Volume(np.ascontiguousarray(data), affine, meta)


def example(study: RawStudy, image: Volume, mask: np.ndarray, metadata: Metadata) -> Example:
    """Assembles one example of the data set.

    Args:
      study: names it.
      image: (S, H, W) on the axes of `canonical`.
      mask: (S, H, W) of 0, 1 and 2.
      metadata: the rest.
    """
    return {
        "patient_id": study.patient_id,
        "study_id": study.study_id,
        "image": np.ascontiguousarray(image.data, np.float32),
        "mask": np.ascontiguousarray(mask, np.uint8),
        "has_mask": True,
        "affine": image.affine,
        **dataclasses.asdict(metadata),
    }


@dataclasses.dataclass(frozen=True)
class PhantomOptions:
    """Generated patients.

    Attributes:
      patients: how many, one series each; of every eight the last three are `validation`, the
        paper's test patients, and the others `training`.
      seed: of the first; two cohorts with different seeds share no patient.
      size: `small`, 24 slices of 96 x 96, or `paper`, 100 slices of 256 x 256.
      plane: of the slices.
    """

    patients: int = 8
    seed: int = 0
    size: Literal["small", "paper"] = "small"
    plane: Plane = "axial"

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= _SEEDS_APART:
            raise UserError(
                f"config.data.options.patients is {self.patients}; it must be 1 to {_SEEDS_APART}."
            )
        if self.seed < 0:
            raise UserError(f"config.data.options.seed is {self.seed}; it must not be negative.")


class PhantomSource(Source):
    """Generated shoulders: the bones are known exactly, appearance is schematic."""

    def __init__(self, options: PhantomOptions, folder: Path | None):
        del folder
        super().__init__()
        self._options = options
        config = {"small": SMALL, "paper": PAPER}[options.size]
        self._config = dataclasses.replace(config, plane=options.plane)
        self.ledger.notes.append("PHANTOM: generated images, no patient data.")

    def studies(self) -> list[RawStudy]:
        """One study a patient."""
        return [
            RawStudy(f"phantom{i:04d}", f"phantom{i:04d}_{self._options.plane}", details=i)
            for i in range(self._options.patients)
        ]

    def read(self, study: RawStudy) -> Example:
        """Draws the patient."""
        seed = self._options.seed * _SEEDS_APART + study.details
        phantom = bones_phantom(seed, self._config)
        metadata = Metadata(
            side=phantom.side,
            sequence=self._config.protocol.weighting.lower(),
            sex=phantom.sex,
            age=float(phantom.age),
            field_strength_t=phantom.field_strength_t,
            subset="training" if study.details % _OF_EIGHT < _TRAINING else "validation",
        )
        return example(study, Volume(phantom.image, phantom.affine), phantom.mask, metadata)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A row of studies.csv, checked: the column of each mask file, and the metadata."""

    masks: tuple[str, ...]
    metadata: Metadata


class CohortSource(Source):
    """The user's series: studies.csv and the files it names (README.md)."""

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
            known = (*STUDY_COLUMNS, *MASK_COLUMNS, *STUDY_EXTRAS)
            extra = [c for c in rows[0] if c not in known]
            if extra:  # so that a misspelt name is seen
                self.ledger.notes.append(f"{table.name}: columns not used: {', '.join(extra)}")
            if "mask" not in rows[0] and not set(STRUCTURES) <= set(rows[0]):
                raise UserError(
                    f"{table} lacks the masks; it needs the column mask, or the columns"
                    f" {' and '.join(STRUCTURES)}."
                )
        return self._parse(rows)

    def read(self, study: RawStudy) -> Example:
        """The series with its bones, on display axes."""
        entry: _Entry = study.details
        stored = read_volume(study.files[0])
        if entry.masks == ("mask",):
            labels = self._labels(study, stored)
        else:
            labels = self._joined(study, stored)
        image = canonical(stored)
        mask = canonical(stored.with_data(labels)).data
        metadata, header = entry.metadata, stored.meta
        if not metadata.manufacturer:
            metadata = dataclasses.replace(
                metadata, manufacturer=str(header.get("manufacturer") or "")
            )
        if math.isnan(metadata.field_strength_t):
            strength = float(header.get("field_strength_t") or math.nan)
            metadata = dataclasses.replace(metadata, field_strength_t=strength)
        return example(study, image, mask, metadata)

    def _labels(self, study: RawStudy, image: Volume) -> np.ndarray:
        """One mask with both labels."""
        path = study.files[1]
        labels = read_mask(path, image, labels=tuple(STRUCTURES.values())).data
        if not np.any(labels == HUMERUS):
            raise UserError(
                f"{path}: the mask shows no humerus (label {HUMERUS}); check that it is the mask"
                " of this image."
            )
        if not np.any(labels == SCAPULA):
            self._without_scapula(study, f"its mask has no label {SCAPULA}")
        return labels

    def _joined(self, study: RawStudy, image: Volume) -> np.ndarray:
        """A mask a bone; faults of both are listed."""
        labels = np.zeros(image.data.shape, np.uint8)
        faults = len(self.ledger.bad)
        for column, path in zip(study.details.masks, study.files[1:], strict=True):
            with self.ledger.collecting(study.study_id):
                bone = read_mask(path, image, labels=(1,)).data > 0
                if not bone.any():
                    raise UserError(
                        f"{path}: the mask shows no {column}; check that it is the mask of this"
                        " image."
                    )
                both = int(np.count_nonzero(bone & (labels > 0)))
                if both:
                    raise UserError(
                        f"{path}: {both} voxels of the {column} are humerus too; a voxel belongs to"
                        " one bone."
                    )
                labels[bone] = STRUCTURES[column]
        if study.details.masks == ("humerus",) and len(self.ledger.bad) == faults:
            self._without_scapula(study, "it has no mask of it")
        return labels

    def _without_scapula(self, study: RawStudy, why: str) -> None:
        self.ledger.exclude(f"{study.study_id}/scapula", f"the series counts as without: {why}")

    def _parse(self, rows: Sequence[Row]) -> list[RawStudy]:
        found: list[RawStudy] = []
        seen: set[str] = set()
        known: dict[tuple[str, str], str] = {}
        for n, row in enumerate(rows, start=1):
            where, faults = f"studies.csv, row {n}", len(self.ledger.bad)
            masks = tuple(c for c in MASK_COLUMNS if row.get(c))
            with self.ledger.collecting(where):
                _check_ids(row, seen)
            for column in ("sex", "subset"):
                with self.ledger.collecting(where):
                    _check_same(row, column, known)
            with self.ledger.collecting(where):
                _check_masks(row, masks)
            files = self._files(where, row, masks)
            values: dict[str, Any] = {}
            for column, parse in _PARSERS.items():
                with self.ledger.collecting(where):
                    values[column] = parse(row, column)
            if len(self.ledger.bad) > faults:
                continue
            if not masks:
                self.ledger.exclude(row["study_id"], "it has no mask")
                continue
            entry = _Entry(masks, Metadata(**values))
            found.append(RawStudy(row["patient_id"], row["study_id"], files, entry))
        return found

    def _files(self, where: str, row: Row, masks: Sequence[str]) -> tuple[Path, ...]:
        """Image and masks; what is missing becomes a bad case."""
        files = []
        for column in ("image", *masks):
            path = self._folder / row[column]
            with self.ledger.collecting(where):
                if not row[column]:
                    raise UserError(f"study {row['study_id']!r} has no image; fill in its path.")
                if not path.exists():
                    raise UserError(f"{column} is {path}: no such file or folder; check the path.")
                if path.suffix.lower() == ".png":
                    raise UserError(
                        f"{column} is {path}: a PNG is one slice without a place; give the series"
                        " as .nii.gz, .mha or DICOM."
                    )
            files.append(path)
        return tuple(files)


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


def _check_masks(row: Row, masks: Sequence[str]) -> None:
    if "mask" in masks and len(masks) > 1:
        raise UserError(
            f"study {row['study_id']!r} has a mask and also {' and '.join(masks[1:])}; give the"
            " mask of labels, or a mask for each bone, not both."
        )
    if masks == ("scapula",):
        raise UserError(
            f"study {row['study_id']!r} has a scapula but no humerus; give both masks (only the"
            " scapula may be left out)."
        )


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


def _among(*allowed: str) -> Callable[[Row, str], str]:
    return lambda row, column: choice(row, column, allowed)


def _text(row: Row, column: str) -> str:
    return row.get(column, "")


_PARSERS: Mapping[str, Callable[[Row, str], Any]] = {
    "side": _among("left", "right"),
    "sequence": _text,
    "sex": _among("F", "M"),
    "age": lambda row, column: number(row, column, 0, 130),
    "manufacturer": _text,
    "field_strength_t": lambda row, column: number(row, column, 0, 30),
    "subset": _among("training", "validation"),
}
