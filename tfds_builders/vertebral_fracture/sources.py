"""What the sources of fractured vertebrae share, and the phantom source."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.geometry import resample_to
from mskjax.imaging.volume import Volume
from tfds_builders.phantoms.fracture import fracture_phantom
from tfds_builders.phantoms.fracture_readers import draw_calls, draw_findings
from tfds_builders.raw import Example, RawStudy, Source

MISSING = -1
_SEEDS_APART = 1_000_000  # patients a phantom cohort may have before it meets the next seed's
_ORDER = 102  # stream of the order of the classes, beside those of a patient


class Reading(TypedDict):
    """What one reader called a study, alone and with the model's aid; -1 where it was not read."""

    reader: str
    call: int
    aided_call: int


class Finding(TypedDict):
    """A binary imaging feature: 1 present, 0 absent, -1 not recorded."""

    name: str
    present: int


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Nothing to choose."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """The abnormal vertebral body on T1's grid in canonical (L, I, P) order.

    Attributes:
      slice: index of its slice.
      box: row0, col0, row1, col1 in pixels of that slice, half-open.
    """

    slice: int
    box: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of a study beside images and readings; ages in years, fields in tesla."""

    level: str = ""
    sex: str = ""
    age: float = math.nan
    manufacturer: str = ""
    field_strength_t: float = math.nan
    subset: str = ""


def example(
    study: RawStudy,
    t1: Volume,
    t2: Volume,
    label: int,
    segment: Segment,
    readers: Sequence[Reading],
    findings: Sequence[Finding],
    metadata: Metadata,
) -> Example:
    """Assembles one example of the data set; T2 is sampled, linearly, at T1's voxel centres.

    Args:
      study: names it.
      t1: in canonical order.
      t2: in any order, in T1's space.
      label: 0 benign, 1 malignant, -1 unknown.
      segment: on T1's grid.
      readers: their calls.
      findings: of a radiologist.
      metadata: the rest.
    """
    matched = resample_to(t2.data, t2.affine, t1.data.shape, t1.affine)
    return {
        "patient_id": study.patient_id,
        "study_id": study.study_id,
        "t1": np.ascontiguousarray(t1.data, np.float32),
        "t2": np.ascontiguousarray(matched, np.float32),
        "affine": t1.affine,
        "label": label,
        "slice": segment.slice,
        "box": np.asarray(segment.box, np.float32),
        "readers": list(readers),
        "findings": list(findings),
        **dataclasses.asdict(metadata),
    }


@dataclasses.dataclass(frozen=True)
class PhantomOptions:
    """Generated patients.

    Attributes:
      patients: how many.
      seed: of the first; two cohorts with different seeds share no patient.
      malignant_share: of the patients, rounded to whole patients.  The published cohort has 50 of
        190, .263; the default makes the most of few patients.
    """

    patients: int = 40
    seed: int = 0
    malignant_share: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= _SEEDS_APART:
            raise UserError(
                f"config.data.options.patients is {self.patients}; it must be 1 to {_SEEDS_APART}."
            )
        if self.seed < 0:
            raise UserError(f"config.data.options.seed is {self.seed}; it must not be negative.")
        if not 0 <= self.malignant_share <= 1:
            raise UserError(
                f"config.data.options.malignant_share is {self.malignant_share:g}; it must be 0 to"
                " 1."
            )


class PhantomSource(Source):
    """Generated fractures: the class is known exactly, appearance is schematic."""

    def __init__(self, options: PhantomOptions, folder: Path | None):
        del folder
        super().__init__()
        self._options = options
        self.ledger.notes += [
            "PHANTOM: generated images, no patient data.",
            "PHANTOM readers: their calls are drawn from published sensitivities and"
            " specificities, and findings are wrong at an assumed rate; nobody read these images.",
        ]

    def studies(self) -> list[RawStudy]:
        """One study a patient; the details are the patient's number and class."""
        options = self._options
        malignant = np.arange(options.patients) < round(options.malignant_share * options.patients)
        np.random.default_rng((options.seed, _ORDER)).shuffle(malignant)
        return [
            RawStudy(f"phantom{i:04d}", f"phantom{i:04d}_t1t2", details=(i, bool(malignant[i])))
            for i in range(options.patients)
        ]

    def read(self, study: RawStudy) -> Example:
        """Draws the patient."""
        number, malignant = study.details
        seed = self._options.seed * _SEEDS_APART + number
        phantom = fracture_phantom(seed, malignant)
        return example(
            study,
            Volume(phantom.t1, phantom.t1_affine),
            Volume(phantom.t2, phantom.t2_affine),
            int(malignant),
            Segment(phantom.slice, phantom.box),
            [
                {"reader": reader, "call": call, "aided_call": MISSING}
                for reader, call in draw_calls(seed, malignant).items()
            ],
            [
                {"name": name, "present": present}
                for name, present in draw_findings(seed, phantom.fracture.findings()).items()
            ],
            Metadata(
                level=phantom.fracture.level,
                sex=phantom.sex,
                age=float(phantom.age),
                field_strength_t=phantom.field_strength_t,
            ),
        )
