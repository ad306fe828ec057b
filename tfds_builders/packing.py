"""One pass over the studies of a cohort: examples out, and the account of it, the audit."""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mskjax.errors import BadCases, UserError
from mskjax.progress import Progress
from tfds_builders import outlines
from tfds_builders.raw import Example, RawStudy, Source
from tfds_builders.raw_files import RawFiles, Stamp, shared_files

# TFDS keeps the examples of one shard in memory while it writes the shard.
STUDIES_PER_SHARD = 8
_NAMED = 5  # files in a note of the audit; `file_notes` has all


class Builder(Protocol):
    """What packing asks of a cohort's builder (`common.CohortBuilder`)."""

    name: str
    version: Any
    builder_config: Any
    info: Any
    options: Any
    manual_dir: Path | None

    @property
    def base_config(self) -> str:
        """Name of the config as declared."""

    def source(self) -> Source:
        """A fresh source on the raw files."""

    def raw_files(self, known: Mapping[str, Stamp]) -> RawFiles:
        """The raw files, hashed."""

    def parts(self, example: Example) -> Mapping[str, bool]:
        """Which parts of a complete study an example has beside its image."""

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """Its graded structures: name of the grade to grade."""


class Packing:
    """One pass over a source: yields the examples and keeps the account.

    Attributes:
      studies: what is packaged, in the order of the study ids.
      raw: the raw files, hashed.
      outlines: lines of `outlines` of the studies so far.
    """

    def __init__(self, builder: Builder):
        self._builder = builder
        self._source = builder.source()
        self.studies = sorted(self._source.studies(), key=lambda s: s.study_id)
        self._ledger = self._source.ledger
        self.raw = builder.raw_files({})
        twins = shared_files(self.studies, self.raw)
        for study, other, name, twin in twins:
            what = name if name == twin else f"{name} (the same as {twin})"
            self._ledger.bad.append((study.study_id, _two_patients(study, other, what)))
        self._said = {study.study_id for study, *_ in twins}
        self._note_shared_masks()
        self._progress = Progress(f"packaging {self._name}", len(self.studies))
        self.outlines: list[str] = []
        self._digest = hashlib.sha256()
        self._counts: dict[str, Counter[int]] = {}
        self._cases = 0
        self._unsized = 0
        self._having: dict[str, dict[str, set[str]]] = {}
        self._images: dict[str, list[str]] = {}
        self._owners: dict[str, RawStudy] = {}
        if not self.studies:
            self._finish()

    @property
    def _name(self) -> str:
        return f"{self._builder.name}/{self._builder.base_config}"

    def examples(self, start: int) -> Iterator[tuple[str, Example]]:
        """The examples of one shard; once a case is bad, the rest is read only to be checked."""
        for study in self.studies[start : start + STUDIES_PER_SHARD]:
            example = None
            with self._ledger.collecting(study.study_id):
                example = self._source.read(study)
                self._check_images(study, example)
            self._progress.advance()
            if example is not None and not self._ledger.bad:
                self._account(study, example)
                yield study.study_id, example
        if start + STUDIES_PER_SHARD >= len(self.studies):
            self._finish()

    def audit(self) -> dict[str, Any]:
        """The content of audit.json, in the order in which it is read."""
        builder, config, ledger = self._builder, self._builder.builder_config, self._ledger
        return {
            "name": builder.name,
            "config": builder.base_config,
            "version": str(builder.version),
            "options": json.loads(json.dumps(dataclasses.asdict(builder.options))),
            "kind": config.kind,
            "licence": config.licence,
            "citation": config.citation,
            "patients": len({s.patient_id for s in self.studies}),
            "studies": len(self.studies),
            "cases": self._cases,
            "parts": {
                part: {kind: len(names) for kind, names in having.items()}
                for part, having in self._having.items()
            },
            "studies_without_pixel_size": self._unsized,
            "counts": {
                grade: {str(k): n for k, n in sorted(counts.items())}
                for grade, counts in self._counts.items()
            },
            "excluded": [{"id": name, "why": why} for name, why in ledger.excluded],
            "restricted": [{"id": name, "why": why} for name, why in ledger.restricted],
            "notes": self._notes(),
            "file_notes": {
                what: {self._relative(file): detail for file, detail in files.items()}
                for what, files in ledger.file_notes.items()
            },
            "fingerprint": self._digest.hexdigest(),
            "raw": self.raw.digest,
            "index": [[s.patient_id, s.study_id] for s in self.studies],
            "images": self._images,
        }

    def _note_shared_masks(self) -> None:
        """Notes a mask that two rows name for different images."""
        owners: dict[str, RawStudy] = {}
        for study in self.studies:
            for mask in study.files[study.images :]:
                first = owners.setdefault(os.path.realpath(mask), study)
                if first.files[: first.images] != study.files[: study.images]:
                    self._ledger.notes.append(
                        f"studies {first.study_id} and {study.study_id} have different images but"
                        f" one mask, {mask.name}: was a row copied?"
                    )

    def _check_images(self, study: RawStudy, example: Example) -> None:
        """Whether the study's images are its own.

        Raises:
          UserError: another patient has the same image.
        """
        hashes = self._images[study.study_id] = image_hashes(example)
        for sha256 in hashes:
            owner = self._owners.setdefault(sha256, study)
            if owner.patient_id != study.patient_id and study.study_id not in self._said:
                raise UserError(_two_patients(study, owner, "its image"))
            if owner.patient_id == study.patient_id and owner.study_id != study.study_id:
                self._ledger.notes.append(
                    f"studies {owner.study_id} and {study.study_id} of patient {study.patient_id}"
                    " hold the same image: its case counts twice"
                )

    def _account(self, study: RawStudy, example: Example) -> None:
        update_digest(self._digest, example)
        self.outlines.append(outlines.line(self._builder.info.features, example))
        self._unsized += not example["pixel_size_known"]
        for part, there in {"image": True, **self._builder.parts(example)}.items():
            having = self._having.setdefault(part, {"patients": set(), "studies": set()})
            if there:
                having["patients"].add(study.patient_id)
                having["studies"].add(study.study_id)
        for case in self._builder.graded(example):
            self._cases += 1
            for grade, value in case.items():
                self._counts.setdefault(grade, Counter())[int(value)] += 1

    def _notes(self) -> list[str]:
        """Remarks of the source, of the files, and on what is not known of them."""
        notes = list(self._ledger.notes)
        for what, files in self._ledger.file_notes.items():
            names = [
                self._relative(file) + (f" ({detail})" if detail else "")
                for file, detail in files.items()
            ]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            listing = ", ".join(names[:_NAMED]) + more
            notes.append(
                f"{what}: {listing}"
                if len(names) == 1
                else f"{what}: {len(names)} files, {listing}"
            )
        if self._unsized:
            notes.append(
                f"{self._unsized} of {len(self.studies)} studies do not say how large their pixels"
                " are: lengths are taken in pixels, no scale bar is drawn and no figure in mm given"
            )
        return notes

    def _relative(self, file: str) -> str:
        folder = self.raw.folder
        inside = folder and Path(file).resolve().is_relative_to(folder)
        return os.path.relpath(Path(file).resolve(), folder) if inside else file

    def _finish(self) -> None:
        self._progress.close()
        if self._ledger.bad:
            raise BadCases(
                f"{self._name} cannot be packaged, {len(self._ledger.bad)} entries are wrong",
                self._ledger.bad,
            )
        if not self.studies:
            excluded = "; ".join(f"{n}: {why}" for n, why in self._ledger.excluded[:5])
            raise UserError(
                f"{self._builder.manual_dir} holds no study that can be packaged"
                f" ({excluded or 'none was found'}); check manual_dir and the config's options."
            )


