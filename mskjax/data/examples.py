"""The training examples of one stage, cut once for all folds; a fold takes rows of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.data import pipeline, splits
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.progress import Progress, say


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The training examples of one stage, of the whole cohort.

    Attributes:
      examples: arrays with N rows.
      patients: N patient ids.
      cases: N case ids, or None where examples are not graded cases.
    """

    examples: Examples
    patients: np.ndarray
    cases: np.ndarray | None

    def rows(self, fold: splits.Fold, part: str) -> np.ndarray:
        """Numbers of the examples of one part (``train``, ``validation``, ``test``) of a fold."""
        if fold.cases is not None and self.cases is not None:
            inside = [fold.cases.get(str(c)) == part for c in self.cases]
        else:
            inside = list(np.isin(self.patients, getattr(fold, part)))
        return np.flatnonzero(inside)

    def training_rows(self, fold: splits.Fold, title: str) -> np.ndarray:
        """Numbers of the training examples of a fold.

        Raises:
          UserError: it has none.
        """
        chosen = self.rows(fold, "train")
        if not len(chosen):
            raise UserError(
                f"{title}: no training example among {len(fold.train)} patients; give a division"
                " with patients who have what this stage learns from."
            )
        return chosen


def prepare(
    stage: str,
    cut: Callable[[Mapping[str, Any]], Examples | None],
    studies: Sequence[Mapping[str, Any]],
    patients: Sequence[str],
) -> Prepared:
    """Cuts every training example of a stage.

    Args:
      stage: its name.
      cut: the examples of a study, ``case`` with their ids among them where they are graded cases;
        None where it has none.
      studies: of the whole cohort.
      patients: the patient of each.

    Raises:
      UserError: there is no example.
    """
    parts, owners, cases = [], [], []
    progress = Progress(f"preparing {stage}", len(patients))
    for number, patient in enumerate(patients):
        examples = cut(studies[number])
        if examples is not None:
            cases += list(examples.pop("case", ()))
            owners += [patient] * pipeline.count(examples)
            parts.append(examples)
        progress.advance()
    progress.close()
    if not parts:
        raise UserError(f"the cohort has no training example for stage {stage}.")
    examples = pipeline.concatenate(parts)
    say(
        f"stage {stage}: {pipeline.count(examples)} examples,"
        f" {pipeline.megabytes(examples):.0f} MB in memory"
    )
    return Prepared(examples, np.array(owners), np.array(cases) if cases else None)
