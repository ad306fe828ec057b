"""One person is one id: what is refused, how it is overruled, and what other tables may say."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskjax.errors import UserError
from tfds_builders.ids import advice, check_ids, check_names, check_spellings, known_study, plain
from tfds_builders.raw import Ledger
from tfds_builders.tables import TableRow

CODE = st.from_regex(r"[A-Za-z]{0,3}-?[1-9][0-9]{0,6}", fullmatch=True)


def rows(*patients, **columns):
    return [
        TableRow({"patient_id": p, "study_id": f"s{n}", **columns}, "studies.csv", n)
        for n, p in enumerate(patients, start=2)
    ]


def clashes(given, column="patient_id"):
    ledger = Ledger()
    check_spellings(given, column, ledger)
    return ledger.bad


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7", "007"),
        ("7", "7.0"),
        ("007", "7.00"),
        ("7", "7,0"),
        ("0", "00"),
        ("P-07", "p-7"),
        ("P-7", "P\N{EN DASH}7"),
        ("P-7", "P\N{NON-BREAKING HYPHEN}7"),
        ("P-7", "P\N{MINUS SIGN}7"),
        ("P 7", "P7"),
        ("P7", "P\N{NO-BREAK SPACE}7"),
        ("P7", "P\N{ZERO WIDTH SPACE}7"),
        ("P7", "\N{ZERO WIDTH NO-BREAK SPACE}P7"),
        ("P7", "P\x1f7"),
        ("P7", "\N{FULLWIDTH LATIN CAPITAL LETTER P}\N{FULLWIDTH DIGIT SEVEN}"),
        (unicodedata.normalize("NFC", "Zoë"), unicodedata.normalize("NFD", "Zoë")),
        ("STRASSE", "straße"),
        ("site.007", "site.7"),
        ("'007", "7"),
        ("Zoe\N{ZERO WIDTH SPACE}\N{COMBINING DIAERESIS}", "Zo\u00eb"),
    ],
)
def test_one_person_under_two_ids_is_refused_with_both_spellings(one, other):
    ((where, why),) = clashes(rows(one, "x", other, one))
    assert where == "studies.csv, line 4"
    assert repr(other) in why
    assert repr(one) in why
    assert "(line 2)" in why
    if not other.isascii():  # what the eye does not see is spelt out
        assert ascii(other) in why
    assert "write yes in the column id_checked" in why


@pytest.mark.parametrize(
    ("one", "other"),
    [("7", "70"), ("P7", "Q7"), ("1.05", "1.5"), ("1.0", "10"), ("a", "á"), ("1-1", "11"),
     ("p_1", "p-1"), ("0", ""), ("7.5", "7")],
)  # fmt: skip
def test_ids_of_two_people_are_not_confused(one, other):
    assert not clashes(rows(one, other))


@given(code=CODE, other=CODE)
def test_only_the_writing_is_forgotten(code, other):
    """Whatever leaves letters, dashes and numbers as they are is one id, and nothing else is."""
    assert plain(f" {code.upper()}\N{ZERO WIDTH SPACE}") == plain(code.lower()) == plain(code)
    assert plain(plain(code)) == plain(code)
    assert (plain(code) == plain(other)) == (code.casefold() == other.casefold())


@given(text=st.text(max_size=12))
def test_what_is_left_of_an_id_is_stable(text):
    assert plain(plain(text)) == plain(text)
    assert plain(text) == plain(unicodedata.normalize("NFD", text))
    assert plain(text) == plain(unicodedata.normalize("NFC", text))
    assert plain(text) == plain(f"\t{text}\N{ZERO WIDTH JOINER} ")


@pytest.mark.parametrize("code", ["#7", "na-7", "n1", "nana", "3e2", "1E5", "E+5", "-", "Zoë"])
def test_unusual_ids_are_ids(code):
    check_ids({"patient_id": code, "study_id": "s"}, set())


@given(number=st.integers(0, 10**12), zeros=st.integers(0, 6), decimals=st.integers(1, 4))
def test_a_number_is_one_id_in_every_form(number, zeros, decimals):
    assert plain("0" * zeros + str(number)) == plain(f"{number}.{'0' * decimals}") == str(number)


def test_two_people_whose_ids_look_alike_are_said_to_be_two():
    both = rows("7", "007", "7", id_checked="yes")
    assert not clashes(both)
    both[2]["id_checked"] = ""
    ((_, why),) = clashes(both)
    assert "all their rows" in why


def test_studies_whose_ids_look_alike_are_refused_too():
    pair = rows("a", "b")
    pair[0]["study_id"], pair[1]["study_id"] = "12", "12.0"
    ((where, why),) = clashes(pair, "study_id")
    assert where == "studies.csv, line 3"
    assert "study_id '12.0' and '12' (line 2)" in why
    assert "if they are two studies" in why


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"patient_id": ""}, "study 's' has no patient_id; fill it in"),
        ({"study_id": ""}, "study_id is ''; it names files"),
        ({"study_id": "a b"}, "study_id is 'a b'; it names files"),
        ({"study_id": "../s"}, "study_id is '../s'; it names files"),
        ({"study_id": "old"}, "study_id 'old' occurs twice"),
        ({"id_checked": "no"}, "id_checked is 'no'; it must be yes or empty"),
        ({"patient_id": "NaN"}, "patient_id is 'NaN', which programs write for a missing value"),
        ({"study_id": "#REF!"}, "study_id is '#REF!', which programs write for a missing value"),
        ({"patient_id": "1.23457E+11"}, "a number that a spreadsheet has rounded"),
        ({"study_id": "1.23457E+11"}, "a number that a spreadsheet has rounded"),
        ({"patient_id": "1e+16"}, "a number that a spreadsheet has rounded"),
        ({"patient_id": "NA"}, "patient_id is 'NA', which programs write for a missing value"),
        ({"patient_id": "#N/A"}, "patient_id is '#N/A', which programs write for a missing"),
        ({"patient_id": "#NAME?"}, "patient_id is '#NAME?', which programs write for a missing"),
    ],
)
def test_ids_that_cannot_be_used(row, message):
    with pytest.raises(UserError) as caught:
        check_ids({"patient_id": "p", "study_id": "s"} | row, {"old"})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("12.0", "'12' is, and '12.0' looks like it: the ids were read as numbers"),
        ("012", "'12' is, and '012' looks like it: the ids were read as numbers"),
        ("S-a", "'s-a' is, and differs only in how it is written"),
        ("knee_one", "did you mean 'knee_on1'?"),
        ("zz", "add the study or remove this"),
        ("", "add the study or remove this"),
    ],
)
def test_a_study_of_another_table_must_be_in_studies_csv(study, message):
    with pytest.raises(UserError) as caught:
        known_study({"study_id": study}, frozenset({"12", "s-a", "knee_on1"}))
    assert f"study_id {study!r} is not in studies.csv; " in str(caught.value)
    assert message in str(caught.value)
    if "read as numbers" in message or "differs only" in message:  # no other advice
        assert "add the study" not in str(caught.value)


def test_a_study_is_not_looked_for_where_studies_csv_is_faulty():
    for studies in (frozenset(), frozenset({"12"})):
        assert known_study({"study_id": "12"}, studies) == "12"


def test_a_whole_table_of_wrong_ids_does_not_take_long():
    known = frozenset(f"study{n:05d}" for n in range(5000))
    start = time.perf_counter()
    for name in ("study04321x", "tsudy04321", "Study4321", "knee04321"):
        for _ in range(2000):
            said = advice(name, known)
        assert ("'study04321'" in said) == (name != "knee04321")
    assert time.perf_counter() - start < 5  # one by one it would be minutes


def test_names_of_files_that_are_one_patient():
    ledger = Ledger()
    check_names(["7", "8", "007", "7"], "patient", ledger)
    ((name, why),) = ledger.bad
    assert name == "007"
    assert "patient '007' and '7' differ only in how they are written" in why
