import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.data import splits
from mskjax.errors import UserError


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(5, 20), min_size=1, max_size=4),
    st.integers(0, 7),
    st.integers(2, 5),
    st.floats(0, 0.4),
    st.integers(0, 3),
)
def test_folds_partition_patients_and_keep_strata(sizes, ungraded, k, fraction, seed):
    strata = {f"p{c}_{i}": c for c, n in enumerate(sizes) for i in range(n)}
    strata |= {f"u{i}": None for i in range(ungraded)}
    folds = splits.grouped_folds(strata, k, fraction, seed)
    tested = [p for f in folds for p in f.test]
    assert sorted(tested) == sorted(strata)
    lengths = [len(f.test) for f in folds]
    assert max(lengths) - min(lengths) <= 1
    for fold in folds:
        assert fold.overlap == 0
        assert {*fold.train, *fold.validation, *fold.test} == set(strata)
        assert fold.train
        assert bool(fold.validation) == (fraction > 0)
    for c, n in enumerate(sizes):
        counts = [sum(strata[p] == c for p in f.test) for f in folds]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == n
    assert folds == splits.grouped_folds(dict(reversed(strata.items())), k, fraction, seed)


def test_fold_that_cannot_exist_gives_the_counts():
    strata = {"a": 0, "b": 0, "c": 0, "d": 1}
    with pytest.raises(
        UserError, match="3 folds need 3 patients of every class.*class 0: 3, class 1: 1"
    ):
        splits.grouped_folds(strata, 3, 0.1, 0)
    with pytest.raises(UserError, match="5 folds need 5 patients, there are 2"):
        splits.grouped_folds({"a": None, "b": None}, 5, 0.1, 0)


def test_official_division_tests_on_the_cohorts_validation_part():
    subsets = {f"t{i}": "training" for i in range(10)} | {"v0": "validation", "v1": "validation"}
    (fold,) = splits.official_fold(subsets, 0.2, 0)
    assert fold.test == ("v0", "v1")
    assert len(fold.validation) == 2
    assert set(fold.validation) < set(subsets) - {"v0", "v1"}
    with pytest.raises(UserError, match="own division needs"):
        splits.official_fold({"a": "training"}, 0.2, 0)


def test_folds_and_official_keeps_the_held_out_part_apart(tmp_path):
    subsets = {f"t{i}": "training" for i in range(5)} | {f"v{i}": "validation" for i in range(3)}
    *crossed, last = splits.folds_and_official(subsets, dict.fromkeys(subsets), 5, 0.0, 0)
    assert [len(f.test) for f in crossed] == [1] * 5
    assert sorted(p for f in crossed for p in f.test) == [f"t{i}" for i in range(5)]
    assert not any(f.held_out for f in crossed)
    assert last.held_out
    assert (len(last.train), last.test) == (5, ("v0", "v1", "v2"))
    splits.save(tmp_path / "s.json", splits.Splits((*crossed, last), "folds_and_official", "f"))
    loaded = splits.load(tmp_path / "s.json", sorted(subsets), "f", "folds_and_official")
    assert loaded.folds == (*crossed, last)
    with pytest.raises(UserError, match="own division needs"):
        splits.folds_and_official(dict.fromkeys(subsets, "training"), {}, 5, 0.0, 0)


def test_by_case_division_leaks_and_says_so(tmp_path):
    cases = {f"s{p}/{d}": f"s{p}" for p in range(94) for d in range(5)}
    (fold,) = splits.by_case_fold(cases, 0)
    parts = Counter(fold.cases.values())
    assert parts == {"train": 303, "validation": 72, "test": 95}
    assert fold.overlap > 50
    made = splits.Splits((fold,), "by_case", "f" * 16)
    splits.save(tmp_path / "splits.json", made)
    content = json.loads((tmp_path / "splits.json").read_text())
    assert content["unit"] == "case"
    assert content["patient_overlap"] == fold.overlap
    loaded = splits.load(tmp_path / "splits.json", sorted(set(cases.values())), "f" * 16, "by_case")
    assert loaded.folds[0].cases == fold.cases


PATIENTS = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a splits file"),
        ('{"folds": [{"train": ["a"]}]}', "is not a splits file"),
        ('{"folds": [{"train": ["a", "z"], "test": ["b"]}]}', "1 patients are not in the cohort"),
        ('{"folds": [{"train": ["a", "b"], "test": ["b"]}]}', "1 patients are on both sides"),
        ('{"folds": [{"train": ["a"], "test": []}]}', "must not be empty"),
    ],
)
def test_supplied_splits_are_held_against_the_cohort(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        splits.load(path, PATIENTS, "x", "supplied")


def test_splits_of_another_cohort_are_refused(tmp_path):
    fold = splits.Fold(("a", "b"), (), ("c", "d"))
    path = tmp_path / "splits.json"
    splits.save(path, splits.Splits((fold,), "folds", "one"))
    assert splits.load(path, PATIENTS, "one", "folds").folds == (fold,)
    with pytest.raises(UserError, match="made for another cohort"):
        splits.load(path, PATIENTS, "two", "folds")
    with pytest.raises(UserError, match="does not exist"):
        splits.load(tmp_path / "none.json", PATIENTS, "one", "supplied")
