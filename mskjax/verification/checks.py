"""The checks of a finished run, each of which can be done without the others.

Files against the manifest; config, cohort and division against each other and against what made
them; every fold read and scored again; figures and page computed again from the tables.  Nothing is
written, and no cohort is packaged.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from mskjax import cases, ensemble, manifest, reading, replicas, study, systems
from mskjax.applied import STUDIES_AT_ONCE
from mskjax.config import StudyConfig, to_json
from mskjax.data import splits
from mskjax.data.cohorts import Cohort, find_cohort, with_shuffled
from mskjax.errors import UserError
from mskjax.progress import Progress
from mskjax.replicas import Replica
from mskjax.reporting import summary
from mskjax.reporting.artefacts import content
from mskjax.reporting.environment import environment
from mskjax.reporting.page import write_page
from mskjax.tables import Row, as_text
from mskjax.training.mesh import data_mesh
from mskjax.verification import differences, tolerances
from mskjax.verification.differences import Difference
from mskjax.workdir import CONFIG, ENSEMBLE, config_of, folds_in
from tfds_builders.fingerprint import image_hashes

PASS, FAIL, NOT_CHECKED = "PASS", "FAIL", "not checked"
_NEEDED = (CONFIG, "cohort.json", "splits.json", "cases.csv", "report/report.json")


@dataclasses.dataclass(frozen=True)
class Check:
    """What became of one check.

    Attributes:
      name: of the part of the run.
      what: was compared with what, how much of it, and how exactly; or why it was not.
      found: what differs.
      done: whether it could be done.
    """

    name: str
    what: str
    found: Sequence[Difference] = ()
    done: bool = True

    @property
    def result(self) -> str:
        """``PASS``, ``FAIL`` or ``not checked``."""
        return (FAIL if self.found else PASS) if self.done else NOT_CHECKED


def verify(run: Path, data_dir: str | None = None) -> Iterator[Check]:
    """Checks a run, part by part, as soon as each is done.

    Args:
      run: folder of a finished study.
      data_dir: of packaged cohorts, where it is not the one of config.json any more.

    Raises:
      UserError: the folder holds no finished run.
    """
    if not manifest.exists(run):  # with one, what is missing is named
        _check_finished(replicas.of(config_of(run), run))
    yield _guarded("files", _files, run)
    try:
        whole = replicas.of(config_of(run), run)
        systems.load(whole.config.system).check(whole.config)
    except (UserError, ValueError) as error:
        yield _failed("config", run, CONFIG, error)
        return
    for part in whole.every():
        yield _guarded(f"{_titled(part)}config", _config, run, part)
    yield from _content(run, whole, data_dir)


def _check_finished(whole: Replica) -> None:
    """Raises UserError if something that a finished run has is missing."""
    for part in whole.every():
        names = [] if part.config.population.members else [*_NEEDED]  # they have their own reports
        names += [f"{ENSEMBLE}/cases.csv"] if part.seeds else []
        if missing := next((n for n in names if not (part.workdir / n).exists()), None):
            path = part.workdir / missing
            raise UserError(f"{path} is missing; finish the run before it is verified.")


def _content(run: Path, whole: Replica, data_dir: str | None) -> Iterator[Check]:
    """All checks but those of files and config."""
    try:
        audit = content(run / "cohort.json")
        cohort, why = _cohort(whole.config, audit, data_dir)
    except (UserError, ValueError, KeyError, TypeError) as error:
        yield _failed("cohort", run, "cohort.json", error)
        return
    packaged = f"fingerprint {audit['fingerprint'][:16]}"
    if cohort is None:
        yield Check("cohort", why, done=False)
    else:
        found = differences.of_json("cohort.json", audit, dict(cohort.audit))
        yield Check("cohort", f"{cohort.folder}, {packaged}", found)
    for part in whole.single():
        title = _titled(part)
        yield _guarded(f"{title}splits", _splits, run, part, audit, cohort)
        for folder in (part.workdir / f"fold_{k}" for k in folds_in(part.workdir)):
            name = f"{title}{folder.name}"
            if cohort is None:
                yield Check(name, "its studies are not at hand", done=False)
            else:
                yield _guarded(name, _fold, run, part, folder, cohort)
    for part in (p for p in whole.every() if p.seeds):
        for folder in (part.workdir / ENSEMBLE / f"fold_{k}" for k in _numbers(part)):
            name = f"{_titled(part)}{ENSEMBLE} {folder.name}"
            if cohort is None:
                yield Check(name, "its studies are not at hand", done=False)
            else:
                yield _guarded(name, _fold, run, part, folder, cohort)
        yield _guarded(f"{_titled(part)}{ENSEMBLE} cases.csv", _table, run, part, ENSEMBLE)
    for part in whole.every():
        if part.config.population.members:
            continue  # of its members each has its own
        title = _titled(part)
        yield _guarded(f"{title}cases.csv", _table, run, part)
        yield _guarded(f"{title}report.json", _report, run, part)
        yield _guarded(f"{title}report.html", _page, run, part)


def _files(run: Path) -> Check:
    if not manifest.exists(run):
        why = f"no {manifest.MANIFEST}: finished by a version that left none"
        return Check("files", why, done=False)
    found, count = [], 0
    for folder in manifest.runs(run):
        count += len(manifest.read(folder))
        for name, then, now in manifest.differences(folder):
            found.append(Difference(_below(run, folder / name), "", then, now))
    return Check("files", f"{count} hashes, manifest {manifest.digest(run)[:16]}", found)


def _config(run: Path, part: Replica) -> Check:
    """Whether a part has the config that the whole gives it, and the report the same."""
    path = part.workdir / CONFIG
    found, name = [], _below(run, path)
    if part.workdir != run:
        found = differences.of_json(name, content(path), _json(part.config))
    return Check(f"{_titled(part)}config", "parsed", found)


def _json(config: StudyConfig) -> Any:
    return json.loads(to_json(config))


def _cohort(config: StudyConfig, audit: Any, data_dir: str | None) -> tuple[Cohort | None, str]:
    """The packaged cohort, with the labels that the run saw; or None and why it is not at hand."""
    data = config.data
    folder = data_dir or data.data_dir
    cohort = find_cohort(data.cohort, data.config, folder, audit["fingerprint"], **data.options)
    if cohort is None:
        return None, f"{folder} has no package of it; give --data_dir"
    if data.shuffle_labels:
        system = systems.load(config.system).build(config)
        cohort = with_shuffled(cohort, system.relabelled, config.seed)
    return cohort, ""


def _splits(run: Path, part: Replica, audit: Any, cohort: Cohort | None) -> Check:
    """The division by itself, against the rows that folds wrote, and against the config's."""
    config, path = part.config, part.workdir / "splits.json"
    name, patients = _below(run, path), sorted({patient for patient, _ in audit["index"]})
    then = splits.load(
        path, patients, audit["fingerprint"], config.data.split, splits.images_of(audit)
    )
    found = differences.of_json(name, content(path), splits.as_json(then))
    for number, fold in enumerate(then.folds):
        table = part.workdir / f"fold_{number}" / "cases.csv"
        if table.exists():
            scored = {row["patient"] for row in cases.read(table)}
            unknown = sorted(scored - {*fold.test})
            found += [
                Difference(name, f"fold {number}, patient {p}", _part(fold, p), "scored as test")
                for p in unknown
            ]
    what = f"{len(then.folds)} folds of {len(patients)} patients"
    supplied = config.data.splits
    if cohort is None or (supplied is not None and not Path(supplied).exists()):
        return Check(f"{_titled(part)}splits", f"{what}; not what they were made of", found)
    system = systems.load(config.system).build(config)
    now = study.make_splits(config, cohort, system, None)
    found += _between(name, then.folds, now.folds)
    return Check(f"{_titled(part)}splits", f"{what}, divided again", found)


