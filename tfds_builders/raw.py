"""Where a cohort comes from, as a builder sees it: sources, studies and the ledger of faults."""

import abc
import contextlib
import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mskjax.errors import FileNote, UserError

Example = dict[str, Any]

KINDS = ("real", "derived", "phantom")  # of images
_LISTS = ("excluded", "restricted", "bad", "notes")
_SEEDS_APART = 1_000_000  # patients a phantom cohort may have before it meets the next seed's


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Nothing to choose."""


@dataclasses.dataclass(frozen=True)
class OwnOptions:
    """What only the user can say of studies of their own.

    Attributes:
      kind: ``real``, images of patients; ``derived``, made from other images (simulated, resampled
        or generated ones); ``phantom``, of objects or generated.  Reports repeat it.
    """

    kind: str = "real"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(
                f"config.data.options.kind is {self.kind!r}; it must be one of {', '.join(KINDS)}."
            )


@dataclasses.dataclass(frozen=True)
class GeneratedOptions:
    """Generated patients.

    Attributes:
      patients: how many.
      seed: of the first; two cohorts with different seeds share no patient.
    """

    patients: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= _SEEDS_APART:
            raise UserError(
                f"config.data.options.patients is {self.patients}; it must be 1 to {_SEEDS_APART}."
            )
        if self.seed < 0:
            raise UserError(f"config.data.options.seed is {self.seed}; it must not be negative.")

    def seed_of(self, patient: int) -> int:
        """The seed that draws a patient, counted from 0."""
        return self.seed * _SEEDS_APART + patient


@dataclasses.dataclass(frozen=True)
class RawStudy:
    """One study to be packaged, as the tables and folders name it.

    Attributes:
      patient_id: never empty.
      study_id: unique in the cohort, and usable as a file name.
      files: what `Source.read` will read, images first.
      details: whatever the source needs to read it.
      images: how many of `files` are images; what follows are masks.
    """

    patient_id: str
    study_id: str
    files: tuple[Path, ...] = ()
    details: Any = None
    images: int = 1


class Ledger:
    """What a pass over the raw files came upon.

    Attributes:
      excluded: (id, why) of what is left out as a whole; the cohort is packaged without.
      restricted: (id, why) of what is kept for a part of the study only, or without a part.
      bad: (id, why) of what the user has to mend; nothing is packaged.
      notes: remarks on the whole cohort.
      file_notes: remark to the files it is true of, each with what is its own.
    """

    def __init__(self) -> None:
        self.excluded: list[tuple[str, str]] = []
        self.restricted: list[tuple[str, str]] = []
        self.bad: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.file_notes: dict[str, dict[str, str]] = {}

    def exclude(self, name: str, why: str) -> None:
        """Leaves a study, or one of its structures, out."""
        self.excluded.append((name, why))

    def restrict(self, name: str, why: str) -> None:
        """Keeps a study for a part of what it could serve for."""
        self.restricted.append((name, why))

    @contextlib.contextmanager
    def collecting(self, name: str) -> Iterator[None]:
        """Turns a `UserError` of the block into a bad case, so that the pass goes on.

        `FileNote`s of the block are kept; other warnings go their way.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FileNote)
            try:
                yield
            except UserError as error:
                self.bad.append((name, str(error)))
        for warning in caught:
            message = warning.message
            if isinstance(message, FileNote):
                self.file_notes.setdefault(message.what, {})[message.file] = message.detail
            else:
                warnings.warn_explicit(message, warning.category, warning.filename, warning.lineno)

    @contextlib.contextmanager
    def apart(self) -> Iterator["Ledger"]:
        """A ledger that has, when the block ends, what the block would have added to this one."""
        own, other = self.file_notes, Ledger()
        starts = {name: len(getattr(self, name)) for name in _LISTS}
        self.file_notes = other.file_notes
        try:
            yield other
        finally:
            self.file_notes = own
            for name, start in starts.items():
                entries = getattr(self, name)
                getattr(other, name).extend(entries[start:])
                del entries[start:]

    def add(self, other: "Ledger") -> None:
        """Appends what another ledger has."""
        for name in _LISTS:
            getattr(self, name).extend(getattr(other, name))
        for what, files in other.file_notes.items():
            self.file_notes.setdefault(what, {}).update(files)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads back."""
        return {name: getattr(self, name) for name in (*_LISTS, "file_notes")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Ledger":
        """What `to_json` wrote; pairs are tuples again."""
        ledger = cls()
        for name in ("excluded", "restricted", "bad"):
            getattr(ledger, name).extend((who, why) for who, why in content[name])
        ledger.notes += content["notes"]
        ledger.file_notes |= content["file_notes"]
        return ledger


class Source(abc.ABC):
    """One layout of raw files.

    Attributes:
      ledger: exclusions and faults so far; complete once every study has been read.
      tables: table files that were read, by `studies`.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.tables: tuple[Path, ...] = ()

    @abc.abstractmethod
    def studies(self) -> list[RawStudy]:
        """Reads the tables and lists the studies to be packaged; no image is opened."""

    @abc.abstractmethod
    def read(self, study: RawStudy) -> Example:
        """One example, with every feature of the builder.

        Several processes read, so what one learns another does not know: what is true of all
        studies together is for `remarks`.

        Raises:
          UserError: the study's files are wrong.
        """

    def remarks(self, outlines: Iterable[Mapping[str, Any]]) -> list[str]:
        """Notes on the studies as a whole.

        Args:
          outlines: of every study that is packaged (`tfds_builders.outlines`).
        """
        del outlines
        return []


class GeneratedSource(Source):
    """Generated patients, one study each unless `studies` is overridden.

    Attributes:
      series: ends the ids of the studies.
      options: as given.
    """

    series: str

    def __init__(self, options: Any, folder: Path | None):
        del folder
        super().__init__()
        self.options = options
        self.ledger.notes.append("PHANTOM: generated images, no patient data.")

    def studies(self) -> list[RawStudy]:
        """The studies; the details are the patient's number."""
        names = [f"phantom{i:04d}" for i in range(self.options.patients)]
        return [RawStudy(n, f"{n}_{self.series}", details=i) for i, n in enumerate(names)]


def folder_of(path: Path | None) -> Path:
    """The raw folder, checked.

    Raises:
      UserError: it is not an existing folder.
    """
    if path is None or not path.is_dir():
        raise UserError(f"manual_dir {path} is not a folder; give the folder of the raw files.")
    return path
