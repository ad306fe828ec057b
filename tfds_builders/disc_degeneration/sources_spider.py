"""SPIDER (van der Graaf et al., Sci Data 11:264, 2024): the archive and the T2-SPACE sample."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask
from tfds_builders.disc_degeneration.images import read_images
from tfds_builders.disc_degeneration.sources import (
    DiscSource,
    as_semantic,
    checked_semantic,
    example,
)
from tfds_builders.raw import Example, NoOptions, RawStudy, folder_of
from tfds_builders.spider import SpiderTables

SEQUENCES = ("t1", "t2", "t2_SPACE", "STIR")
_IMAGE_NAME = re.compile(r"(?P<patient>[^_]+)_(?P<series>t1|t2|t2_SPACE)\.mha")


@dataclasses.dataclass(frozen=True)
class SpiderOptions:
    """Which series of the archive are studies.

    Attributes:
      series: any of t1, t2, t2_SPACE and STIR.  The default is what Pfirrmann grading is defined
        on, sagittal T2 turbo spin echo; a file named t2 that is STIR by its header is left out
        unless STIR is asked for.
    """

    series: tuple[str, ...] = ("t2",)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.series) - set(SEQUENCES))
        if unknown or not self.series:
            raise UserError(
                f"config.data.options.series has {', '.join(unknown) or 'nothing'}; choose from"
                f" {', '.join(SEQUENCES)}."
            )


class _SpiderSource(DiscSource):
    """A source with SPIDER's two tables."""

    spider: SpiderTables

    def __init__(self, folder: Path | None):
        super().__init__()
        self.folder = folder_of(folder)

    def read_tables(self) -> None:
        """Reads the tables; faults become bad cases."""
        self.spider = SpiderTables(self.folder, self.ledger)
        self.tables = self.spider.files

    def note_absences(self, studies: Sequence[RawStudy]) -> None:
        """Notes what the tables and the folder do not share."""
        self.spider.check_patients(s.patient_id for s in studies)
        ungradable = set(self.spider.gradings) - {s.patient_id for s in studies}
        if ungradable:
            self.ledger.notes.append(
                f"{len(ungradable)} graded patients have no series here that is packaged"
            )
        overview = self.spider.overview
        silent = [s.study_id for s in studies if s.study_id not in overview]
        if silent and overview:
            self.ledger.notes.append(f"no row in overview.csv: {', '.join(silent)}")


class T2SpaceSource(_SpiderSource):
    """``<patient>_T2w.nii.gz`` and ``<patient>_seg.nii.gz`` (semantic), beside the two tables."""

    def __init__(self, options: NoOptions, folder: Path | None):
        del options
        super().__init__(folder)

    def studies(self) -> list[RawStudy]:
        """One T2-SPACE series a patient."""
        self.read_tables()
        images = {p.name.removesuffix("_T2w.nii.gz"): p for p in self.folder.glob("*_T2w.nii.gz")}
        masks = {p.name.removesuffix("_seg.nii.gz"): p for p in self.folder.glob("*_seg.nii.gz")}
        found = []
        for patient in sorted({*images, *masks}):
            if patient not in images or patient not in masks:
                lacking = "_T2w" if patient not in images else "_seg"
                self.ledger.bad.append(
                    (patient, f"{self.folder / (patient + lacking)}.nii.gz is missing; copy it.")
                )
                continue
            files = images[patient], masks[patient]
            found.append(RawStudy(patient, f"{patient}_t2_SPACE", files))
        self.note_absences(found)
        self.ledger.notes.append(
            "every second slice of the series, 8 bit, rescaled slice by slice; the left-right"
            " direction is assumed"
        )
        return found

    def read(self, study: RawStudy) -> Example:
        """Counts the discs of the mask from the lowest up."""
        image, outlined = study.files
        images = read_images({"image": image})
        mask = checked_semantic(read_mask(outlined, images.volume).data, outlined)
        gradings = self.spider.gradings.get(study.patient_id, [])
        levels, joined = self.join_by_count(study, mask, images.part["affine"], gradings)
        metadata = self.spider.metadata(study.study_id)
        return example(study, images.part, mask, levels, joined, "t2_SPACE", metadata)


class SpiderSource(_SpiderSource):
    """The archive as published: ``images/``, ``masks/`` and the two tables."""

    def __init__(self, options: SpiderOptions, folder: Path | None):
        super().__init__(folder)
        self._chosen = options.series

    def studies(self) -> list[RawStudy]:
        """The chosen series, one study each."""
        self.read_tables()
        images = self.folder / "images"
        if not images.is_dir():
            self.ledger.bad.append(("images", f"{images} is not a folder; unpack images.zip."))
            return []
        found, others = [], Counter[str]()
        for path in sorted(images.iterdir()):
            if path.name.startswith("."):
                continue
            name = _IMAGE_NAME.fullmatch(path.name)
            if name is None:
                self.ledger.bad.append(
                    (path.name, "is not named <patient>_<t1|t2|t2_SPACE>.mha; move it away.")
                )
                continue
            sequence = self._sequence(path.stem, name["series"])
            if sequence in self._chosen:
                found += self._with_mask(name["patient"], path, sequence)
            elif name["series"] in self._chosen:
                self.ledger.exclude(path.stem, f"named {name['series']}, but its header says STIR")
            else:
                others[sequence] += 1
        for sequence, count in sorted(others.items()):
            self.ledger.notes.append(f"{count} {sequence} series are not chosen (option series)")
        self.note_absences(found)
        return found

    def read(self, study: RawStudy) -> Example:
        """Levels come from the mask's instance labels."""
        image, outlined = study.files
        images = read_images({"image": image})
        mask, levels = as_semantic(read_mask(outlined, images.volume).data, outlined)
        gradings = self.spider.gradings.get(study.patient_id, [])
        joined = self.join_by_label(study, levels, gradings)
        metadata = self.spider.metadata(study.study_id)
        return example(study, images.part, mask, levels, joined, study.details, metadata)

    def _with_mask(self, patient: str, image: Path, sequence: str) -> list[RawStudy]:
        mask = self.folder / "masks" / image.name
        if not mask.is_file():
            self.ledger.bad.append((image.stem, f"{mask} is missing; unpack masks.zip."))
            return []
        return [RawStudy(patient, image.stem, (image, mask), sequence)]

    def _sequence(self, name: str, series: str) -> str:
        row = self.spider.overview.get(name, {})
        if series != "t2":
            return series
        if row.get("SequenceName", "").startswith("*spc"):
            # Eleven such rows of the archive belong to images with the matrix of the patient's
            # 2-D T1 series: the header was copied, the image is what its name says.
            self.ledger.notes.append(f"{name}: overview.csv has the header of a T2-SPACE series")
        return "STIR" if self.spider.is_stir(name) else "t2"
