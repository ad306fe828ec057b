"""The worst studies come first, and a neighbouring grade is no failure."""

import types

import pytest

from mskjax.metrics.grading import Grading
from mskjax.reporting import gallery

ORDINAL = Grading("g", ("i", "ii", "iii", "iv"), ordinal=True)
NOMINAL = Grading("g", ("mc0", "mc1", "mc2"))
TWO = Grading("g", ("no", "yes"))


def row(study, number, reference, call):
    return {"study": study, "fold": "0", "kind": "grade", "case": f"{study}/{number}",
            "reference_g": reference, "call_g": call}  # fmt: skip


@pytest.mark.parametrize(
    ("grading", "reference", "call", "size", "failure"),
    [
        (ORDINAL, "i", "i", 0, False),
        (ORDINAL, "i", "ii", 1, False),
        (ORDINAL, "iv", "ii", 2, True),
        (ORDINAL, "i", "", 4, True),
        (NOMINAL, "mc0", "mc2", 1, True),
        (NOMINAL, "mc0", "", 3, True),
        (TWO, "no", "yes", 1, True),
        (TWO, "", "yes", 0, False),
    ],
)
def test_how_far_off_a_call_is(grading, reference, call, size, failure):
    found = gallery.error(row("s", 0, reference, call), grading)
    assert found == size
    assert gallery.is_failure(found, grading) is failure


def test_without_a_grading_the_row_says_what_is_wrong():
    assert gallery.error({"wrong": "1"}, None) == 1
    assert gallery.error({"wrong": ""}, None) == 0
    assert gallery.is_failure(1, None)


@pytest.fixture
def shown(tmp_path):
    def of(rows, doubted=(), grading=ORDINAL):
        folder = tmp_path / "fold_0" / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        for own in rows:
            (folder / f"{own['study']}.png").touch()
        system = types.SimpleNamespace(
            gradings=(grading,), facts=lambda rows: [("n", str(len(rows)))]
        )
        return gallery.gallery(tmp_path, system, rows, doubted)

    return of


def test_failures_are_sorted_by_the_size_of_their_errors(shown):
    rows = [row("near", 0, "i", "ii"), row("near", 1, "ii", "iii"), row("right", 0, "i", "i"),
            row("far", 0, "i", "iii"), row("missed", 0, "i", "")]  # fmt: skip
    found = shown(rows)
    names = [p["path"].rpartition("/")[2].removesuffix(".png") for p in found]
    assert names == ["missed", "far", "near", "right"]
    assert [p["failure"] for p in found] == [True, True, False, False]
    assert found[0]["caption"] == "missed, fold 0: off by two grades or missed"
    assert found[2]["caption"] == "near, fold 0"


def test_a_page_has_a_dozen_pictures_and_those_of_doubtful_references(shown):
    rows = [row(f"s{i:02d}", 0, "i", "iii") for i in range(30)]
    found = shown(rows, doubted=["s20", "s29"])
    names = [p["path"][-7:-4] for p in found]
    assert len(names) == gallery.SHOWN
    assert names == [f"s{i:02d}" for i in range(10)] + ["s20", "s29"]
