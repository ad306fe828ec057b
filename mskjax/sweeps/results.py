"""What a sweep leaves: sweep.json, trials.csv, best_config.json, and its optimism once tested."""

import dataclasses
import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mskjax import cases, validation, workdir
from mskjax.config import StudyConfig, differences, to_json
from mskjax.data import splits
from mskjax.errors import UserError
from mskjax.sweeps import space
from mskjax.sweeps.declared import Sweep
from mskjax.sweeps.objective import estimate
from mskjax.sweeps.trials import Trials
from mskjax.sweeps.worker import ESTIMATE, FOLDS, SPENT, WHY
from mskjax.tables import write_rows

BEST, TESTED = "best_config.json", "best"  # the config, and the folder that its command names
FEWEST = 10  # complete trials below which an importance says nothing
Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One trial of a finished sweep.

    Attributes:
      number: in the study.
      state: ``complete``, ``pruned`` or ``failed``.
      values: dotted field -> value.
      estimate: of the validation patients, as in report.json; of the folds that were trained.
      folds: number of a fold -> its value alone.
      spent_s: seconds of the worker that finished it.
      why: it failed.
      is_declared: whether it has the study's own values.
    """

    number: int
    state: str
    values: Mapping[str, Any]
    estimate: Mapping[str, Any]
    folds: Mapping[str, float | None]
    spent_s: float | None
    why: str
    is_declared: bool

    @property
    def value(self) -> float | None:
        """Value of the objective."""
        return self.estimate.get("value")


_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def finished(trials: Trials) -> list[Trial]:
    """The trials of a sweep whose budget is done."""
    found, declared = [], trials.sweep.declared
    for number, t in enumerate(trials.all()):
        if t.state in _STATES:
            found.append(_trial(trials.sweep, t, number == 0 and declared is not None))
    return found


def _trial(sweep: Sweep, trial: FrozenTrial, is_declared: bool) -> Trial:
    known = sweep.parameters
    values = {k: known[k].value(trial.params[k]) for k in known if k in trial.params}
    note = trial.user_attrs
    return Trial(
        trial.number,
        _STATES[trial.state],
        values,
        note.get(ESTIMATE, {}),
        note.get(FOLDS, {}),
        note.get(SPENT),
        note.get(WHY, ""),
        is_declared,
    )


def ranked(sweep: Sweep, trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials, the best one first; of equal ones the earlier."""
    sign = -1 if sweep.config.direction == "maximize" else 1
    complete = [(t.value, t) for t in trials if t.state == "complete" and t.value is not None]
    return [t for value, t in sorted(complete, key=lambda pair: (sign * pair[0], pair[1].number))]


def importance(trials: Trials) -> dict[str, float]:
    """Share of each field in what tells the best quarter of the trials from all; empty if few.

    PED-ANOVA (Watanabe et al., IJCAI 2023), which needs no model of the objective.
    """
    complete = [t for t in trials.all() if t.state == TrialState.COMPLETE]
    varied = [k for k in trials.sweep.parameters if len({t.params[k] for t in complete}) > 1]
    if len(complete) < FEWEST or not varied:
        return {}
    copy = optuna.create_study(direction=trials.sweep.config.direction)  # type: ignore[arg-type]
    copy.add_trials(complete)  # the study itself may hold trials that do not count
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    found = optuna.importance.get_param_importances(copy, evaluator=evaluator, params=varied)
    return {k: round(float(v), 4) for k, v in found.items()}


def write(trials: Trials, folder: Path) -> Json:
    """Writes sweep.json, trials.csv and best_config.json, and returns the first's content.

    Args:
      trials: all finished.
      folder: ``--workdir`` of the sweep.

    Raises:
      UserError: no trial is complete, or the tested run is another config's.
    """
    sweep, done = trials.sweep, finished(trials)
    order = ranked(sweep, done)
    if not order:
        first = next((f"trial {t.number}: {t.why}" for t in done if t.why), "none has a value")
        raise UserError(
            f"none of {len(done)} trials is complete ({first}); change the space in the sweep file,"
            " set another name there and give another --workdir."
        )
    best = sweep.config_of(order[0].values)
    path = folder / BEST
    content = {
        "name": sweep.config.name,
        "sweep": sweep.content,
        "identity": sweep.identity,
        "storage": trials.storage.shown,
        "objective": sweep.config.objective,
        "direction": sweep.config.direction,
        "counts": {s: Counter(t.state for t in done)[s] for s in _STATES.values()},
        "best": order[0].number,
        "trials": [dataclasses.asdict(t) for t in done],
        "importance": importance(trials),
        "cohort": _cohort(folder, trials, order),
        "command": f"python -m mskjax.main --config={shlex.quote(str(path))}"
        f" --workdir={shlex.quote(str(folder / TESTED))}",
        "test": optimism(sweep, best, order[0], folder / TESTED),
    }
    replace(path, to_json(best))
    replace(folder / "sweep.json", json.dumps(content, indent=1) + "\n")
    temporary = folder / f"trials.{os.getpid()}.csv"
    write_rows(temporary, [_row(t) for t in done])
    temporary.replace(folder / "trials.csv")
    return content


