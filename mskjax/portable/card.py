"""The card of an exported model, after Mitchell et al. 2019, from the run's own record.

What a run cannot know is said to be unknown, so that a gap is never read as a yes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mskjax.reporting import model_card, wording
from mskjax.reporting.model_card import NOT_KNOWN, RESEARCH, UNKNOWN, WEIGHTS

Json = Mapping[str, Any]


def card(report: Json, audit: Json, model: Json) -> str:
    """MODEL_CARD.md.

    Args:
      report: of the run, report.json.
      audit: of its cohort, cohort.json.
      model: of the export, model.json.

    Returns:
      Markdown.
    """
    sections = {
        "Model details": _details(report, model),
        "Intended use": [
            _list([*model_card.intended_use(report), "Names: labels.json and model.json."])
        ],
        "Factors": model_card.factors(report),
        "Metrics": ["What each figure means and how it is scored:", _list(report["rules"])],
        "Training and evaluation data": _data(report, audit),
        "Quantitative analyses": _figures(report),
        "Ethical considerations": [_list(model_card.ethics(audit["kind"]))],
        "Caveats and recommendations": _caveats(report),
    }
    phantom = audit["kind"] == "phantom"
    head = [f"# {report['title']}", f"**{RESEARCH}**"]
    if phantom:
        head.append(
            "**PHANTOM: trained and tested on generated images alone. Its figures say that the"
            " programs learn, and nothing about patients.**"
        )
    body = [part for title, own in sections.items() for part in (f"## {title}", *own)]
    return "\n\n".join([*head, *body]) + "\n"


def _details(report: Json, model: Json) -> list[str]:
    stages = [
        f"`{stage['name']}`: "
        + ", ".join(f"{name} ({own['shape']})" for name, own in stage["inputs"].items())
        + f" to {', '.join(stage['outputs'])}"
        for stage in model["stages"]
    ]
    made, trained = model["versions"], model["trained_with"]
    facts = {
        "System": f"`{report['system']}`, variant `{report['variant']}`",
        "Headline": report.get("headline") or "none",
        "Trained models": ", ".join(fold["name"] for fold in model["folds"]),
        "Licence of programs and code": "Apache-2.0, see LICENSE",
        "Licence of the weights": WEIGHTS,
        "Trained with": _versions(trained["packages"])
        + f"; commit {trained.get('git_commit') or 'not known'}",
        "Exported with": _versions(made),
        "Contact and date of training": UNKNOWN,
    }
    return [_table(facts), "Stages, each of which hands its result to the next:", _list(stages)]


def _data(report: Json, audit: Json) -> list[str]:
    cohort, protocol = report["cohort"], report["protocol"]
    facts = {
        "Cohort": f"{cohort['name']} {audit['config']} {cohort['version']}",
        "Kind": wording.kind(audit["kind"]),
        "n": f"{audit['patients']} patients, {audit['studies']} studies, {audit['cases']} cases",
        "Left out": f"{len(audit['excluded'])}, with reasons in the run's report",
        "Licence of the data": audit["licence"],
        "To cite": audit["citation"],
        "Fingerprint": f"`{audit['fingerprint']}`",
        "Protocol": f"{protocol['folds']} fold(s), unit {protocol['unit']}, patients on both sides:"
        f" {protocol['patient_overlap']}",
        "External test": "see below" if report.get("external") else "none",
    }
    rest = [_table(facts)]
    if control := protocol.get("control"):
        rest.insert(0, f"**CONTROL: {control}. This model is no use but as a control.**")
    return rest


def _figures(report: Json) -> list[str]:
    further = {n for own in (report.get("gradings") or {}).values() for n in own["further"]}
    places = {
        "End to end, on regions that the system found": report["end_to_end"],
        "On reference regions": report["oracle_region"],
        **{f"Stage {name}": own for name, own in report["stages"].items()},
        "External test": report.get("external") or {},
    }
    found = [
        f"Held-out patients, with 95 % intervals. The leading figure is"
        f" {wording.metric(report['primary'])}. Further figures stand in the run's report."
    ]
    for title, figures in places.items():
        own = [(n, f) for n, f in figures.items() if _is_figure(f) and n not in further]
        if own:
            found += [f"### {title}", _rows(own)]
    return found


def _caveats(report: Json) -> list[str]:
    return [
        _list(
            [
                *report["limits"],
                "Several trained models stand side by side: averaging them was not tested unless a"
                " figure above says so.",
                "Programs for cuda and tpu were lowered and not run by the export.",
                "Programs take arrays of the sizes given above; larger studies are refused where a"
                " size is a number.",
            ]
        ),
        NOT_KNOWN,
    ]


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and {"value", "ci95", "n"} <= value.keys()


def _rows(figures: Sequence[tuple[str, Json]]) -> str:
    lines = ["| figure | value | 95 % interval | n |", "|---|---|---|---|"]
    for name, own in figures:
        low, high = own["ci95"] or (None, None)
        interval = "none" if low is None else f"{wording.number(low)} to {wording.number(high)}"
        n = f"{own['n']} of {own['patients']} patients" if "patients" in own else own["n"]
        value = wording.number(own["value"])
        lines.append(f"| {wording.metric(name)} | {value} | {interval} | {n} |")
    return "\n".join(lines)


def _table(facts: Json) -> str:
    lines = [f"| {name} | {_cell(value)} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _versions(packages: Json) -> str:
    return ", ".join(f"{name} {packages[name]}" for name in ("mskjax", "jax") if name in packages)
