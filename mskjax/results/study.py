"""The files of one study: masks, tables of labels, picture, result.json, DICOM SEG and SR."""

import importlib.util
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mskjax.imaging.files import write_volume
from mskjax.results.document import document
from mskjax.results.result import Result
from mskjax.writers import write_bytes, write_json, write_text

RESULT, LABELS, PICTURE = "result.json", "labels.json", "picture.png"
SEGMENTATION, REPORT = "segmentation.dcm", "report.dcm"
_LONGEST_NAME = 100  # characters of a file name, its ending apart


def write_study(
    folder: Path, result: Result, *, keep_ids: bool = False, salt: bytes | None = None
) -> tuple[str, ...]:
    """Writes everything of one study; ``result.json`` comes last, so where it is the rest is whole.

    Args:
      folder: made where missing.
      result: what was found.
      keep_ids: whether DICOM output bears the patient's and the study's own values; else the
        study's name stands for the patient and dates are empty.
      salt: key of hashes that stand for the UIDs of the source; studies written with one salt share
        the patient's frame of reference and study where they did before.  None writes the UIDs
        themselves, by which a viewer lays the segmentation over its images.

    Returns:
      Notes on what was left out and what should be known of what was written, sentences; they
      stand in ``result.json``, too.
    """
    (folder / RESULT).unlink(missing_ok=True)  # of an earlier reading: the rest is about to change
    stem = file_stem(result.study)
    masks = []
    for mask in result.masks:
        name = f"{stem}{'_' if mask.name else ''}{mask.name}.nii.gz"
        write_volume(folder / name, mask.volume)
        masks.append(
            {"file": name, "name": mask.name, "labels": {str(k): v for k, v in mask.labels.items()}}
        )
    if masks:
        write_json(folder / LABELS, {str(m["file"]): m["labels"] for m in masks})
    if result.picture is not None:
        write_bytes(folder / PICTURE, result.picture)
    datasets, notes = _dicom(result, keep_ids, salt)
    for name, dataset in datasets.items():
        write_bytes(folder / name, _encoded(dataset))
    files: dict[str, Any] = {
        "masks": masks,
        "labels": LABELS if masks else None,
        "picture": None if result.picture is None else PICTURE,
        "segmentation": SEGMENTATION if SEGMENTATION in datasets else None,
        "report": REPORT if REPORT in datasets else None,
    }
    content = document(result, files, notes)
    write_text(folder / RESULT, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return notes


def file_stem(study: str) -> str:
    """A study's name as a file name: letters, digits, ``.``, ``_`` and ``-``, no dot in front."""
    stem = re.sub(r"[^\w.-]", "_", study, flags=re.ASCII)[:_LONGEST_NAME]
    return re.sub(r"^\.+", "_", stem) or "_"


def _dicom(
    result: Result, keep_ids: bool, salt: bytes | None
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The DICOM objects by file name, and notes."""
    if not any(result.sources.values()):
        return {}, ()
    if importlib.util.find_spec("highdicom") is None:
        return {}, (
            f"{SEGMENTATION} and {REPORT} are left out: highdicom is not installed"
            " (pip install 'mskjax[dicom]').",
        )
    from mskjax.results.dicom import dicom_objects

    found, notes = dicom_objects(result, keep_ids, salt)
    names = {SEGMENTATION: found.segmentation, REPORT: found.report}
    return {name: dataset for name, dataset in names.items() if dataset is not None}, notes


def _encoded(dataset: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
