from mskjax import history
from mskjax.history import Extension

WHEN = "2026-01-02T03:04:05+00:00"


def test_what_is_written_is_read(tmp_path):
    first = Extension("regions", 60, 80, {"fold_0": 60, "fold_1": 60}, WHEN)
    second = Extension("regions", 80, 90, {"fold_0": 80, "fold_1": 30}, WHEN, ("grades",))
    assert history.read(tmp_path, {"regions": 60}) == []
    history.write(tmp_path, [first, second])
    assert history.read(tmp_path, {"regions": 90}) == [first, second]


def test_what_the_config_does_not_have_did_not_happen(tmp_path):
    first = Extension("regions", 60, 80, {"fold_0": 60}, WHEN)
    history.write(tmp_path, [first, Extension("regions", 80, 90, {"fold_0": 80}, WHEN)])
    assert history.read(tmp_path, {"regions": 80}) == [first]
    assert history.read(tmp_path, {"grades": 90}) == []


def test_a_sentence_says_where_each_fold_was():
    same = Extension("regions", 60, 80, {"fold_0": 60, "fold_1": 60}, WHEN)
    assert str(same) == "regions: extended from 60 to 80 steps at step 60"
    other = Extension("regions", 60, 80, {"fold_0": 60, "fold_1": 30}, WHEN, ("grades",))
    assert str(other) == (
        "regions: extended from 60 to 80 steps at steps 60 (fold_0), 30 (fold_1); grades trained"
        " anew"
    )
