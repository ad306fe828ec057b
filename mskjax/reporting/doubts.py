"""Reference grades that held-out networks doubt, by patient: a sensitivity analysis, no result.

Labels are one reader's, and some are wrong.  A network that has not seen a patient says how likely
it finds the reference of each case; a patient whose references are all unlikely is worth a second
look.  The unit is the patient, because a reader's slip, a mixed-up level or a mixed-up patient
touches all cases of one.  Nothing is dropped anywhere else in a report, and the figures without
the most doubtful patients must never be quoted alone: leaving out those that a network is furthest
off in raises a figure in any run, with perfect labels too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mskjax.cases import Graded, graded
from mskjax.imaging.levels import spoken
from mskjax.metrics import grading_figures as g
from mskjax.metrics.grading import Grading
from mskjax.metrics.grading_statistic import LEAST_PROBABILITY
from mskjax.reporting import wording
from mskjax.tables import Row

Json = dict[str, Any]

SHARE = 0.05  # of the patients, left out of the second row of figures; fixed here, for every run
LISTED = 12  # patients, and cases
LEAST_PATIENTS = 3  # of whom something can be said beside one who is left out


def doubtful(
    rows: Sequence[Row], gradings: Sequence[Grading], method: str, resamples: int, seed: int
) -> Json:
    """The patients whose references are least likely, and what the figures are without the first.

    A patient's ``score`` is the mean over cases, whose region was found, of log p_reference minus
    its expectation sum_k p_k log p_k under the network's own probabilities (from 1e-6): 0 is as
    unlikely as the network expects its calls to be, and a network that is unsure doubts nobody.

    Args:
      rows: of cases.csv; each case once.
      gradings: of the system.
      method: that the report is of.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      task -> ``left_out``, how many patients `SHARE` is, at least one, and ``of`` how many;
      ``figures``: ``all`` and ``without`` these, all of their cases; ``patients``, the first
      `LISTED`, least likely first: ``patient``, ``studies``, ``cases``, ``score``, ``likelihood``,
      the geometric mean of p_reference, ``offset``, the mean of expected class minus reference of
      ordinal grades, and ``least``, the least likely case; ``cases``: the least likely of all.
      A grading of fewer than `LEAST_PATIENTS` patients with a found region is left out.
    """
    content: Json = {}
    settings = {"resamples": resamples, "seed": seed}
    for grading in gradings:
        cases = graded(rows, grading)
        if not cases.rows:
            continue
        p = cases.probabilities(grading, method)
        ranked = _ranked(grading, cases, p)
        if len(ranked) < LEAST_PATIENTS:
            continue
        everybody = set(cases.patients)
        left_out = max(1, int(SHARE * len(everybody)))
        out = {own["patient"] for own in ranked[:left_out]}
        kept = np.array([patient not in out for patient in cases.patients], bool)
        content[grading.task] = {
            "left_out": left_out,
            "of": len(everybody),
            "figures": {
                "all": _figures(grading, cases, p, np.ones(len(kept), bool), settings),
                "without": _figures(grading, cases, p, kept, settings),
            },
            "patients": ranked[:LISTED],
            "cases": _least(grading, cases, p, np.flatnonzero(~np.isnan(p).any(1)))[:LISTED],
        }
    return content


def studies_of(content: Mapping[str, Any]) -> list[str]:
    """Studies of the patients who are listed, grading by grading, least likely first."""
    listed = [own for task in content.values() for own in task["patients"]]
    return list(dict.fromkeys(study for own in listed for study in own["studies"]))


def _ranked(grading: Grading, cases: Graded, p: np.ndarray) -> list[Json]:
    """Patients with a found region, least likely first."""
    logs = np.log(np.maximum(p, LEAST_PROBABILITY))
    own = logs[np.arange(len(p)), cases.reference]
    surprise = own - (p * logs).sum(1)
    offset = p @ np.arange(len(grading.classes)) - cases.reference
    found, patients = ~np.isnan(own), np.array(cases.patients, object)
    ranked = []
    for patient in dict.fromkeys(cases.patients):
        inside = np.flatnonzero(found & (patients == patient))
        if not len(inside):
            continue
        ranked.append(
            {
                "patient": patient,
                "studies": list(dict.fromkeys(cases.rows[i]["study"] for i in inside.tolist())),
                "cases": len(inside),
                "score": float(surprise[inside].mean()),
                "likelihood": float(np.exp(own[inside].mean())),
                "offset": float(offset[inside].mean()) if grading.ordinal else None,
                "least": _least(grading, cases, p, inside)[0],
            }
        )
    return sorted(ranked, key=lambda one: (one["score"], one["patient"]))


def _least(grading: Grading, cases: Graded, p: np.ndarray, inside: np.ndarray) -> list[Json]:
    """Cases by the probability of their reference; of equal ones the call furthest off first."""
    calls = grading.calls(p)
    told = [
        {
            "case": cases.rows[i].get("case", ""),
            "level": cases.rows[i].get("level", ""),
            "patient": cases.patients[i],
            "study": cases.rows[i]["study"],
            "reference": grading.classes[cases.reference[i]],
            "call": grading.classes[calls[i]],
            "p": float(p[i, cases.reference[i]]),
            "distance": abs(int(calls[i]) - int(cases.reference[i])),
        }
        for i in inside.tolist()
    ]
    return sorted(told, key=lambda one: (one["p"], -one["distance"], one["case"]))


def leading(grading: Grading) -> tuple[str, ...]:
    """The figures that are shown with and without."""
    if grading.ordinal:
        return ("quadratic_weighted_kappa", "balanced_accuracy")
    if len(grading.classes) == 2:
        return ("auroc", "balanced_accuracy", "cohen_kappa")
    return ("balanced_accuracy", "cohen_kappa")


def _figures(
    grading: Grading, cases: Graded, p: np.ndarray, kept: np.ndarray, settings: Mapping[str, int]
) -> Json:
    patients = [one for one, inside in zip(cases.patients, kept, strict=True) if inside]
    priced = grading.priced(cases.reference, p)
    found = g.figures(
        grading, cases.reference[kept], grading.calls(p)[kept], priced[kept], patients, **settings
    )
    return {name: found[name] for name in leading(grading)}


# --------------------------------------------------------------------------------------------
# Tables


class Tables(NamedTuple):
    """Those of a page, in the form of ``report["tables"]``.

    Attributes:
      figures: with and without.
      patients: of each grading; the first leads.
    """

    figures: list[Json]
    patients: list[Json]


_FIGURES_NOTE = (
    "SENSITIVITY ANALYSIS, not a result: no other figure of this report leaves anybody out. The"
    f" rule is fixed for every run: the {100 * SHARE:g} % of patients (rounded down, at least one)"
    " whose references the networks find least likely, with all of their cases. Leaving out those"
    " that a network is furthest off in raises a figure with perfect labels too."
)
_PATIENTS_NOTE = (
    "Score: mean of log p of the reference minus what the network's own probabilities lead to"
    " expect, over the cases whose region was found; 0 is as expected. Likelihood: geometric mean"
    " of p of the reference. Offset: expected class minus reference; above 0 the networks see more"
    " than the reference says. The networks have not seen these patients. What the table cannot"
    " tell: a hard or unusual case looks the same as a wrong label, and so do a level that is"
    " counted otherwise, another reader's habit and an image unlike the others. The picture, or a"
    " second reader who does not know the call, can."
)


def tables(content: Mapping[str, Any], pictures: Mapping[str, str]) -> Tables:
    """The tables of `doubtful`.

    Args:
      content: what it gave.
      pictures: study -> where on the page its picture is.
    """
    found = [_of_figures(task, own) for task, own in content.items()]
    if found:
        found[-1]["note"] = _FIGURES_NOTE
    listed = [_of_patients(task, own, pictures) for task, own in content.items()]
    return Tables(found, listed)


def _of_figures(task: str, own: Mapping[str, Any]) -> Json:
    figures = own["figures"]
    people = f"{own['left_out']} most doubtful of {own['of']} patients"
    return {
        "title": f"{wording.label(task)}: sensitivity to doubtful references",
        "columns": ["Patients", *map(wording.metric, figures["all"])],
        "rows": [
            ["all (the result)", *figures["all"].values()],
            [f"without the {people}", *figures["without"].values()],
        ],
    }


def _of_patients(task: str, own: Mapping[str, Any], pictures: Mapping[str, str]) -> Json:
    ordinal = any(one["offset"] is not None for one in own["patients"])
    rows = []
    for one in own["patients"]:
        least = one["least"]
        where = f"{spoken(least['level'])}: " if least["level"] else ""
        links = [{"href": pictures[s], "text": s} for s in one["studies"] if s in pictures]
        row = [one["patient"], one["cases"], one["score"], one["likelihood"]]
        row += [one["offset"]] if ordinal else []
        row.append(
            f"{where}reference {wording.label(least['reference'])}, called"
            f" {wording.label(least['call'])} (p of the reference {least['p']:.3f})"
        )
        rows.append([*row, {"links": links}])
    return {
        "title": f"{wording.label(task)}: patients whose references are least likely",
        "note": _PATIENTS_NOTE,
        "columns": ["Patient", "Cases", "Score", "Likelihood", *["Offset"] * ordinal,
                    "Least likely case", "Pictures"],
        "rows": rows,
    }  # fmt: skip
