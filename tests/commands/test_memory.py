"""A run's memory does not grow with its cohort (docs/scaling.md)."""

import importlib.util
import sys

import pytest
from commands.command_line import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long]

FILE = ROOT / "experiments" / "benchmarks" / "memory.py"
# At half a millimetre a study's slices take 2.4 MB: 160 studies have 290 MB more than 40.
FINE = {
    "stages__regions__spacing_mm": 0.5,
    "stages__regions__train__steps": 5,
    "stages__regions__train__warmup_steps": 1,
    "stages__grades__train__steps": 5,
    "stages__grades__train__warmup_steps": 1,
}


def test_four_times_the_studies_need_no_more_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # one device
    spec = importlib.util.spec_from_file_location("memory_benchmark", FILE)
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "memory_benchmark", benchmark)
    spec.loader.exec_module(benchmark)
    few, many = (benchmark.measure(tmp_path, n, **FINE) for n in (40, 160))
    stored = sum(p.stat().st_size for p in tmp_path.rglob("prepared/*/*.npy"))
    assert stored > 400e6
    for part in ("cut", "train", "evaluate"):
        assert many[part].anonymous_mb < 1.1 * few[part].anonymous_mb, part
