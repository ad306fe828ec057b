"""What a report says to the items of reporting standards, and what it leaves to the authors."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mskjax.reporting import wording

STATUSES = ("answered", "not applicable", "yours")


class Answer(NamedTuple):
    """Of one question.

    Attributes:
      text: for a reader.
      sections: anchors of the page that hold more, see `sections.SECTIONS`.
      status: of `STATUSES`; ``yours``: the authors must say it, and `text` says what.
    """

    text: str
    sections: tuple[str, ...] = ()
    status: str = "answered"


Report = Mapping[str, Any]
Answers = dict[str, Answer]


def yours(needed: str, *sections: str) -> Answer:
    """Left to the authors, who must say what is needed."""
    return Answer(f"Yours to answer: {needed}.", sections, "yours")


def inapplicable(why: str) -> Answer:
    """Not applicable, and why."""
    return Answer(f"Not applicable: {why}.", (), "not applicable")


def answers(report: Report) -> Answers:
    """Name of a question -> its answer; a system's own (``report["answers"]``) come first."""
    found = {
        **_of_the_authors(report),
        **_of_the_data(report),
        **_of_the_model(report),
        **_of_the_evaluation(report),
    }
    own = {name: Answer(text) for name, text in (report.get("answers") or {}).items()}
    return found | own


def _of_the_authors(report: Report) -> Answers:
    """What no run can know; of generated patients there is none of it."""
    people = {
        "timing": "whether the images were collected before the study was planned",
        "deidentification": "how headers, faces and burnt-in text were dealt with, and by whom;"
        " what this suite writes holds no header value and names studies by keyed hashes",
        "acquisition": "sequences, parameters, coils and scanners of the images; what the files say"
        " of voxel sizes and scanners is in the table of who was studied",
        "reference": "how the reference grades and masks were made, by which definitions, from"
        " which images",
        "reference_why": "why this reference standard was chosen, and its known limits",
        "annotators": "who annotated, with what training and experience",
        "annotation_of_test": "whether test patients were annotated as training patients were; here"
        " each patient is a test patient of one fold",
        "raters": "agreement between and within readers; where a cohort has several readers, their"
        " agreement is in the report",
        "blinding": "whether readers knew outcome, history or the model's calls",
        "inequalities": "known differences in care or outcome between groups of people",
        "dates": "first and last date of the examinations, and end of follow-up",
        "centres": "number, kind and place of the centres",
        "treatments": "treatments before or between images that bear on the outcome",
        "ethics": "ethics committee, number and date of the approval, and consent or its waiver",
        "registration": "registry and number, or that the study was not registered",
        "involvement": "how patients and the public took part, or that they did not",
    }
    phantom = report["cohort"]["kind"] == "phantom"
    known = {"reference", "reference_why", "annotators", "annotation_of_test", "raters", "blinding"}
    found = {
        name: inapplicable(
            "a phantom's reference is known by construction"
            if name in known
            else "generated phantoms, no patients"
        )
        if phantom
        else yours(needed, *(("participants",) if name == "acquisition" else ()))
        for name, needed in people.items()
    }
    if not phantom and any("readers" in t.get("id", "") for t in report.get("tables") or []):
        found["raters"] = Answer("Readers beside the model, and their agreement.", ("tables",))
    return found | {
        "aims": yours("aims and hypotheses"),
        "funding": yours("funders and their role"),
        "interests": yours("conflicts of interest of all authors"),
        "background": yours(
            "clinical background, existing models and the role that the AI is to have; the model"
            " card says what the system is for",
            "model_card",
            "published",
        ),
        "implications": yours("what the figures mean for practice", "model_card", "limits"),
        "next_steps": yours("what comes next, and what an external test must show", "limits"),
        "protocol": yours(
            "where the protocol is, or that there was none; what was run is in the recipe",
            "recipe",
            "command",
        ),
    }