def _between(
    name: str, then: Sequence[splits.Fold], now: Sequence[splits.Fold]
) -> list[Difference]:
    """The patients who are in other parts of a division than the config puts them into."""
    if len(then) != len(now):
        return [Difference(name, "folds", str(len(then)), str(len(now)))]
    found = []
    for number, (old, new) in enumerate(zip(then, now, strict=True)):
        for patient in sorted({*old.parts, *new.parts}):
            one, other = _part(old, patient), _part(new, patient)
            if one != other:
                found.append(Difference(name, f"fold {number}, patient {patient}", one, other))
        rest = [dataclasses.replace(fold, train=(), validation=(), test=()) for fold in (old, new)]
        if rest[0] != rest[1]:
            found.append(Difference(name, f"fold {number}", str(rest[0]), str(rest[1])))
    return found


def _part(fold: splits.Fold, patient: str) -> str:
    return " and ".join(fold.parts.get(patient, ("in no part",)))


def _fold(run: Path, part: Replica, folder: Path, cohort: Cohort) -> Check:
    """Reads and scores the held-out studies of a fold again, from its checkpoints.

    Where a study consists of seeds, all of them read together.
    """
    config, number = part.config, int(folder.name.removeprefix("fold_"))
    path, audit = folder / "cases.csv", cohort.audit
    then = cases.read(path)
    divided = splits.load(
        part.workdir / "splits.json", cohort.patients, audit["fingerprint"], config.data.split
    )
    fold = divided.folds[number]
    mesh = data_mesh(min(config.devices or jax.device_count(), jax.device_count()))
    trained = [single.workdir / folder.name for single in part.single()]
    together = ensemble.of(trained, config, mesh)
    loaded: reading.Reader = together if part.seeds else together.members[0]
    wanted = [i for i, (patient, _) in enumerate(cohort.index) if patient in {*fold.test}]
    title = f"{_titled(part)}{ENSEMBLE + ' ' if part.seeds else ''}{folder.name}"
    progress = Progress(f"{title} again", len(wanted))
    seed: int | str = config.seed if config.train_seed is None else config.train_seed
    seed = "" if part.seeds else seed
    now: list[Row] = []
    found: list[Difference] = []
    for start in range(0, len(wanted), STUDIES_AT_ONCE):
        some = [cohort.studies[i] for i in wanted[start : start + STUDIES_AT_ONCE]]
        rows = reading.rows_of_fold(loaded, some)
        now += [{"fold": number, "seed": seed, **r} for r in rows if reading.is_of(r, fold, "test")]
        found += [d for own in some for d in _images(audit, own)]
        for _ in some:
            progress.advance()
    progress.close()
    differing = _changes(part, folder)
    tolerance = tolerances.of(differing, _json(config))
    name, gradings = _below(run, path), loaded.system.gradings
    found += differences.of_rows(name, then, as_text(now), tolerance, gradings)
    what = f"{len(wanted)} studies, {len(then)} rows read again, {tolerance}"
    if differing:
        what += f" ({'; '.join(differing)})"
    return Check(title, what, found)


