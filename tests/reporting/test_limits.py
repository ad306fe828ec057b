from types import SimpleNamespace

from mskjax.reporting import limits

AUDIT = {"kind": "real", "studies": 3}


def divided(kind="folds", unit="patient"):
    return SimpleNamespace(kind=kind, unit=unit, remarks=lambda: ["p1 was left out."])


def test_one_seed_is_a_limit_and_several_are_another():
    one = limits.of(["Own."], AUDIT, divided(), shuffled=False)
    assert one == ["p1 was left out.", limits.ONE_SEED, "Own.", limits.NO_EXTERNAL]
    three = limits.of(["Own."], AUDIT, divided(), shuffled=False, seeds=3)
    assert limits.ONE_SEED not in three
    assert three[1].startswith("3 seeds: intervals hold their spread beside that of patients")
    assert "drawing among them counts 67% of the variance" in three[1]
    assert "those of the first seed" in three[2]


def test_what_weighs_most_stands_first():
    found = limits.of([], {**AUDIT, "kind": "phantom"}, divided(unit="case"), shuffled=True)
    begins = ("CONTROL RUN", "LEAKING SPLIT", "p1", "PHANTOM", "One run")
    assert [limit.startswith(b) for limit, b in zip(found, begins, strict=False)] == [True] * 5


def test_a_division_that_an_official_one_decides_is_asked_for_no_external_test():
    assert limits.NO_EXTERNAL not in limits.of([], AUDIT, divided("official"), shuffled=False)


def test_studies_without_a_pixel_size_and_more_steps_are_said():
    unsized = {**AUDIT, "studies_without_pixel_size": 1}
    found = limits.of([], unsized, divided(), shuffled=False)
    assert any(limit.startswith("1 of 3 studies do not say how large") for limit in found)
    said = limits.of_extension("regions: extended from 6 to 8 steps")
    assert said.startswith("regions: extended from 6 to 8 steps.  Its learning rate rose again")
