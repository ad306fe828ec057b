"""External test: a finished run on patients that none of its trainings has seen.

All trainings of the run read together, as they do in use, and each reads alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mskjax import applied, cases, profile, reading, systems
from mskjax.applied import Applied
from mskjax.config import StudyConfig
from mskjax.data.cohorts import Cohort
from mskjax.data.splits import PARTS, images_of
from mskjax.ensemble import Ensemble
from mskjax.errors import UserError
from mskjax.predictions import leave
from mskjax.profile import PROFILE
from mskjax.progress import say
from mskjax.reporting.environment import environment
from mskjax.reporting.external import CASES, RESULT, SHIFT
from mskjax.shift import Side, shift_table
from mskjax.tables import Row, read_rows, write_rows
from mskjax.workdir import config_of
from mskjax.writers import write_json

FOLDER = "external"  # of a run
_NAMED = 5  # patients in a message


def run(
    folder: Path, cohort: Cohort, output: Path, folds: Sequence[int] | None, command: str
) -> None:
    """Reads and scores a cohort with a run; what is done already is not done again.

    Leaves ``cases.csv`` of all trainings together, ``<fold>/cases.csv`` of each alone, pictures and
    label maps, ``cohort.json``, ``environment.json`` and ``external.json``.

    Args:
      folder: of the run.
      cohort: labelled; packaged by the builder of the run's own cohort.
      output: where results go.
      folds: numbers of the run's folds; None gives all.
      command: that makes it again.

    Raises:
      UserError: a patient or an image was seen in training, or the run is not trained to its end.
    """
    config = config_of(folder)
    check_unseen(folder, cohort)
    members = applied.load(folder, folds, config.devices)
    claim(output, folder, cohort, members)
    write_json(output / "cohort.json", cohort.audit)
    write_json(output / "environment.json", environment())
    together = Ensemble(members)
    phantom = cohort.audit["kind"] == "phantom"
    every = range(len(cohort.index))
    if not (output / PROFILE).exists():
        write_rows(output / PROFILE, [profile.measure(cohort.studies[i]) for i in every])
    _read(
        together,
        cohort,
        output / CASES,
        {"fold": 0, "seed": 0},
        "external test, all together",
        lambda study, found: leave(output, together.system, study, found, phantom),
    )
    for member in members if len(members) > 1 else ():
        path = output / member.name / CASES
        _read(member, cohort, path, _who(member, config), f"external test, {member.name} alone")
    ours = Side("Trained on", profile.read(folder, folds), cases.read(folder / CASES))
    theirs = Side("External", read_rows(output / PROFILE), cases.read(output / CASES))
    table = shift_table(ours, theirs, together.system.gradings)
    write_json(output / SHIFT, {**table, "title": "What differs between the two cohorts"})
    write_json(
        output / RESULT,
        {
            "system": config.system,
            "members": [member.name for member in members],
            "patients": len(cohort.patients),
            "studies": len(every),
            "command": command,
        },
    )


def _read(
    reader: reading.Reader,
    cohort: Cohort,
    path: Path,
    who: Row,
    title: str,
    seen: Any = lambda study, found: None,
) -> None:
    if not path.exists():
        reading.write_rows(reader, cohort, range(len(cohort.index)), path, who, title, seen=seen)
    cases.read(path)  # of the schema, whoever wrote it


def _who(member: Applied, config: StudyConfig) -> Row:
    seed, _, fold = member.name.rpartition("/")
    plain = config.seed if config.train_seed is None else config.train_seed
    return {
        "fold": int(fold.removeprefix("fold_")),
        "seed": int(seed.removeprefix("seed_")) if seed else plain,
    }


def seen_in(folder: Path) -> tuple[set[str], set[str]]:
    """Ids and image hashes of the patients that a run was trained, selected or tested on."""
    splits = json.loads((folder / "splits.json").read_text())
    patients = {p for fold in splits["folds"] for part in PARTS for p in fold.get(part, ())}
    images = images_of(json.loads((folder / "cohort.json").read_text()))
    return patients, {h for patient in patients for h in images.get(patient, ())}


def check_unseen(folder: Path, cohort: Cohort) -> None:
    """Refuses patients that the run knows, by id or by image.

    Raises:
      UserError: with the first of them.
    """
    patients, hashes = seen_in(folder)
    by_id = [p for p in cohort.patients if p in patients]
    images = images_of(cohort.audit)
    by_image = [p for p in cohort.patients if p not in by_id and images.get(p, set()) & hashes]
    for known, why in (
        (by_id, "in the run too; if they are other people, give them other ids"),
        (by_image, "in the run under another id, by their images"),
    ):
        if known:
            more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
            raise UserError(
                f"{', '.join(known[:_NAMED])}{more}: {why}.  An external test needs patients that"
                f" {folder} has never seen; name those with --patients=ID,ID."
            )


def chosen(cohort: Cohort, patients: Sequence[str]) -> Cohort:
    """Some patients of a cohort.

    Raises:
      UserError: one is not in it.
    """
    unknown = sorted(set(patients) - set(cohort.patients))
    if unknown:
        raise UserError(
            f"--patients: {', '.join(unknown[:_NAMED])} {'is' if len(unknown) == 1 else 'are'} not"
            f" in the cohort, which has {', '.join(cohort.patients[:_NAMED])}, ..."
        )
    return cohort.part([i for i, (patient, _) in enumerate(cohort.index) if patient in patients])


def claim(output: Path, folder: Path, cohort: Cohort, members: Sequence[Applied]) -> None:
    """Refuses a folder that holds something else; a test that was stopped goes on.

    Raises:
      UserError: it holds another test, or anything else.
    """
    own = {
        "run": (folder / "config.json").read_text(),
        "cohort": cohort.audit["fingerprint"],
        "studies": [study for _, study in cohort.index],
        "members": [member.name for member in members],
    }
    path = output / "claim.json"
    if path.exists():
        if json.loads(path.read_text()) != own:
            raise UserError(f"--output: {output} holds another external test; give another folder.")
    elif output.exists() and any(output.iterdir()):
        raise UserError(f"--output: {output} is not empty; give a new folder.")
    write_json(path, own)


def check_builder(config: StudyConfig, cohort: str) -> None:
    """Refuses a cohort of another kind than the run's own.

    Raises:
      UserError: saying which is needed.
    """
    if cohort != config.data.cohort:
        raise UserError(
            f"--cohort: the run reads studies as {config.data.cohort} packages them, not {cohort};"
            f" give --cohort={config.data.cohort}/CONFIG."
        )
    systems.load(config.system).check(config)


def announce(output: Path, page: Path) -> None:
    """Says where results are."""
    say(f"external test: {output}")
    say(f"report: {page}")