def _images(audit: Any, own: Any) -> list[Difference]:
    """Whether a study's images are those that were packaged for the run."""
    name = own["study_id"]
    then, now = audit.get("images", {}).get(name), image_hashes(own)
    if then is None or [*then] == now:
        return []
    return [Difference("cohort.json", f"images of {name}", str(then)[:20], str(now)[:20])]


def _changes(part: Replica, folder: Path) -> list[str]:
    """What of the machine is not as it was when a fold was read."""
    places = (folder / "environment.json", part.workdir / "environment.json")
    then = content(next((p for p in places if p.exists()), places[-1]))
    return tolerances.changes(then, environment())


def _table(run: Path, part: Replica, below: str = "") -> Check:
    """Whether the table, of single trainings or in a folder below, is the one of its folds."""
    path = part.workdir / below / "cases.csv"
    then = cases.read(path)
    now: list[Row] = []
    for folder in [path.parent] if below else [single.workdir for single in part.single()]:
        now += study.gather_rows(folder, len(_numbers(part)))
    found = differences.of_rows(_below(run, path), then, now, tolerances.EXACT)
    name = f"{_titled(part)}{below} cases.csv" if below else f"{_titled(part)}cases.csv"
    return Check(name, f"{len(then)} rows against those of the folds", found)


def _numbers(part: Replica) -> range:
    """Of the folds of a study."""
    return range(len(content(part.workdir / "splits.json")["folds"]))


def _report(run: Path, part: Replica) -> Check:
    """Sums up again what cases.csv and the other files of the run say."""
    path = part.workdir / "report" / "report.json"
    then, now = content(path), _summed_up(part)
    found = differences.of_figures(_below(run, path), then, now)
    count = differences.numbers(then)
    what = f"{count} numbers and all texts from the tables again"
    return Check(f"{_titled(part)}report.json", what, found)


def _page(run: Path, part: Replica) -> Check:
    """Whether the page shows the report."""
    name = f"{_titled(part)}report.html"
    path = part.workdir / "report" / "report.html"
    if differing := tolerances.changes(content(part.workdir / "environment.json"), environment()):
        return Check(name, f"drawn elsewhere ({'; '.join(differing)})", done=False)
    report = content(path.with_name("report.json"))
    with tempfile.TemporaryDirectory() as folder:
        again = write_page(report, part.workdir, Path(folder)).read_bytes()
    if path.exists() and path.read_bytes() == again:
        return Check(name, "the page of report.json, drawn again")
    other = Difference(_below(run, path), "", "another page", "the one of report.json")
    return Check(name, "the page of report.json, drawn again", [other])


def _summed_up(part: Replica) -> Any:
    system = systems.load(part.config.system).build(part.config)
    return json.loads(json.dumps(summary.content(part.workdir, system)))


def _guarded(name: str, check: Callable[..., Check], run: Path, *arguments: Any) -> Check:
    """A check; what the damaged files of a run make a library raise is what it found."""
    try:
        return check(run, *arguments)
    except Exception as error:
        return _failed(name, run, name, error)


def _failed(name: str, run: Path, file: str, error: Exception) -> Check:
    said = " ".join(str(error).split()).replace(f"{run}/", "")
    if not isinstance(error, UserError):
        said = f"{type(error).__name__}: {said}"
    return Check(name, "cannot be checked", [Difference(file, "", "readable", said[:300])])


def _titled(part: Replica) -> str:
    return f"{part.name} " if part.name else ""


def _below(run: Path, path: Path) -> str:
    return path.relative_to(run).as_posix()
