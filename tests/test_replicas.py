import dataclasses
import json

import pytest

from mskjax import replicas
from mskjax.config import DataConfig, PopulationConfig, StudyConfig, parse, to_json
from mskjax.errors import UserError

STAGES = {"regions": {"spacing_mm": 1.0, "train": {"learning_rate": 1e-3, "steps": 10}}}
FAST = {"stages": {"regions": {"train": {"learning_rate": 3e-3}}}}


def config(**population):
    return StudyConfig(
        "toy",
        "phantom",
        DataConfig("toys", "phantom"),
        stages=STAGES,
        seed=4,
        population=PopulationConfig(**population),
    )


def folders(replica, root):
    return [single.workdir.relative_to(root).as_posix() for single in replica.single()]


def test_a_plain_study_is_single(tmp_path):
    whole = replicas.of(config(), tmp_path)
    assert list(whole.single()) == [whole]
    assert whole.workdir == tmp_path


def test_seeds_are_studies_that_differ_in_their_training_alone(tmp_path):
    whole = replicas.of(config(seeds=3, folds="all"), tmp_path)
    assert folders(whole, tmp_path) == ["seed_4", "seed_5", "seed_6"]
    for seed, single in enumerate(whole.single(), start=4):
        expected = dataclasses.replace(config(folds="all"), train_seed=seed)
        assert single.config == expected


def test_members_change_their_stages_and_nothing_else(tmp_path):
    whole = replicas.of(config(members={"plain": {}, "fast": FAST}), tmp_path)
    assert folders(whole, tmp_path) == ["member_plain", "member_fast"]
    plain, fast = whole.single()
    assert plain.config.stages == STAGES
    assert fast.config.stages["regions"] == {
        "spacing_mm": 1.0,
        "train": {"learning_rate": 3e-3, "steps": 10},
    }
    assert dataclasses.replace(fast.config, stages=STAGES) == plain.config


def test_members_of_several_seeds_are_pooled_each(tmp_path):
    whole = replicas.of(config(members={"fast": FAST}, seeds=2), tmp_path)
    assert folders(whole, tmp_path) == ["member_fast/seed_4", "member_fast/seed_5"]
    names = [replica.workdir.relative_to(tmp_path).as_posix() for replica in whole.every()]
    assert names == [".", "member_fast", "member_fast/seed_4", "member_fast/seed_5"]
    assert [single.name for single in whole.single()] == [
        "member_fast seed_4",
        "member_fast seed_5",
    ]


def test_a_replica_started_alone_is_the_same_study(tmp_path):
    """Its config.json asks for no further replicas."""
    for single in replicas.of(config(members={"fast": FAST}, seeds=2), tmp_path).single():
        again = replicas.of(single.config, single.workdir)
        assert list(again.single()) == [again]
        assert json.loads(to_json(single.config))["population"]["seeds"] == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {"folds": 3}}, "members.a changes config.data.folds; members of a population"),
        ({"seed": 3}, "members.a changes config.seed"),
        ({"stages": {"region": {}}}, r"members.a.stages.region is not a field; known fields: reg"),
        ({"stages": {"regions": {"train": {"rate": 1}}}}, r"a.stages.regions.train.rate is not a"),
    ],
)
def test_members_that_are_other_studies_are_refused(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        replicas.of(config(members={"a": changes}), tmp_path)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b"])
def test_names_that_are_no_folders_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="they become folders"):
        replicas.of(config(members={name: {}}), tmp_path)


@pytest.mark.parametrize(
    ("population", "sentence"),
    [
        ({"seeds": 0}, "config.population.seeds is 0; it must be above 0"),
        ({"folds": "each"}, "config.population.folds is .each.; it must be one of one, all"),
        ({"share": "pmap"}, "config.population.share is 'pmap'"),
    ],
)
def test_wrong_populations_are_refused(population, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(PopulationConfig, population, "config.population")
