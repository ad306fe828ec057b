"""The audit of a cohort: what was found, left out and why, from the accounts of its shards."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tfds_builders.raw import Ledger, RawStudy
from tfds_builders.raw_files import RawFiles, shared_files
from tfds_builders.shards import Entry

_NAMED = 5  # files in a note of the audit; `file_notes` has all


class Builder(Protocol):
    """What an audit asks of a cohort's builder (`common.CohortBuilder`)."""

    name: str
    version: Any
    builder_config: Any
    options: Any

    @property
    def base_config(self) -> str:
        """Name of the config as declared."""


class Audit:
    """Adds up the accounts of studies, in the order of their ids.

    Args:
      builder: of the cohort.
      studies: what is packaged.
      ledger: of the source, after it has listed them; what is found is added.
      raw: the raw files, hashed.
    """

    def __init__(
        self, builder: Builder, studies: Sequence[RawStudy], ledger: Ledger, raw: RawFiles
    ):
        self._builder, self._studies, self._ledger, self._raw = builder, studies, ledger, raw
        self._counts: dict[str, Counter[int]] = {}
        self._cases = 0
        self._unsized = 0
        self._having: dict[str, dict[str, set[str]]] = {}
        self._images: dict[str, list[str]] = {}
        self._owners: dict[str, RawStudy] = {}
        twins = shared_files(studies, raw)
        for study, other, name, twin in twins:
            what = name if name == twin else f"{name} (the same as {twin})"
            ledger.bad.append((study.study_id, _two_patients(study, other, what)))
        self._said = {study.study_id for study, *_ in twins}
        self._note_shared_masks()

    def add(self, study: RawStudy, entry: Entry) -> None:
        """Takes the account of the next study."""
        self._ledger.add(Ledger.from_json(entry.ledger))
        if entry.ledger["bad"]:
            return
        self._images[study.study_id] = list(entry.images)
        self._check_images(study)
        if self._ledger.bad:
            return
        self._unsized += not entry.sized
        for part, there in {"image": True, **entry.parts}.items():
            having = self._having.setdefault(part, {"patients": set(), "studies": set()})
            if there:
                having["patients"].add(study.patient_id)
                having["studies"].add(study.study_id)
        for case in entry.cases:
            self._cases += 1
            for grade, value in case.items():
                self._counts.setdefault(grade, Counter())[value] += 1

    def content(self, fingerprint: str) -> dict[str, Any]:
        """The content of audit.json, in the order in which it is read."""
        builder, config, ledger = self._builder, self._builder.builder_config, self._ledger
        return {
            "name": builder.name,
            "config": builder.base_config,
            "version": str(builder.version),
            "options": json.loads(json.dumps(dataclasses.asdict(builder.options))),
            "kind": getattr(builder.options, "kind", config.kind),
            "licence": config.licence,
            "citation": config.citation,
            "patients": len({s.patient_id for s in self._studies}),
            "studies": len(self._studies),
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
            "fingerprint": fingerprint,
            "raw": self._raw.digest,
            "index": [[s.patient_id, s.study_id] for s in self._studies],
            "images": self._images,
        }

    def _note_shared_masks(self) -> None:
        """Notes a mask that two rows name for different images."""
        owners: dict[str, RawStudy] = {}
        for study in self._studies:
            for mask in study.files[study.images :]:
                first = owners.setdefault(os.path.realpath(mask), study)
                if first.files[: first.images] != study.files[: study.images]:
                    self._ledger.notes.append(
                        f"studies {first.study_id} and {study.study_id} have different images but"
                        f" one mask, {mask.name}: was a row copied?"
                    )

    def _check_images(self, study: RawStudy) -> None:
        """Whether the study's images are its own; another patient's are a fault."""
        for sha256 in self._images[study.study_id]:
            owner = self._owners.setdefault(sha256, study)
            if owner.patient_id != study.patient_id and study.study_id not in self._said:
                why = _two_patients(study, owner, "its image")
                self._ledger.bad.append((study.study_id, why))
                return
            if owner.patient_id == study.patient_id and owner.study_id != study.study_id:
                self._ledger.notes.append(
                    f"studies {owner.study_id} and {study.study_id} of patient {study.patient_id}"
                    " hold the same image: its case counts twice"
                )

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
                f"{self._unsized} of {len(self._studies)} studies do not say how large their pixels"
                " are: lengths are taken in pixels, no scale bar is drawn and no figure in mm given"
            )
        return notes

    def _relative(self, file: str) -> str:
        folder = self._raw.folder
        inside = folder and Path(file).resolve().is_relative_to(folder)
        return os.path.relpath(Path(file).resolve(), folder) if inside else file


def _two_patients(study: RawStudy, other: RawStudy, what: str) -> str:
    return (
        f"patients {other.patient_id!r} (study {other.study_id!r}) and {study.patient_id!r} (study"
        f" {study.study_id!r}) share an image, {what}; a row was copied, or one person has two ids:"
        " mend the table."
    )