def _of_the_data(report: Report) -> Answers:
    cohort, protocol = report["cohort"], report["protocol"]
    phantom = cohort["kind"] == "phantom"
    counts = f"{cohort['patients']} patients, {cohort['cases']} cases"
    excluded, restricted = len(cohort["excluded"]), len(cohort.get("restricted") or [])
    criteria = (
        "the cohort is generated"
        if phantom
        else "the criteria of the source are yours to say, with the period and the way of sampling"
    )
    sources = f"{cohort['name']} {cohort['version']}, licence {cohort['licence']}"
    share = "" if phantom else "; how representative it is, is yours to say"
    events = "; ".join(_events(report)) or counts
    return {
        "sources": Answer(f"{sources}; {counts}{share}.", ("cohort",)),
        "eligibility": Answer(
            f"{excluded} excluded by the builder, each with its reason; {criteria}.", ("cohort",)
        ),
        "subsets": Answer(
            "None was chosen by hand: every study that could be read is used, and each stage hands"
            f" its regions to the next ({_stages(report)}).",
            ("cohort",),
        ),
        "missing": Answer(
            "Nothing is imputed. A case without a label of a task is left out of that task, a study"
            " without a mask out of the segmentation; the n beside each figure counts what is left"
            f". Excluded: {excluded}; kept in part: {restricted}.",
            ("cohort", "participants"),
        ),
        "partitions": Answer(
            f"{wording.setting(protocol['folds'])} folds ({protocol.get('split', 'folds')}),"
            " divided once, at random within classes, by seed; trained from seeds"
            f" {wording.setting(protocol['seeds'])}.",
            ("splits",),
        ),
        "disjoint": Answer(
            f"{wording.label(protocol['unit'])}; patients found in more than one partition:"
            f" {protocol['patient_overlap']}, by"
            f" {(report.get('splits') or {}).get('compared', 'identifiers')}.",
            ("splits",),
        ),
        "sample_size": yours(
            f"how the size was decided; {counts} were available, and the intervals say what they"
            " allow",
            "results",
        ),
        "flow": Answer(_flow(report, counts, excluded, restricted), ("cohort",)),
        "characteristics": inapplicable("generated phantoms, no patients")
        if phantom
        else Answer(
            "Age, sex, scanner, voxel size and classes, of all and of the test patients of each"
            " fold, with the share that is missing; what the files do not say is yours to add.",
            ("participants", "splits"),
        ),
        "events": Answer(f"{events}; n and patients stand beside each figure.", ("splits",)),
        "data_sharing": Answer(f"{cohort['name']}: licence {cohort['licence']}.", ("cohort",)),
        "availability": Answer(
            f"Data: licence {cohort['licence']}. Software: versions and commit below. Trained"
            " weights: in the run's folder, and `mskjax export` makes a portable model; where they"
            " are published is yours to say.",
            ("environment", "command"),
        ),
        "images": Answer(
            "Pixels of the images alone; no clinical predictor is used.", ("preprocessing",)
        ),
        "images_read": inapplicable("no predictor is read by a person"),
    }


def _of_the_model(report: Report) -> Answers:
    recipe = report.get("recipe") or {}
    stages = recipe.get("stages") or {}
    seeds = report["protocol"]["seeds"]
    kept = (recipe.get("data") or {}).get("validation_fraction")
    selects = _by_stage(stages, "select")
    steps = _by_stage(stages, "steps")
    balance = _by_stage(stages, "balance")
    selection = (
        f"Weights after the last step of each stage ({steps})" if steps else "See the recipe"
    )
    if "best" in selects and kept:
        selection = f"By stage: {selects}; best is that of the lowest loss of the fold's validation"
        selection += " patients, who are no test patients"
    ensemble = report.get("ensemble")
    return {
        "title": yours(
            f"the title; the technology is deep learning in stages ({_stages(report)}), the system"
            f" {wording.label(report['system'])}"
        ),
        "goal": Answer(
            "Development of a model with internal testing"
            + (" and external testing." if report.get("external") else ", no external testing."),
            ("results", "external"),
        ),
        "intended_use": Answer(
            "Research on such systems; not for decisions about a person's care. The target"
            " population is yours to say.",
            ("model_card",),
        ),
        "preprocessing": Answer(
            _preprocessing(report) or "By the recipe, the same for training and test patients.",
            ("preprocessing", "recipe"),
        ),
        "architecture": Answer(
            "; ".join(
                f"{wording.label(own['stage'])}: {own['parameters']:,} parameters"
                for own in report.get("architecture") or []
            )
            + "."
            if report.get("architecture")
            else f"Stages: {_stages(report)}.",
            ("architecture", "recipe"),
        ),
        "specification": Answer(
            "All settings, layers and weights are in the run's folder; what is fitted to a fold"
            " beside its weights (`system.json`) too.",
            ("architecture", "recipe", "command"),
        ),
        "building": Answer(
            f"Stages are trained in turn ({_stages(report)}) on each fold's training patients; how"
            " settings were chosen, and on whom, is yours to say: a report cannot see runs before"
            " it.",
            ("architecture", "recipe", "splits"),
        ),
        "initialisation": Answer(
            f"{_initialisation(report)} Seeds: {wording.setting(seeds)}.",
            ("architecture", "recipe"),
        ),
        "recipe": Answer(
            f"AdamW with warm-up and cosine decay; steps by stage: {steps}."
            if steps
            else "See the recipe.",
            ("recipe", "curves"),
        ),
        "selection": Answer(f"{selection}. No test patient enters.", ("recipe", "curves")),
        "imbalance": Answer(
            f"In training, by stage: {balance or 'see the recipe'}. In testing: balanced accuracy"
            " and figures of single classes stand beside accuracy; nothing is resampled.",
            ("recipe", "splits", "results"),
        ),
        "ensembling": Answer(
            f"The networks of {ensemble['seeds']} seeds of each fold read its held-out patients"
            " together; one network and the ensemble stand side by side.",
            ("seeds",),
        )
        if ensemble
        else Answer(
            "None in these figures: a held-out patient is read by the one training of the fold.",
            ("seeds", "recipe"),
        ),
        "prediction": Answer(
            "By the networks of the fold that held the patient out, on regions that they found.",
            ("rules",),
        ),
        "output": Answer(_output(report), ("operating", "calibration", "rules")),
        "updating": inapplicable("no existing model was updated"),
        "software": Answer(
            ", ".join(f"{name} {wording.setting(value)}" for name, value in _versions(report))
            + ".",
            ("environment",),
        ),
        "code_sharing": Answer(
            "The suite, its version and its commit are recorded; changes of your own are yours to"
            " publish.",
            ("environment", "command"),
        ),
        "details": Answer(
            "Every setting, the versions and the command that makes this report again; a protocol"
            " beyond these is yours to add.",
            ("command", "recipe", "rules", "environment"),
        ),
        "poor_input": Answer(
            "`predict` refuses what it cannot read by name, and flags studies that lie outside what"
            " the folds were trained on (spacing, size, intensities, regions missed).",
            ("model_card",),
        ),
        "expertise": Answer(
            "Input are files as scanners write them; output needs a reader who can judge it.",
            ("model_card",),
        ),
    }


