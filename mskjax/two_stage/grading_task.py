"""What a system grades: a task of a report, and where its labels and probabilities come from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mskjax.metrics.grading import Grading
from mskjax.stages.grading import Head


@dataclasses.dataclass(frozen=True)
class GradingTask:
    """A grading of a system.

    Attributes:
      grading: task, classes, and how a class is chosen.
      head: of the network that is read.
      target: gives the class of a study's grade; None where that is the head itself.
      groups: class of each class of `head`; empty where each is a class of its own.
    """

    grading: Grading
    head: Head
    target: Head | None = None
    groups: tuple[int, ...] = ()

    def class_of(self, grades: Mapping[str, Any]) -> int:
        """Class of a case by its grades (column -> value); -1 where it has none in this task."""
        head = self.target or self.head
        own = int(head.target(grades.get(head.column or head.name, -1)))
        if own < 0 or self.target is not None or not self.groups:
            return own
        return self.groups[own]

    @property
    def sets(self) -> dict[str, list[int]]:
        """Class -> the grades that it holds, as cohorts write them; empty where each is a class.

        A grade that is in none of them is left out of the task.
        """
        head = self.target or self.head
        of_grade = head.grouped if self.target is not None else self.groups or head.grouped
        return {
            name: [head.lowest + i for i, own in enumerate(of_grade) if own == k]
            for k, name in enumerate(self.grading.classes if of_grade else ())
        }

    def probabilities(self, of_head: np.ndarray) -> np.ndarray:
        """(K,) float64 of the task from the (classes of the head,) probabilities of the head."""
        p = np.asarray(of_head, np.float64)
        if self.groups:
            p = np.bincount(self.groups, p, len(self.grading.classes)).astype(np.float64)
        return p
