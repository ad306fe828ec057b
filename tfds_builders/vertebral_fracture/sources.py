"""What the sources of fractured vertebrae share, and the phantom source."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.volume import Volume
from tfds_builders.columns import Metadata, shared_part
from tfds_builders.paired import Place, paired_part
from tfds_builders.phantoms.fracture import fracture_phantom
from tfds_builders.phantoms.fracture_readers import draw_calls, draw_findings
from tfds_builders.raw import Example, GeneratedOptions, GeneratedSource, RawStudy
from tfds_builders.vertebral_fracture.images import CHANNELS

MISSING = -1
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


def example(
    study: RawStudy,
    images: Example,
    label: int,
    segment: Place,
    level: str,
    readers: Sequence[Reading],
    findings: Sequence[Finding],
    metadata: Metadata,
) -> Example:
    """Assembles one example of the data set.

    Args:
      study: names it.
      images: the image part, T1 and T2 on T1's grid, in canonical order.
      label: 0 benign, 1 malignant, -1 unknown.
      segment: the abnormal vertebral body, on T1's grid.
      level: of that body; empty where it is not known.
      readers: their calls.
      findings: of a radiologist.
      metadata: the rest.
    """
    return {
        **shared_part(study, metadata),
        **images,
        "label": label,
        "slice": segment.slice,
        "box": np.asarray(segment.box, np.float32),
        "level": level,
        "readers": list(readers),
        "findings": list(findings),
    }


@dataclasses.dataclass(frozen=True)
class PhantomOptions(GeneratedOptions):
    """Generated patients.

    Attributes:
      malignant_share: of the patients, rounded to whole patients.  The published cohort has 50 of
        190, .263; the default makes the most of few patients.
    """

    patients: int = 40
    malignant_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.malignant_share <= 1:
            raise UserError(
                f"config.data.options.malignant_share is {self.malignant_share:g}; it must be 0 to"
                " 1."
            )


class PhantomSource(GeneratedSource):
    """Generated fractures: the class is known exactly, appearance is schematic."""

    series = "t1t2"

    def __init__(self, options: PhantomOptions, folder: Path | None):
        super().__init__(options, folder)
        self.ledger.notes.append(
            "PHANTOM readers: their calls are drawn from published sensitivities and"
            " specificities, and findings are wrong at an assumed rate; nobody read these images."
        )

    def studies(self) -> list[RawStudy]:
        """One study a patient; the details are the patient's number and class."""
        options = self.options
        malignant = np.arange(options.patients) < round(options.malignant_share * options.patients)
        np.random.default_rng((options.seed, _ORDER)).shuffle(malignant)
        return [
            dataclasses.replace(study, details=(study.details, bool(of_class)))
            for study, of_class in zip(super().studies(), malignant, strict=True)
        ]

    def read(self, study: RawStudy) -> Example:
        """Draws the patient."""
        number, malignant = study.details
        seed = self.options.seed_of(number)
        phantom = fracture_phantom(seed, malignant)
        t1, t2 = Volume(phantom.t1, phantom.t1_affine), Volume(phantom.t2, phantom.t2_affine)
        return example(
            study,
            paired_part(t1, t2, CHANNELS),
            int(malignant),
            Place(phantom.slice, phantom.box),
            phantom.fracture.level,
            [
                {"reader": reader, "call": call, "aided_call": MISSING}
                for reader, call in draw_calls(seed, malignant).items()
            ],
            [
                {"name": name, "present": present}
                for name, present in draw_findings(seed, phantom.fracture.findings()).items()
            ],
            Metadata(
                sex=phantom.sex,
                age=float(phantom.age),
                field_strength_t=phantom.field_strength_t,
            ),
        )