def _of_the_evaluation(report: Report) -> Answers:
    apart = {n for own in (report.get("gradings") or {}).values() for n in own["further"]}
    leading = (wording.metric(name) for name in report["end_to_end"] if name not in apart)
    metrics = ", ".join(leading)
    methods = sorted({e["method"] for e in _estimates(report) if e.get("method") and e["ci95"]})
    external = report.get("external")
    pictures = report.get("pictures") or []
    failures = sum(bool(picture.get("failure")) for picture in pictures)
    groups = [wording.label(name).lower() for name in report.get("subgroups") or {}]
    scanners = [name for name in groups if name in ("manufacturer", "field strength")]
    plots = ("confusion", "roc", "operating", "calibration")
    return {
        "abstract": yours("the abstract; the key message on top has its figures", "results"),
        "metrics": Answer(
            f"{metrics}; figures of classes and pairs beside them; definitions under the tables.",
            ("results", *plots),
        ),
        "uncertainty": Answer(
            f"95 % intervals: {'; '.join(methods) or 'bootstrap over patients'}. p-values, where"
            " there are any, say their test and correction.",
            ("results", "baselines", "seeds", "tables"),
        ),
        "robustness": Answer(
            _robustness(report, groups),
            ("results", "seeds", "folds", "repetitions", "subgroups", "doubts", "tables"),
        ),
        "explainability": Answer(
            "The regions that were graded are drawn, and what each grade rests on where the system"
            " draws it.",
            ("pictures",),
        )
        if pictures
        else inapplicable("no method of explanation is part of the system"),
        "internal": Answer(
            "Cross-validated figures with 95 % intervals over patients"
            + (
                f"; subgroups by {', '.join(groups)}."
                if groups
                else "; no subgroup is large enough."
            ),
            ("results", "stages", "subgroups", "held_out"),
        ),
        "external": Answer("Patients of another cohort.", ("external",))
        if external
        else Answer("None: no external data were tested.", ("external", "limits")),
        "differences": Answer("The table of both cohorts.", ("external",))
        if external
        else inapplicable("no external data; test folds come from the same cohort"),
        "diagnostic": Answer("The leading figures end to end, and by class.", ("results", *plots)),
        "failures": Answer(
            f"{failures} of {len(pictures)} pictures show failures, the worst first.",
            ("pictures", "doubts"),
        )
        if pictures
        else yours("an analysis of failures; this run has left no pictures"),
        "fairness": Answer(
            f"Figures in subgroups by {', '.join(groups)}; whether a difference is fair is yours to"
            " judge.",
            ("subgroups", "participants"),
        )
        if groups
        else yours("fairness; the cohort says nothing by which groups could be compared"),
        "clusters": Answer(
            f"Figures by {' and '.join(scanners)}, and of each fold; centres are not known to a"
            " run.",
            ("subgroups", "folds"),
        )
        if scanners
        else yours(
            "whether figures differ between centres and scanners: the files name none, or too few"
            " patients have another one; folds stand side by side",
            "folds",
            "participants",
        ),
        "outcome": Answer(_outcome(report), ("results", "rules")),
        "limits": Answer(
            f"{len(report.get('limits') or [])} that the run knows of; others are yours to add.",
            ("limits",),
        ),
        "interpretation": yours(
            "the interpretation, fairness included; other studies' figures stand beside ours",
            "published",
            "subgroups",
        ),
    }


