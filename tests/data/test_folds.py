from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.data import folds
from mskjax.errors import UserError


@settings(max_examples=60)
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
    made = folds.grouped_folds(strata, k, fraction, seed)
    tested = [p for f in made for p in f.test]
    assert sorted(tested) == sorted(strata)
    lengths = [len(f.test) for f in made]
    assert max(lengths) - min(lengths) <= 1
    for fold in made:
        assert sorted([*fold.train, *fold.validation, *fold.test]) == sorted(strata)
        assert fold.train
        assert bool(fold.validation) == (fraction > 0)
    for c, n in enumerate(sizes):
        counts = [sum(strata[p] == c for p in f.test) for f in made]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == n
    assert made == folds.grouped_folds(dict(reversed(strata.items())), k, fraction, seed)


def test_folds_that_cannot_exist_give_the_counts_and_what_can():
    strata = {"a": 0, "b": 0, "c": 0, "d": 1, "e": 1}
    message = "3 folds need 3 patients of every class, but there are mild: 3, severe: 2; set"
    with pytest.raises(UserError, match=f"{message} config.data.folds to 2."):
        folds.grouped_folds(strata, 3, 0.1, 0, ("mild", "severe"))
    del strata["e"]
    with pytest.raises(UserError, match="class 0: 3, class 1: 1; add patients .*data.splits"):
        folds.grouped_folds(strata, 2, 0.1, 0)
    with pytest.raises(UserError, match="5 folds need 5 patients, there are 2"):
        folds.grouped_folds({"a": None, "b": None}, 5, 0.1, 0)


def test_official_division_tests_on_the_cohorts_validation_part():
    subsets = {f"t{i}": "training" for i in range(10)} | {"v0": "validation", "v1": "validation"}
    (fold,) = folds.official_fold(subsets, 0.2, 0)
    assert fold.test == ("v0", "v1")
    assert len(fold.validation) == 2
    assert set(fold.validation) < set(subsets) - {"v0", "v1"}
    with pytest.raises(UserError, match="own division needs"):
        folds.official_fold({"a": "training"}, 0.2, 0)


def test_folds_and_official_keeps_the_held_out_part_apart():
    subsets = {f"t{i}": "training" for i in range(5)} | {f"v{i}": "validation" for i in range(3)}
    *crossed, last = folds.folds_and_official(subsets, dict.fromkeys(subsets), 5, 0.0, 0)
    assert [len(f.test) for f in crossed] == [1] * 5
    assert sorted(p for f in crossed for p in f.test) == [f"t{i}" for i in range(5)]
    assert not any(f.held_out for f in crossed)
    assert last.held_out
    assert (len(last.train), last.test) == (5, ("v0", "v1", "v2"))
    with pytest.raises(UserError, match="own division needs"):
        folds.folds_and_official(dict.fromkeys(subsets, "training"), {}, 5, 0.0, 0)


def test_by_case_division_has_the_published_proportion_and_leaks():
    cases = {f"s{p}/{d}": f"s{p}" for p in range(94) for d in range(5)}
    (fold,) = folds.by_case_fold(cases, 0)
    assert Counter(fold.cases.values()) == {"train": 303, "validation": 72, "test": 95}
    assert len(fold.overlapping({})) > 50
