"""More steps for a study that is begun, on folders made by hand: what goes, in which order."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from mskjax import going_on, history, replicas, systems
from mskjax import workdir as workdirs
from mskjax.config import StudyConfig, parse, to_json
from mskjax.errors import UserError
from mskjax.experiment import load
from mskjax.fields import completed
from mskjax.locks import acquire

STAYS = ("config.json", "splits.json", "cohort.json", "environment.json", "notes.txt")
RESULTS = ("manifest.json", "report/report.json", "report/report.html", "calibration.json")
RESULTS += ("cases.csv",)
OF_FOLD = ("cases.csv", "pictures/a.png", "predictions/a.nii.gz", "validation_cases.csv")
OF_FOLD += ("environment.json",)


def config_of(system, **steps):
    """The default config of a system; keywords are steps of stages."""
    config = parse(StudyConfig, completed(load(system)).to_dict())
    return with_steps(config, **steps)


def with_steps(config, **steps):
    values = json.loads(to_json(config))
    for stage, count in steps.items():
        values["stages"][stage]["train"]["steps"] = count
    return parse(StudyConfig, values)


def write(path, text="{}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def finished(folder, config, steps):
    """What a finished run of two folds leaves, without what is in its files.

    Args:
      folder: of the run.
      config: of the run.
      steps: stage -> steps at which it was saved, in both folds.
    """
    for name in (*STAYS, *RESULTS):
        write(folder / name)
    write(folder / "config.json", to_json(config))
    write(folder / "splits.json", json.dumps({"folds": [{}, {}]}))
    for fold in (folder / "fold_0", folder / "fold_1"):
        for name in ("system.json", *OF_FOLD):
            write(fold / name)
        for stage, count in steps.items():
            for name in ("architecture.json", "cost.json", "metrics.jsonl"):
                write(fold / stage / name)
            write(fold / stage / "checkpoints" / "latest" / str(count) / "state")
    return folder


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


DISCS = {"regions": 60, "grades": 40}


@pytest.fixture
def discs(tmp_path):
    config = config_of("disc_degeneration", **DISCS)
    return finished(tmp_path / "run", config, DISCS), config


def test_results_go_and_weights_stay(discs):
    folder, config = discs
    before = files(folder)
    more = with_steps(config, regions=80)
    assert workdirs.check(folder, more)
    assert going_on.check(folder, more)
    going_on.extend(folder, more)
    gone = {*RESULTS, *(f"fold_{k}/{name}" for k in (0, 1) for name in OF_FOLD)}
    gone |= {f"fold_{k}/regions/{n}.json" for k in (0, 1) for n in ("architecture", "cost")}
    assert before - files(folder) == gone
    assert files(folder) - before == {"history.json"}
    assert workdirs.config_of(folder) == more
    (extension,) = history.read(folder, {"regions": 80})
    assert (extension.stage, extension.before, extension.after) == ("regions", 60, 80)
    assert extension.at == {"fold_0": 60, "fold_1": 60}
    # It is now a study of 80 steps: the same command goes on, and nothing is removed again.
    after = files(folder)
    assert workdirs.check(folder, more)
    assert not going_on.check(folder, more)
    going_on.extend(folder, more)
    assert files(folder) == after
    with pytest.raises(UserError, match="regions.train.steps was 80, now 60; .* give 80 or more"):
        workdirs.check(folder, config)


def test_each_fold_goes_on_from_where_it_was(discs):
    folder, config = discs
    fold = folder / "fold_1"
    shutil.rmtree(fold)
    write(fold / "system.json")
    write(fold / "regions" / "checkpoints" / "latest" / "30" / "state")
    write(fold / "regions" / "checkpoints" / "latest" / "40.orbax-checkpoint-tmp" / "state")
    more = with_steps(config, regions=80, grades=50)
    going_on.extend(folder, more)
    at = {e.stage: e.at for e in history.read(folder, {"regions": 80, "grades": 50})}
    assert at["regions"] == {"fold_0": 60, "fold_1": 30}
    assert at["grades"] == {"fold_0": 40, "fold_1": 0}


def test_stages_cut_from_what_the_first_one_finds_are_trained_anew(tmp_path):
    config = config_of("modic_changes", boxes=60, grades=40)
    stages = [s.name for s in systems.load("modic_changes").build(config).stages]
    assert len(stages) > 2, "one group of the config, several stages"
    folder = finished(tmp_path / "run", config, {s: 60 if s == "boxes" else 40 for s in stages})
    write(folder / "fold_0" / "prepared" / "grades-1" / "image.npy")
    later = shutil.copytree(folder, tmp_path / "later")
    going_on.extend(folder, with_steps(config, boxes=80))
    assert not list(folder.glob("fold_*/grades*"))
    assert not list(folder.glob("fold_*/prepared"))
    assert len(list(folder.glob("fold_*/boxes/checkpoints/latest/60/state"))) == 2
    (extension,) = history.read(folder, {"boxes": 80})
    assert (extension.at, list(extension.anew)) == ({"fold_0": 60, "fold_1": 60}, stages[1:])
    # More steps of the second stages alone leave them where they were.
    going_on.extend(later, with_steps(config, grades=50))
    left = later.glob("fold_*/grades*/checkpoints/latest/40/state")
    assert len(list(left)) == 2 * (len(stages) - 1)
    assert not list(later.glob("fold_*/grades*/cost.json"))
    assert len(history.read(later, dict.fromkeys(stages, 50))) == len(stages) - 1
    assert len(list(later.glob("fold_*/boxes/cost.json"))) == 2


class Killed(BaseException):
    """The process ends here."""


def test_killed_at_any_moment_no_result_lies_beside_other_weights(discs, monkeypatch):
    """Killed before each change of the disk in turn, on and on until it comes through."""
    folder, config = discs
    more = with_steps(config, regions=80, grades=50)
    originals = {name: getattr(os, name) for name in ("replace", "unlink", "rmdir")}
    left = [0]

    def fatal(name):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return originals[name](*arguments, **options)

        return call

    for name in originals:
        monkeypatch.setattr(os, name, fatal(name))
    whole = {k: (folder / "fold_0" / k).read_text() for k in OF_FOLD}
    assert whole
    kills, new_after = 0, []
    for moment in range(1, 200):
        left[0] = moment
        run = folder.parent / str(moment)
        shutil.copytree(folder, run)
        try:
            going_on.extend(run, more)
        except Killed:
            kills += 1
        else:
            break
        is_new = workdirs.config_of(run) == more
        new_after.append(is_new)
        if is_new:
            assert not results(run)
        # What vouches for others went before them: no page without the table that it is made of.
        assert (run / "cases.csv").exists() or not (run / "report" / "report.html").exists()
        for fold in (run / "fold_0", run / "fold_1"):
            assert (fold / "cases.csv").exists() or not (run / "cases.csv").exists()
            for stage in DISCS:
                trained = (fold / stage / "cost.json").exists()
                assert trained or not results(run)
        # Both commands go on from there: the old one as if nothing had been asked for, ...
        left[0] = 0
        assert is_new or workdirs.check(run, config)
        # ... the new one to the same end.
        going_on.extend(run, more)
        assert workdirs.config_of(run) == more
        assert not results(run)
        assert [e.after for e in history.read(run, {"regions": 80, "grades": 50})] == [80, 50]
        assert not list(run.rglob("*.tmp"))
    assert kills > 20, "it was hardly killed"
    assert sorted(new_after) == new_after, "the new config was there, and then not"


def results(run):
    return [p for pattern in going_on.RESULTS for p in run.glob(pattern)]


def test_a_state_that_is_gone_is_named_before_anything_is_removed(discs):
    folder, config = discs
    shutil.rmtree(folder / "fold_1" / "regions" / "checkpoints" / "latest")
    before = files(folder)
    with pytest.raises(UserError, match="fold_1/regions/checkpoints/latest is gone"):
        going_on.check(folder, with_steps(config, regions=80))
    assert files(folder) == before
    assert going_on.check(folder, with_steps(config, grades=50))  # which does not need it


def test_not_while_another_process_owns_a_fold(discs):
    folder, config = discs
    before = files(folder)
    lock = acquire(folder, "fold_1")
    try:
        with pytest.raises(UserError, match=r"fold_1 is in use by process \d+ .*all folds"):
            going_on.extend(folder, with_steps(config, regions=80), folds=[0])
    finally:
        lock.release()
    assert files(folder) == before


def test_anything_but_more_steps_is_another_study(discs):
    folder, config = discs
    other = dataclasses.replace(with_steps(config, regions=80), seed=3)
    with pytest.raises(UserError, match="seed was 0, now 3.*only the steps of a stage may change"):
        workdirs.check(folder, other)
    # Nothing is trained: any config may take the folder, with any steps.
    for path in folder.glob("fold_*"):
        shutil.rmtree(path)
    for name in RESULTS:
        (folder / name).unlink()
    assert not workdirs.check(folder, with_steps(config, regions=10))
    assert not workdirs.is_extended(folder, with_steps(config, regions=80))


def test_seeds_and_members_are_extended_alike(tmp_path):
    config = config_of("disc_degeneration", **DISCS)
    changes = {"fast": {"stages": {"regions": {"train": {"steps": 30}}}}, "slow": {}}
    population = dataclasses.replace(config.population, seeds=2, members=changes)
    whole = dataclasses.replace(config, population=population)
    for part in replicas.of(whole, tmp_path / "run").every():
        steps = {k: v["train"]["steps"] for k, v in part.config.stages.items()}
        finished(part.workdir, part.config, steps)
        if part.parts:
            for fold in part.workdir.glob("fold_*"):
                shutil.rmtree(fold)
    write(tmp_path / "run" / "comparison" / "comparison.json")

    def extended(wanted):
        for part in replicas.of(wanted, tmp_path / "run").every():
            assert workdirs.check(part.workdir, part.config)
            going_on.extend(part.workdir, part.config)
            workdirs.claim(part.workdir, part.config)
            assert workdirs.config_of(part.workdir) == part.config
        # The studies among them, and their steps of the first stage.
        found = (tmp_path / "run").glob("member_*/seed_*/config.json")
        values = {str(p.parent.relative_to(tmp_path / "run")): json.loads(p.read_text())
                  for p in sorted(found)}  # fmt: skip
        return {k: v["stages"]["regions"]["train"]["steps"] for k, v in values.items()}

    more = dataclasses.replace(with_steps(config, regions=80), population=population)
    names = [f"member_{m}/seed_{s}" for m in ("fast", "slow") for s in (0, 1)]
    assert extended(more) == dict(zip(names, (30, 30, 80, 80), strict=True))
    assert not (tmp_path / "run" / "comparison" / "comparison.json").exists()
    assert len(list((tmp_path / "run").glob("member_fast/seed_*/report/report.html"))) == 2
    assert not list((tmp_path / "run").glob("member_slow/seed_*/report/report.html"))
    (extension,) = history.read(tmp_path / "run" / "member_slow", {"regions": 80})
    assert extension.at == {f"seed_{s}/fold_{k}": 60 for s in (0, 1) for k in (0, 1)}
    # More steps of one member alone.
    changes = {"fast": {"stages": {"regions": {"train": {"steps": 40}}}}, "slow": {}}
    own = dataclasses.replace(more, population=dataclasses.replace(population, members=changes))
    assert extended(own) == dict(zip(names, (40, 40, 80, 80), strict=True))
    assert workdirs.is_begun(tmp_path / "run")
    assert Path(tmp_path / "run" / "config.json").read_text() == to_json(own)