def _stages(report: Report) -> str:
    return " then ".join(wording.label(name).lower() for name in report["stages"])


def _by_stage(stages: Mapping[str, Any], field: str) -> str:
    """``regions 900, grades 450``: a field of each stage's training."""
    known = {name: (own.get("train") or {}).get(field) for name, own in stages.items()}
    return ", ".join(f"{k} {wording.setting(v)}" for k, v in known.items() if v is not None)


def _preprocessing(report: Report) -> str:
    """What images go through, by stage."""
    parts = []
    for stage, own in (report.get("preprocessing") or {}).items():
        said = []
        if spacing := own.get("spacing_mm"):
            said.append(
                "pixels of " + " x ".join("native" if s is None else f"{s:g}" for s in spacing)
            )
            said[-1] += " mm"
        if crop := own.get("crop"):
            said.append(f"crops of {' x '.join(map(str, crop))}")
        if normal := own.get("normalisation"):
            said.append(f"intensities by {wording.label(normal).lower()}")
        parts.append(f"{wording.label(stage)}: {', '.join(said) or 'see the section'}")
    return "; ".join(parts) + "." if parts else ""


def _initialisation(report: Report) -> str:
    notes = {
        note
        for own in report.get("architecture") or []
        for note in own.get("initialisation") or ["random"]
    }
    if notes <= {"random"}:
        return "At random (He et al. 2015), no weights of another task."
    return f"{'; '.join(sorted(notes))}."


def _flow(report: Report, counts: str, excluded: int, restricted: int) -> str:
    steps = [
        ", ".join(
            [f"{step['step']}: {step.get('patients', '–')} patients"]
            + [f"{step[k]} {k}" for k in ("studies", "cases") if k in step]
        )
        for step in report.get("flow") or []
    ]
    rest = f"{excluded} excluded" + (f", {restricted} kept in part" if restricted else "")
    return f"{'; '.join(steps) or f'{counts} included'}; {rest}."


def _events(report: Report) -> list[str]:
    found = []
    for name, table in (report.get("class_counts") or {}).items():
        if "cohort" in table:
            known = ", ".join(f"{k}: {n}" for k, n in table["cohort"].items())
            found.append(f"{wording.label(name)} {known}")
    return found


def _output(report: Report) -> str:
    calls = [
        f"{wording.label(task)}: probabilities of {', '.join(own['classes'])}; the call is"
        f" {own['call']}"
        for task, own in (report.get("gradings") or {}).items()
        if own.get("classes")
    ]
    return ". ".join(calls or ["Label masks, by the class of largest probability"]) + "."


def _outcome(report: Report) -> str:
    tasks = [wording.label(task) for task in report.get("gradings") or {}]
    what = f"Grades as the cohort has them: {', '.join(tasks)}" if tasks else "Reference masks"
    return f"{what}. How they were assessed is yours to say."


def _robustness(report: Report, groups: list[str]) -> str:
    said = ["regions found against reference regions (what the first stage costs)"]
    if len(report["protocol"]["seeds"]) > 1:
        said.append("spread over seeds")
    if report.get("folds"):
        said.append("each fold by itself")
    if report.get("repetitions"):
        said.append("other divisions of the patients")
    if groups:
        said.append(f"subgroups by {', '.join(groups)}")
    if report.get("doubts"):
        said.append("without patients whose reference the networks doubt")
    said[0] = said[0][:1].upper() + said[0][1:]
    return f"{'; '.join(said)}. Other scanners, artefacts and noise were not tried."


def _versions(report: Report) -> Iterable[tuple[str, Any]]:
    environment = report["environment"]
    nested = environment.get("versions") or environment.get("packages") or {}
    known = {**environment, **(nested if isinstance(nested, dict) else {})}
    named = ("mskjax", "jax", "flax", "optax", "python", "git_commit")
    return [(name, known[name]) for name in named if name in known] or [("versions", "recorded")]


def _estimates(report: Report) -> Iterable[Mapping[str, Any]]:
    for estimates in (report["end_to_end"], report["oracle_region"], *report["stages"].values()):
        yield from estimates.values()
