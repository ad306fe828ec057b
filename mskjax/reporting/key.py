"""The key message of a report: what a reader must know before anything else, in sentences.

Each says one thing and where it stands: the leading figure and what it is, what was found at all,
whether the best baseline is as good, where the system is weakest, how far its probabilities can be
believed, and what was not scored.  Nothing is computed here: every number is one of the report's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mskjax.reporting import definitions, wording

Json = dict[str, Any]

MINUS = "model_minus_"  # begins the name of a difference among the baselines
_BASELINES = {
    "majority": "The commonest class of the training patients",
    "ridge": "Ridge regression on hand-made features",
}
# Figures of which less is better; of all others more is.
_LESS = (
    "assd", "brier", "ece", "extra", "gaps", "graded_without_region", "hd95", "left_out",
    "log_loss", "loss", "slice_error",
)  # fmt: skip


def messages(report: Mapping[str, Any]) -> list[Json]:
    """``[{"topic", "text", "alarm"}]``, in the order in which they are read.

    Args:
      report: of report.json, with the fields of its figures.
    """
    task = _task(report)
    found = [
        *_found(report, task),
        *_leading(report, task),
        *_against_baselines(report, task),
        *_weakest_class(report, task),
        *_weakest_stratum(report, task),
        *_weakest_structure(report, task),
        *_calibration(report, task),
        *_not_scored(report),
    ]
    return [{"topic": topic, "text": text, "alarm": alarm} for topic, text, alarm in found]


Message = tuple[str, str, bool]


def _task(report: Mapping[str, Any]) -> str | None:
    """The grading that the leading figure is of; None of systems that grade nothing."""
    gradings = report.get("gradings") or {}
    return next((t for t, own in gradings.items() if report["primary"] in own["figures"]), None)


def _found(report: Mapping[str, Any], task: str | None) -> Iterator[Message]:
    """How many of the regions of the graded cases were found, and whether any was."""
    confusion = (report.get("confusion") or {}).get(task)
    if confusion is None:
        every = [dice for own in (report.get("studies") or {}).values() for dice in own]
        if task is None and every and not any(every):
            yield "Found", f"NOTHING WAS FOUND: Dice is 0 in all {len(every)} structures.", True
        return
    rows, labels = confusion["matrix"], confusion["labels"]
    cases = sum(map(sum, rows))
    missed = sum(row[labels.index("missed")] for row in rows) if "missed" in labels else 0
    if cases and missed == cases:
        text = f"NOTHING WAS FOUND: of {cases} graded cases no region was found, so none was graded"
        yield "Found", f"{text}. All figures below say this and nothing else.", True
        return
    text = f"The region of {cases - missed} of {cases} graded cases was found"
    if missed:
        counts = "counts" if missed == 1 else "count"
        text += f"; {_count(missed, 'missed case')} {counts} as wrong in every figure"
    level = _any_stage(report, "level_accuracy")
    if level and level["value"] is not None:
        text += f". Of the regions found, {_value(level)} were given the right level"
    yield "Found", f"{text}.", False


def _leading(report: Mapping[str, Any], task: str | None) -> Iterator[Message]:
    """What the leading figure is: definition, classes, and the figure on reference regions."""
    name = report["primary"]
    text = f"{wording.metric(name)}: {definitions.of(name) or 'see the rules below'}"
    own = (report.get("gradings") or {}).get(task, {})
    if own.get("sets"):
        text += f". Classes: {sets(own['sets'])}"
    elif own.get("classes"):
        text += f". Classes: {', '.join(map(wording.label, own['classes']))}"
    oracle = report["oracle_region"].get(name)
    if oracle and oracle["value"] is not None:
        text += f". With the reference region given it is {_value(oracle)}"
    yield "Leading figure", f"{text}.", False


def _against_baselines(report: Mapping[str, Any], task: str | None) -> Iterator[Message]:
    """Whether the model is better than the best of its baselines."""
    name, baselines = report["primary"], report["baselines"]
    ours = report["end_to_end"].get(name)
    rivals = {
        k: own[name]
        for k, own in baselines.items()
        if not k.startswith(MINUS) and own.get(name, {}).get("value") is not None
    }
    if not ours or ours["value"] is None or not rivals:
        return
    best = max(rivals, key=lambda k: rivals[k]["value"])
    who = f"{_BASELINES.get(best, wording.label(best))}: {_value(rivals[best])}"
    difference = baselines.get(f"{MINUS}{best}", {}).get(name)
    if not difference or not difference.get("ci95"):
        yield "Best baseline", f"{who}; a paired difference is not defined.", False
        return
    low, high = difference["ci95"]
    gap = f"{wording.signed(difference['value'])} ({wording.signed(low)} to {wording.signed(high)})"
    verdict = "the model is better"
    if high < 0:
        verdict = "THE BASELINE IS BETTER THAN THE MODEL"
    elif low <= 0:
        verdict = "THE BASELINE IS AS GOOD as far as these cases can tell: the interval holds 0"
    ahead, both = _rows_ahead(report, best, task)
    more = f" Of {both} figures that both have, the baseline is ahead in {ahead}." if ahead else ""
    yield "Best baseline", f"{who}. Model minus baseline {gap}: {verdict}.{more}", low <= 0


def _rows_ahead(report: Mapping[str, Any], rival: str, task: str | None) -> tuple[int, int]:
    """In how many leading figures a baseline has the better value, of how many that both have."""
    own = (report.get("gradings") or {}).get(task)
    leading = [n for n in own["figures"] if n not in own["further"]] if own else None
    ahead = both = 0
    for name, estimate in report["baselines"][rival].items():
        ours = report["end_to_end"].get(name)
        known = ours and ours["value"] is not None and estimate["value"] is not None
        if not known or (leading is not None and name not in leading):
            continue
        sign = -1 if name.startswith(_LESS) else 1
        both += 1
        ahead += sign * estimate["value"] > sign * ours["value"]
    return ahead, both


def _weakest_class(report: Mapping[str, Any], task: str | None) -> Iterator[Message]:
    """The class whose cases are called right least often."""
    confusion = (report.get("confusion") or {}).get(task)
    if confusion is None:
        return
    classes = [label for label in confusion["labels"] if label != "missed"]
    if len(classes) == 2:
        names = {classes[0]: f"specificity_{task}", classes[1]: f"sensitivity_{task}"}
    else:
        names = {label: f"sensitivity_{label}_{task}" for label in classes}
    own = {k: report["end_to_end"].get(n) for k, n in names.items()}
    known = {k: e for k, e in own.items() if e and e["value"] is not None}
    if not known:
        return
    worst = min(known, key=lambda k: known[k]["value"])
    estimate = known[worst]
    text = f"{wording.label(worst)}: {_value(estimate)} of its {_count(estimate['n'], 'case')} are"
    absent = [wording.label(k) for k in classes if k not in known]
    more = f" No case is {' or '.join(absent)}." if absent else ""
    yield "Weakest class", f"{text} called so.{more}", False


def _weakest_stratum(report: Mapping[str, Any], task: str | None) -> Iterator[Message]:
    """The level with the lowest leading figure, or share of right calls."""
    levels = (report.get("subgroups") or {}).get("level")
    if not levels or task is None:
        return
    for name in (report["primary"], f"accuracy_{task}"):
        known = {
            level: own[name]
            for level, own in levels.items()
            if own.get(name, {}).get("value") is not None
        }
        if len(known) > 1:
            worst = min(known, key=lambda level: known[level]["value"])
            text = f"{worst}: {wording.metric(name)} {_value(known[worst])}"
            yield "Weakest level", f"{text}, {_count(known[worst]['n'], 'case')}.", False
            return


def _weakest_structure(report: Mapping[str, Any], task: str | None) -> Iterator[Message]:
    """Of a segmentation, the structure with the lowest Dice."""
    if task is not None:
        return
    own = {
        name.removeprefix("dice_"): e
        for name, e in report["end_to_end"].items()
        if name.startswith("dice_") and "ceiling" not in name and e["value"] is not None
    }
    if len(own) > 1:
        worst = min(own, key=lambda name: own[name]["value"])
        yield "Weakest structure", f"{wording.label(worst)}: Dice {_value(own[worst])}.", False


def _calibration(report: Mapping[str, Any], task: str | None) -> Iterator[Message]:
    estimate = report["end_to_end"].get(f"ece_{task}")
    if estimate and estimate["value"] is not None:
        text = f"Expected calibration error of the likeliest class {_value(estimate)}"
        yield "Calibration", f"{text}, as trained, without a temperature; 0 is best.", False


def _not_scored(report: Mapping[str, Any]) -> Iterator[Message]:
    """What was left out, and what cannot be scored."""
    cohort, parts = report["cohort"], []
    if excluded := len(cohort["excluded"]):
        parts.append(f"{_count(excluded, 'exclusion')}, each with its reason under Cohort")
    if restricted := len(cohort.get("restricted") or []):
        parts.append(f"{restricted} kept in part")
    steps = {step["step"]: step for step in report.get("flow") or []}
    graded = steps.get("packaged, with grade", {}).get("cases")
    scored = steps.get("scored on held-out folds, grades", {}).get("cases")
    if graded and scored is not None and scored < graded:
        parts.append(f"{graded - scored} of {graded} graded cases were not scored")
    share = _any_stage(report, "graded_without_region")
    if share and share["value"]:
        parts.append(f"{share['value']:.1%} of {share['n']} graded levels have no reference region")
    yield "Not scored", f"{'; '.join(parts) or 'Nothing was left out'}.", False


def sets(classes: Mapping[str, Sequence[int]]) -> str:
    """Which grades each class holds.

    >>> sets({"mild": [1, 2], "severe": [4, 5]})
    'Mild {1, 2}, Severe {4, 5}'
    """
    return ", ".join(
        f"{wording.label(name)} {{{', '.join(map(str, grades))}}}"
        for name, grades in classes.items()
    )


def _any_stage(report: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((own[name] for own in report["stages"].values() if name in own), None)


def _value(estimate: Mapping[str, Any]) -> str:
    bounds = estimate.get("ci95")
    interval = f" ({wording.interval(bounds)})" if bounds else ""
    return f"{wording.number(estimate['value'])}{interval}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
