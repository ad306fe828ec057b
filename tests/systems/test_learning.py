"""Both stages together, from packaging to report: what can be learnt is, and what cannot is not.

The phantoms' labels can be told from their images.  Shuffled labels cannot, so whatever a shuffled
run scores above chance has leaked from the held-out patients.
"""

import json
import runpy
from pathlib import Path

import pytest

from mskjax import study
from mskjax.config import StudyConfig, parse

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
# Small enough to take seconds: coarse pixels, few channels, few steps.
SMALL = {
    "fatty_infiltration": {
        "data.options": {"patients": 60, "most_images": 1},
        "stages.regions.spacing_mm": 3.2,
        "stages.regions.patch": (48, 48),
        "stages.regions.model.widths": (8, 16, 32),
        "stages.regions.train.steps": 60,
        "stages.regions.train.learning_rate": 1e-2,
        "stages.grades.crop": (32, 32),
        "stages.grades.model.width": 8,
        "stages.grades.model.blocks": (1, 1, 1, 1, 1),
        "stages.grades.model.hidden": 32,
        "stages.grades.train.steps": 100,
        "stages.grades.train.learning_rate": 5e-3,
    },
    "vertebral_fracture": {
        "data.options": {"patients": 80},
        "stages.segments.spacing_mm": 3.0,
        "stages.segments.patch": (80, 48),
        "stages.segments.model.widths": (8, 16, 32, 48),
        "stages.segments.train.steps": 200,
        "stages.segments.train.learning_rate": 5e-3,
        "stages.grades.crop": (32, 32),
        "stages.grades.model.width": 8,
        "stages.grades.train.steps": 150,
        "stages.grades.train.learning_rate": 5e-3,
    },
}

# Forty training patients and a tiny network; the defaults reach more (README, "Measured").
LEAST = {"fatty_infiltration": 0.9, "vertebral_fracture": 0.65}


def report(name, folder, data_dir, **data):
    values = runpy.run_path(str(EXPERIMENTS / f"{name}.py"))["get_config"]().to_dict()
    values |= {"resamples": 200, "devices": 1}
    values["data"] |= {"data_dir": str(data_dir), "validation_fraction": 0.0, **data}
    for path, value in SMALL[name].items():
        *groups, last = path.split(".")
        node = values
        for group in groups:
            node = node[group]
        node[last] = value
    study.run(parse(StudyConfig, values), folder)
    return json.loads((folder / "report" / "report.json").read_text())


@pytest.fixture(scope="module", params=sorted(SMALL))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def test_learns_what_the_images_show(name, tmp_path, data_dir):
    found = report(name, tmp_path / "run", data_dir)
    for place in ("end_to_end", "oracle_region"):
        estimate = found[place]["auroc"]
        assert estimate["ci95"][0] > 0.5, estimate
        assert estimate["value"] >= LEAST[name], estimate
    assert not found["protocol"].get("control")


def test_falls_to_chance_when_labels_are_shuffled(name, tmp_path, data_dir):
    found = report(name, tmp_path / "run", data_dir, shuffle_labels=True)
    for place in ("end_to_end", "oracle_region"):
        # About three standard errors of a score that knows nothing.
        assert abs(found[place]["auroc"]["value"] - 0.5) < 0.22, found[place]["auroc"]
    assert found["protocol"]["control"]
    assert found["headline"].startswith("CONTROL RUN")
    assert any(limit.startswith("CONTROL RUN") for limit in found["limits"])
