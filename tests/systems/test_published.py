"""Published figures bear the names of figures that a run of the default config computes."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from mskjax import cases, systems
from mskjax.config import StudyConfig, parse
from mskjax.metrics.estimates import STRUCTURE_METRICS
from mskjax.systems.shoulder_bones import SCORED

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
STUDIES = 12


def declared(name):
    values = runpy.run_path(str(EXPERIMENTS / f"{name}.py"))["get_config"]().to_dict()
    return systems.load(name).build(parse(StudyConfig, values))


def rows_of(system):
    """A scored study in each row, every structure outlined and every class graded."""
    found = []
    for i in range(STUDIES):
        who = {"fold": i % 2, "patient": f"p{i}", "study": f"s{i}"}
        first = system.stages[0]
        outlined = SCORED if system.name == "shoulder_bones" else {"": ()}
        for method, names in outlined.items():
            for name in names or getattr(first, "structures", ()):
                scores = dict.fromkeys((*STRUCTURE_METRICS, "loss"), 0.5)
                found.append({**who, "kind": "structure", "method": method, "name": name, **scores})
        graded = {**who, "kind": "grade", "case": f"s{i}"}
        for task in getattr(system, "tasks", ()):
            count = len(task.grading.classes)
            p = dict.fromkeys(system.graders, np.eye(count)[i % count])
            simple = {"majority": 0, "ridge": 0.5}
            graded |= cases.cells(task.grading, i % count, p, p, simple)
        if hasattr(system, "tasks"):
            found.append(graded)
    return [{k: str(v) for k, v in row.items()} for row in found]


@pytest.mark.parametrize("name", systems.names())
def test_published_figures_stand_beside_ours_or_say_what_a_run_would_need(name):
    system = declared(name)
    report = system.summarise(rows_of(system), 20, 0)
    ours = set(report["end_to_end"]).union(*report["stages"].values())
    assert system.primary in report["end_to_end"]
    assert system.published
    missing = {p.metric for p in system.published if p.metric not in ours}
    assert missing == {p.metric for p in system.published if p.needs}
