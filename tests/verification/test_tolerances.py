"""When nothing may differ, and how far what may."""

import copy

import pytest

from mskjax import cases
from mskjax.verification import tolerances

HERE = {
    "python": "3.12.1",
    "platform": "Linux x86_64",
    "cpu": {"model": "a", "features": ["avx2"], "threads": 2},
    "packages": {"jaxlib": "0.10.2", "numpy": "2.4.6"},
    "devices": ["cpu"],
    "xla_flags": "",
    "variables": {},
    "git_commit": "abc",
}
RECIPE = {"stages": {"regions": {"model": {"dtype": "float32"}}}}
HALF = {"stages": {"regions": {"model": {"dtype": "bfloat16"}}}}


def test_the_same_machine_and_versions_are_exact():
    then = {**copy.deepcopy(HERE), "python": "3.11.0", "cpu_count": 64}
    assert tolerances.changes(then, HERE) == []
    assert tolerances.of([], RECIPE) == tolerances.EXACT
    assert str(tolerances.EXACT) == "to the last digit"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("packages", "jaxlib"), "0.9.0", "jaxlib: 0.9.0, now 0.10.2"),
        (("cpu", "features"), ["avx512f"], "features: ['avx512f'], now ['avx2']"),
        (("cpu", "threads"), 8, "threads: 8, now 2"),
        (("devices",), ["NVIDIA H100"], "devices: ['NVIDIA H100'], now ['cpu']"),
        (("xla_flags",), "--a", "xla_flags: --a, now "),
        (("cpu",), None, "cpu: not known, now "),  # a run of before it was noted
    ],
)
def test_what_decides_on_bits_is_named(path, value, said):
    then = copy.deepcopy(HERE)
    node = then
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    (change,) = tolerances.changes(then, HERE)
    assert change.startswith(said)
    assert not tolerances.of([change], RECIPE).is_exact


def test_half_precision_may_differ_by_more():
    single, half = tolerances.of(["x"], RECIPE), tolerances.of(["x"], HALF)
    assert single.of("p_model_pfirrmann_ii") == tolerances.FLOAT32
    assert half.of("oracle_p_model_pfirrmann_ii") == tolerances.BFLOAT16
    assert single.of("dice") == half.of("dice") == tolerances.OVERLAP


def test_counts_classes_and_names_may_never_differ():
    tolerance = tolerances.of(["x"], HALF)
    for column in ("regions_found", "found", "fold", "seed", "age", "call_pfirrmann", "wrong"):
        assert tolerance.of(column) == 0.0, column
    assert {*cases.FIXED} >= tolerances._OVERLAPS | tolerances._LENGTHS
