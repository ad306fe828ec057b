"""What a report says of patients of another cohort, from what an external test left in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mskjax import cases
from mskjax.metrics.grading import Grading
from mskjax.reporting import artefacts, operating
from mskjax.tables import Row

CASES, RESULT, SHIFT = "cases.csv", "external.json", "shift.json"

Json = dict[str, Any]


class System(Protocol):
    """What is asked of a system, see `reporting.summary.System`."""

    stages: tuple[Any, ...]
    gradings: tuple[Grading, ...]
    method: str

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """The figures, from rows of cases.csv."""


def tests_of(workdir: Path) -> list[Path]:
    """Folders of the external tests that lie in a run."""
    return sorted(path.parent for path in workdir.glob(f"external/*/{RESULT}"))


def summarised(
    folder: Path, system: System, calibration: Mapping[str, Any], resamples: int, seed: int
) -> Json:
    """An external test.

    Args:
      folder: that `mskjax.external` left.
      system: of the run.
      calibration: content of calibration.json of the run.
      resamples: of the patient bootstrap.
      seed: of the bootstrap.

    Returns:
      ``name``, ``cohort``, ``members``, ``patients``, ``studies``, ``command``; ``figures``, those
      of regions and the end-to-end ones of all trainings together; ``oracle_region``,
      ``baselines``; ``operating``: see `operating.given`; ``each``: the figures of each training
      alone; ``tables``: what differs between the cohorts.
    """
    audit, result = (artefacts.content(folder / name) for name in ("cohort.json", RESULT))
    rows = cases.read(folder / CASES)
    found = system.summarise(rows, resamples, seed)
    first = system.stages[0].name
    each = []
    for name in result["members"] if len(result["members"]) > 1 else ():
        own = system.summarise(cases.read(folder / name / CASES), resamples, seed)
        each.append({"member": name, **_figures(own, first)})
    return {
        "name": f"{audit['name']}/{audit['config']}" if "config" in audit else audit["name"],
        "cohort": {k: audit[k] for k in ("name", "version", "kind", "licence", "fingerprint")},
        **{k: result[k] for k in ("members", "patients", "studies", "command")},
        **_figures(found, first),
        "baselines": found["baselines"],
        "operating": operating.given(
            rows, system.gradings, system.method, calibration, resamples, seed
        ),
        "each": each,
        "tables": [artefacts.content(folder / SHIFT)],
    }


def _figures(found: Json, first: str) -> Json:
    """Of regions and end to end under one roof, and those on reference regions."""
    return {
        "figures": {**found["stages"][first], **found["end_to_end"]},
        "oracle_region": found["oracle_region"],
    }
