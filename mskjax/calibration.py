"""What a run's probabilities are worth: temperature, sets and operating point of each grading.

Fitted on the cases that the run held out (`calibration_fit`), kept as ``calibration.json`` in its
folder, and applied to new studies by `Calibration`.  What is promised and what is not:
docs/calibration.md.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.calibration_fit import COVERAGES, FITTED_TO, as_json, fit, hash_of, nothing
from mskjax.errors import UserError
from mskjax.metrics import conformal
from mskjax.metrics.grading import Grading
from mskjax.metrics.operating_point import CRITERIA, HALF, Scale
from mskjax.metrics.temperature import apply_temperature
from mskjax.writers import write_json

CALIBRATION = "calibration.json"
COVERAGE = 0.9  # of sets, where nothing is said


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Temperatures, sets and operating points of a run.

    Attributes:
      content: of calibration.json.
    """

    content: Mapping[str, Any]

    def calibrated(self, task: str, method: str, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities at the temperature of a task; unchanged where none was fitted.

        Args:
          task: name of the grading.
          method: grader, e.g. `cases.MODEL`.
          probabilities: (..., K) float of a network or an ensemble; NaN where a region was missed.
        """
        return apply_temperature(probabilities, self._entry(task, method)["temperature"])

    def set_of(
        self, task: str, method: str, probabilities: np.ndarray, coverage: float = COVERAGE
    ) -> np.ndarray:
        """The classes that a case may have, see `metrics.conformal`.

        Args:
          task: name of the grading.
          method: grader.
          probabilities: (..., K) float, as the network gave them: not calibrated.
          coverage: that is promised of a random case of a new patient, in (0, 1).

        Returns:
          (..., K) bool.  It holds the call of these probabilities; all classes where the run has
          too few patients for the coverage; none where a region was missed.
        """
        grading = self._grading(task)
        p = np.asarray(probabilities, np.float64)
        flat, entry = p.reshape(-1, p.shape[-1]), self._entry(task, method)
        after = apply_temperature(flat, entry["temperature"])
        found = conformal.sets(after, grading.calls(flat), grading.ordinal, entry, coverage)
        return found.reshape(p.shape)

    def threshold(self, task: str, method: str, criterion: str = CRITERIA[0]) -> float:
        """The probability from which on a case of two classes is positive at the operating point.

        Args:
          task: name of the grading.
          method: grader.
          criterion: see `metrics.operating_point`.

        Returns:
          Of probabilities as the network gave them, not calibrated.  No call of a report or of a
          new study is made by it: these are made at a half.

        Raises:
          UserError: the grading has not two classes.
        """
        if len(self._grading(task).classes) != 2:
            raise UserError(f"{task} has more than two classes; an operating point takes two.")
        own = self._entry(task, method)["thresholds"]
        return float(own[criterion]["value"]) if own else HALF

    def rescaled(self, task: str, method: str, probabilities: np.ndarray) -> np.ndarray:
        """Calls of an ordered grading whose expectations have the spread of the run's references.

        Args:
          task: name of the grading.
          method: grader.
          probabilities: (..., K) float, as the network gave them: not calibrated.

        Returns:
          (...) int32 class, K where a region was missed.  No call of a report or of a new study is
          made so: these are rounded expectations (`metrics.operating_point.Scale`).

        Raises:
          UserError: the classes have no order, or there are two.
        """
        grading = self._grading(task)
        if not grading.ordinal or len(grading.classes) == 2:
            raise UserError(f"{task} has no more than two ordered classes; a scale takes them.")
        scale = Scale(**self._entry(task, method)["scale"])
        return scale.calls(grading.expected(probabilities), grading)

    def statement(self, task: str, method: str, coverage: float = COVERAGE) -> str:
        """What the probabilities and sets of a task rest on, in a sentence or two."""
        entry, percent = self._entry(task, method), f"{100 * coverage:g} %"
        n, patients = entry["cases"], entry["patients"]
        where = f"{n} held-out cases of {patients} patients"
        said = f"Probabilities of {task}: temperature {entry['temperature']:.3g} fitted on {where}"
        if entry["why"]:
            said = f"Probabilities of {task}: temperature {entry['temperature']:g} ({entry['why']})"
        least = conformal.least_patients(coverage)
        if patients < least:
            said += f"; {percent} sets hold all classes: they take {least} patients, not {patients}"
        elif checked := self._checked(entry, coverage):
            held = checked["held"]
            said += f"; {percent} sets held the reference in {100 * held['value']:.0f} %"
            if held["ci95"]:
                said += " ({:.0f} to {:.0f})".format(*(100 * bound for bound in held["ci95"]))
            said += f" of {held['n']} cases of {held['patients']} patients left out of the fit"
        else:
            said += f"; {percent} sets were not checked, only those of "
            said += ", ".join(f"{100 * known:g} %" for known in COVERAGES)
        return " ".join([f"{said}.", *self.content["caveats"]])

    def _grading(self, task: str) -> Grading:
        for entry in self.content["gradings"]:
            if entry["task"] == task:
                return Grading(task, tuple(entry["classes"]), entry["ordinal"])
        known = ", ".join(entry["task"] for entry in self.content["gradings"]) or "nothing"
        raise UserError(f"the run grades {known}, not {task}; give a run of this system.")

    def _entry(self, task: str, method: str) -> Mapping[str, Any]:
        self._grading(task)
        return self.content["tasks"].get(task, {}).get(method) or nothing(0, 0)

    @staticmethod
    def _checked(entry: Mapping[str, Any], coverage: float) -> Mapping[str, Any] | None:
        own = (entry["check"] or {}).get("sets", ())
        return next((part for part in own if part["coverage"] == coverage), None)


def load(run: Path, gradings: Sequence[Grading]) -> Calibration:
    """The calibration of a run: the one it kept, or a new one where cases.csv is another by now.

    Args:
      run: folder of a study, ``--workdir`` of the command that trained it.
      gradings: of its system.

    Raises:
      UserError: the folder is no run that was evaluated.
    """
    table, path = run / "cases.csv", run / CALIBRATION
    if not table.exists():
        raise UserError(f"{table} is missing; run with --mode=evaluate first.")
    if path.exists():
        content = json.loads(path.read_text())
        made_of = (hash_of(table), as_json(gradings), FITTED_TO)
        if made_of == tuple(map(content.get, ("cases_sha256", "gradings", "criteria"))):
            return Calibration(content)
    return Calibration(fit(run, gradings))


def write(run: Path, gradings: Sequence[Grading]) -> None:
    """Writes ``calibration.json`` of an evaluated run, where it grades anything."""
    if gradings:
        write_json(run / CALIBRATION, fit(run, gradings))
