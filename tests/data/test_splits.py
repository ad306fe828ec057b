import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.data import folds, splits
from mskjax.data.splits import Fold, Splits
from mskjax.errors import UserError

PATIENTS = ["a", "b", "c", "d"]


def supplied(tmp_path, *made, patients=PATIENTS, images=None, **more):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"folds": list(made), **more}))
    return splits.load(path, patients, "x", "supplied", images)


def refusal(tmp_path, *made, **options):
    with pytest.raises(UserError) as caught:
        supplied(tmp_path, *made, **options)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'mine.json'}")
    return said


def fold(train, test, validation="", **more):
    """A fold of patients whose ids are single letters."""
    return {"train": [*train], "validation": [*validation], "test": [*test], **more}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a splits file"),
        ("[]", "it has no folds"),
        ('{"folds": []}', "it has no folds"),
        ('{"folds": {"train": ["a"]}}', "it has no folds"),
        ('{"folds": ["a"]}', "fold 0 is 'a'"),
        ('{"folds": [{"train": ["a"]}]}', "fold 0 lacks test"),
        ('{"folds": [{"train": "ab", "test": ["c"]}]}', "fold 0, train is 'ab', not a list"),
        ('{"folds": [{"train": ["a", null], "test": ["c"]}]}', "train has None, which is no pat"),
        ('{"folds": [{"train": ["a"], "test": [true]}]}', "test has True, which is no patient id"),
        (
            '{"folds": [{"train": ["a"], "test": ["b"], "valdation": []}]}',
            "has 'valdation'; did you mean 'validation'",
        ),
        ('{"folds": [{"train": ["a"], "test": ["b"], "held_out": "no"}]}', "held_out is 'no'"),
        ('{"folds": [{"train": ["a"], "test": ["b"], "repetition": -1}]}', "repetition is -1"),
        ('{"folds": [{"train": ["a"], "test": ["b"], "repetition": "0"}]}', "repetition is '0'"),
        ('{"folds": [{"train": ["a"], "test": ["b"], "cases": {"a/1": "tset"}}]}', "cases must"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        splits.load(path, PATIENTS, "x", "supplied")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_patients_in_two_parts_of_a_fold_are_all_named_with_the_parts(tmp_path):
    said = refusal(tmp_path, fold("ab", "bcd", "ac"))
    assert "fold 0: 3 patients are on both sides" in said
    assert "(train and validation: a; train and test: b; validation and test: c)" in said
    # The overlap of validation and test alone, too: it selects checkpoints by the test.
    said = refusal(tmp_path, fold("a", "cd", "bcd"))
    assert "2 patients are on both sides (validation and test: c, d)" in said


def test_patients_tested_by_two_folds_are_all_named_and_the_way_to_repeat_is_told(tmp_path):
    made = (fold("d", "ab"), fold("d", "bc"), fold("d", "ac"))
    said = refusal(tmp_path, *made)
    assert "3 patients are tested by more than one fold" in said
    assert "(folds 0 and 2: a; folds 0 and 1: b; folds 1 and 2: c)" in said
    assert '"repetition": 0, 1, ...' in said
    repeated = (made[0] | {"repetition": 0}, fold("d", "c"), made[1] | {"repetition": 1})
    loaded = supplied(tmp_path, *repeated)
    assert loaded.repetitions == 2
    assert [loaded.crossed(r) for r in (0, 1)] == [[0, 1], [2]]
    # Within a repetition the rule stays.
    again = made[2] | {"repetition": 1}
    assert "1 patients are tested by more than one fold (folds 2 and 3: c)" in refusal(
        tmp_path, *repeated, again
    )


def test_repetitions_are_numbered_from_0_without_a_gap(tmp_path):
    made = [fold("ab", "cd", repetition=r) for r in (1, 2)]
    assert "the repetitions are numbered 1, 2; number them 0, 1, ..." in refusal(tmp_path, *made)
    assert "every fold is held out" in refusal(tmp_path, fold("ab", "cd", held_out=True))


def test_patients_of_a_held_out_fold_are_in_no_other_fold(tmp_path):
    last = fold("ab", "cd", held_out=True)
    assert supplied(tmp_path, fold("a", "b"), last).left_out == {}
    said = refusal(tmp_path, fold("ac", "b"), fold("bc", "a", "d"), last)
    assert "fold 2 is held out, but 2 of its test patients are in other folds" in said
    assert "(folds 0 and 1: c; fold 1: d)" in said


def test_a_patient_listed_twice_in_a_part_is_refused(tmp_path):
    said = refusal(tmp_path, fold("aab", "cdd"))
    assert "fold 0: train lists patient a more than once" in said
    assert "fold 0: test lists patient d more than once" in said


def test_unknown_patients_are_listed_in_full_where_they_are_few(tmp_path):
    said = refusal(tmp_path, fold("axyz", "b"))
    assert "3 patients are not in the cohort (x, y, z); mend the file." in said
    many = {"train": [f"n{i:02}" for i in range(23)], "test": ["a"]}
    said = refusal(tmp_path, many)
    assert "23 patients are not in the cohort (n00, " in said
    assert "n19 and 3 more)" in said


def test_ids_may_be_written_as_numbers(tmp_path):
    (made,) = supplied(tmp_path, {"train": [7], "test": ["8"]}, patients=["7", "8"]).folds
    assert made == Fold(("7",), (), ("8",))


@pytest.mark.parametrize("spelt", ["007", "7.0", 7.0, " 7", "７"])
def test_other_spellings_of_an_id_are_recognised(tmp_path, spelt):
    said = refusal(tmp_path, {"train": [spelt], "test": ["Ab"]}, patients=["7", "Ab"])
    assert f"did you mean '7' for {str(spelt)!r}?" in said
    said = refusal(tmp_path, {"train": ["7"], "test": ["aB", "c"]}, patients=["7", "Ab", "AB"])
    assert "2 patients are not in the cohort (aB, c); did you mean 'AB' or 'Ab' for 'aB'?" in said


def test_all_faults_of_a_file_are_listed_together(tmp_path):
    said = refusal(tmp_path, fold("ab", "bz"), fold("aa", ""), fold("a", "b"))
    assert said.count("\n") == 5
    for part in ("fold 0: 1 patients are not", "fold 0: 1 patients are on both sides"):
        assert part in said
    assert "fold 1: train lists patient a" in said
    assert "fold 1: train and test must not be empty" in said
    assert "test parts: 1 patients are tested by more than one fold (folds 0 and 2: b)" in said


def test_patients_left_out_are_named_in_the_file_and_in_a_sentence(tmp_path):
    patients = [*"abcdefg"]
    loaded = supplied(tmp_path, fold("ab", "cd"), fold("cd", "a"), patients=patients)
    assert loaded.left_out == {"b": (1,), "e": (0, 1), "f": (0, 1), "g": (0, 1)}
    assert loaded.remarks() == [
        "Left out of every fold: patients e, f and g.",
        "Left out of fold 1: patient b.",
    ]
    splits.save(tmp_path / "splits.json", loaded)
    content = json.loads((tmp_path / "splits.json").read_text())
    assert content["left_out"]["b"] == [1]
    assert splits.load(tmp_path / "splits.json", patients, "x", "folds") == loaded
    assert supplied(tmp_path, fold("ab", "cd"), fold("cd", "ab")).remarks() == []


def test_patients_with_one_image_are_one_person_on_both_sides(tmp_path):
    images = {"a": {"1"}, "b": {"2"}, "c": {"3", "2"}, "d": {"3"}}
    assert splits.same_persons(images) == {"a": "a", "b": "b", "c": "b", "d": "b"}
    # b and d have no image in common, but each has one of c's.
    loaded = supplied(tmp_path, fold("ab", "d"), fold("b", "a"), images=images)
    assert loaded.patient_overlap == 1
    assert loaded.overlapping == ["b", "d"]
    assert loaded.remarks()[0] == ("Patients who share an image lie on both sides of a fold: b, d.")
    assert supplied(tmp_path, fold("a", "bcd"), images=images).patient_overlap == 0
    unknown = supplied(tmp_path, fold("ab", "cd"))
    assert (unknown.patient_overlap, unknown.has_images) == (0, False)
    splits.save(tmp_path / "splits.json", loaded)
    content = json.loads((tmp_path / "splits.json").read_text())
    assert (content["patient_overlap"], content["overlapping"]) == (1, ["b", "d"])


@settings(max_examples=80)
@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"), st.sets(st.integers(0, 6).map(str), max_size=3), min_size=2
    )
)
def test_persons_are_the_classes_of_sharing_an_image(images):
    person = splits.same_persons(images)
    # The oracle: sharing, closed by repetition until nothing changes.
    groups = [{p} for p in images]
    while joined := next(
        (
            (x, y)
            for i, x in enumerate(groups)
            for y in groups[:i]
            if {h for p in x for h in images[p]} & {h for p in y for h in images[p]}
        ),
        None,
    ):
        groups = [g for g in groups if g not in joined] + [joined[0] | joined[1]]
    assert person == {p: min(g) for g in groups for p in g}