def _row(trial: Trial) -> Json:
    low, high = trial.estimate.get("ci95") or (None, None)
    return {
        "trial": trial.number,
        "state": trial.state,
        **{name: space.text(value) for name, value in trial.values.items()},
        "value": trial.value,
        "ci95_low": low,
        "ci95_high": high,
        "n": trial.estimate.get("n"),
        "patients": trial.estimate.get("patients"),
        **{f"fold_{k}": v for k, v in trial.folds.items()},
        "spent_s": trial.spent_s,
        "why": trial.why,
    }


def _cohort(folder: Path, trials: Trials, order: Sequence[Trial]) -> Json:
    """What the trials saw, from the folder of one of them; empty on a machine that has none."""
    run = next((f for t in order if (f := trials.folder(t.number) / "splits.json").exists()), None)
    if run is None:
        return {}
    audit = json.loads((run.parent / "cohort.json").read_text())
    divided = _division(run.parent, audit)
    chosen = validation.check_validation(divided, trials.sweep.config.folds)
    held = {p for k in chosen for p in divided.folds[k].validation}
    return {
        "name": audit["name"],
        "kind": audit["kind"],
        "patients": audit["patients"],
        "folds": chosen,
        "validation_patients": len(held),
        "sealed_patients": len(validation.sealed(divided, chosen)),
    }


def _division(run: Path, audit: Mapping[str, Any]) -> splits.Splits:
    patients = sorted({patient for patient, _ in audit["index"]})
    kind = workdir.config_of(run).data.split
    images = splits.images_of(audit)
    return splits.load(run / "splits.json", patients, audit["fingerprint"], kind, images)


def optimism(sweep: Sweep, best: StudyConfig, trial: Trial, run: Path) -> Json | None:
    """The figure on test patients beside that of validation patients; None: not tested yet.

    Where the sweep has sealed patients, the figure is theirs alone.

    Args:
      sweep: resolved.
      best: config of the best trial.
      trial: the best trial.
      run: folder of the study that tested it.

    Raises:
      UserError: the folder holds another config's study.
    """
    if not (run / "cases.csv").exists():
        return None
    other = differences(_plain(best), _plain(workdir.config_of(run)))
    if other:
        raise UserError(
            f"{run} is a study of another config ({'; '.join(other[:3])}); move it away, and run"
            " the command that the sweep ends with."
        )
    divided = _division(run, json.loads((run / "cohort.json").read_text()))
    chosen = validation.check_validation(divided, sweep.config.folds)
    shut = validation.sealed(divided, chosen)
    rows = cases.read(run / "cases.csv")
    crossed = [r for r in rows if int(r["fold"]) in divided.crossed(0)]
    own = [r for r in rows if r["patient"] in shut and r["fold"] in _testing(divided, shut)]
    figure = estimate(best, own if shut else crossed, sweep.config.objective, best.resamples)
    value, sign = figure["value"], 1 if sweep.config.direction == "maximize" else -1
    gap = None if value is None or trial.value is None else sign * (trial.value - value)
    return {
        "run": str(run),
        "patients": "sealed" if shut else "cross-validated",
        "estimate": {k: figure.get(k) for k in ("value", "ci95", "n", "patients")},
        "optimism": gap,
    }


def _testing(divided: splits.Splits, patients: set[str]) -> set[str]:
    """Numbers, as text, of the folds that test these patients; of several, the last."""
    last = {p: str(k) for k, fold in enumerate(divided.folds) for p in fold.test if p in patients}
    return set(last.values())


def _plain(config: StudyConfig) -> Json:
    return workdir.without_movable(json.loads(to_json(config)))


def replace(path: Path, text: str) -> None:
    """Writes a file that appears when it is complete; several workers may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
