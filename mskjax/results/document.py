"""``result.json``: a result as JSON, by the schema beside this file."""

import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mskjax import __version__
from mskjax.results.result import DISCLAIMER, Box, Flag, Grade, Region, Result

VERSION = 1  # of the schema; a reader refuses those that it does not know


@functools.cache
def schema() -> Mapping[str, Any]:
    """The JSON schema (draft 2020-12) of `document`."""
    return json.loads((importlib.resources.files(__package__) / "result.schema.json").read_text())


def document(result: Result, files: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """What ``result.json`` holds.

    Args:
      result: what was found.
      files: what was written beside it, as in the schema.
      notes: on writing; they follow those of the result.
    """
    return {
        "version": VERSION,
        "disclaimer": DISCLAIMER,
        "software": f"mskjax {__version__}",
        "study": result.study,
        "system": result.system,
        "title": result.title,
        "run": dict(result.run),
        "series": dict(result.series),
        "coverage": result.coverage,
        "regions": [_region(region) for region in result.regions],
        "volumes_ml": {name: float(v) for name, v in result.volumes_ml.items()},
        "flags": [{"kind": flag.kind, "text": flag.text} for flag in result.flags],
        "notes": [*result.notes, *notes],
        "files": dict(files),
    }


def restored(content: Mapping[str, Any]) -> Result:
    """The result that a document is of, without images and sources."""
    return Result(
        study=content["study"],
        system=content["system"],
        title=content["title"],
        run=content["run"],
        series=content["series"],
        regions=tuple(_restored(region) for region in content["regions"]),
        flags=tuple(Flag(**flag) for flag in content["flags"]),
        volumes_ml=content["volumes_ml"],
        notes=tuple(content["notes"]),
        coverage=content["coverage"],
    )


def _restored(region: Mapping[str, Any]) -> Region:
    box = region["box"] and Box(
        tuple(region["box"]["start"]),
        tuple(region["box"]["stop"]),
        tuple(tuple(point) for point in region["box"]["corners_mm"]),
    )
    grades = []
    for grade in region["grades"]:
        chosen = grade["prediction_set"]
        own = None if chosen is None else tuple(chosen)
        grades.append(Grade(**{**grade, "prediction_set": own}))
    return Region(**{**region, "box": box, "grades": tuple(grades)})


def _region(region: Region) -> dict[str, Any]:
    return {
        "name": region.name,
        "caveat": region.caveat,
        "level": region.level,
        "score": region.score,
        "box": None if region.box is None else _box(region.box),
        "grades": [_grade(grade) for grade in region.grades],
        "note": region.note,
    }


def _box(box: Box) -> dict[str, Any]:
    return {
        "start": list(box.start),
        "stop": list(box.stop),
        "corners_mm": [list(point) for point in box.corners_mm],
    }


def _grade(grade: Grade) -> dict[str, Any]:
    chosen = grade.prediction_set
    return {
        "task": grade.task,
        "ordinal": grade.ordinal,
        "call": grade.call,
        "probabilities": {name: float(p) for name, p in grade.probabilities.items()},
        "prediction_set": None if chosen is None else list(chosen),
        "agreement": grade.agreement,
    }