def _two_patients(study: RawStudy, other: RawStudy, what: str) -> str:
    return (
        f"patients {other.patient_id!r} (study {other.study_id!r}) and {study.patient_id!r} (study"
        f" {study.study_id!r}) share an image, {what}; a row was copied, or one person has two ids:"
        " mend the table."
    )


def image_hashes(example: Mapping[str, Any]) -> list[str]:
    """Content hashes of the images of a study, by which the same scan is known under two names.

    Args:
      example: its float32 volumes are its images.  A constant one stands for none and is left out.

    Returns:
      sha256, hexadecimal, of shape and voxels.
    """
    found = []
    for name in sorted(example):
        value = example[name]
        is_image = isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype == np.float32
        if is_image and value.min() < value.max():
            voxels = np.ascontiguousarray(value, "<f4").tobytes()
            found.append(hashlib.sha256(f"{value.shape}".encode() + voxels).hexdigest())
    return found


def update_digest(digest: Any, value: Any, name: str = "") -> None:
    """Feeds a nested example into a hash, keys in sorted order.

    Args:
      digest: a `hashlib` object.
      value: nested dicts and lists of arrays, strings and numbers.
      name: path of `value` in the example.
    """
    if isinstance(value, Mapping):
        for key in sorted(value):
            update_digest(digest, value[key], f"{name}/{key}")
        return
    if isinstance(value, list | tuple):
        digest.update(f"{name}#{len(value)}\n".encode())
        for i, item in enumerate(value):
            update_digest(digest, item, f"{name}/{i}")
        return
    array = np.asarray(value)
    if array.dtype.kind in "US":
        digest.update(f"{name}={array!s}\n".encode())
        return
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    digest.update(f"{name}:{array.dtype.str}{array.shape}\n".encode() + array.tobytes())