def test_images_of_an_audit():
    audit = {"index": [["p", "s1"], ["p", "s2"], ["q", "s3"]]}
    assert splits.images_of(audit) == {"p": set(), "q": set()}
    audit["images"] = {"s1": ["x"], "s2": ["y", "x"], "s3": []}
    assert splits.images_of(audit) == {"p": {"x", "y"}, "q": set()}


def test_what_is_saved_is_loaded_again(tmp_path):
    subsets = {f"t{i}": "training" for i in range(5)} | {f"v{i}": "validation" for i in range(3)}
    made = folds.folds_and_official(subsets, dict.fromkeys(subsets), 5, 0.0, 0)
    whole = Splits(made, "folds_and_official", "f", tuple(sorted(subsets)))
    assert whole.left_out == {}  # that the folds do not know the held-out patients is meant
    splits.save(tmp_path / "s.json", whole)
    assert splits.load(tmp_path / "s.json", sorted(subsets), "f", "folds_and_official") == whole


def test_by_case_division_says_that_it_leaks(tmp_path):
    cases = {f"s{p}/{d}": f"s{p}" for p in range(94) for d in range(5)}
    made = Splits(folds.by_case_fold(cases, 0), "by_case", "f" * 16)
    splits.save(tmp_path / "splits.json", made)
    content = json.loads((tmp_path / "splits.json").read_text())
    assert content["unit"] == "case"
    both = {p for p in cases.values() if len(made.folds[0].parts[p]) > 1}
    assert content["patient_overlap"] == len(both) > 50
    loaded = splits.load(tmp_path / "splits.json", sorted(set(cases.values())), "f" * 16, "by_case")
    assert loaded.folds[0].cases == made.folds[0].cases


def test_splits_of_another_cohort_are_refused(tmp_path):
    made = Fold(("a", "b"), (), ("c", "d"))
    path = tmp_path / "splits.json"
    splits.save(path, Splits((made,), "folds", "one"))
    assert splits.load(path, PATIENTS, "one", "folds").folds == (made,)
    with pytest.raises(UserError, match="made for another cohort"):
        splits.load(path, ["a"], "two", "folds")
    with pytest.raises(UserError, match="does not exist"):
        splits.load(tmp_path / "none.json", PATIENTS, "one", "supplied")
