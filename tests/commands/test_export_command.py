"""``mskjax export``: what another process reads with the folder is what the run itself reads."""

import dataclasses
import json
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from commands import command_line
from commands.command_line import complaint
from commands.without_networks import said

from mskjax import applied, systems
from mskjax.config import StudyConfig, parse
from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import UserError
from mskjax.export import main
from mskjax.portable import reading

RUNS = [
    pytest.param(name, marks=[] if name == "disc_degeneration" else [pytest.mark.long])
    for name in systems.names()
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=RUNS)
def run(request, tiny_run):
    """The finished run of a system."""
    return tiny_run(request.param)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory, finish):
    """Its export, far from the run."""
    output = tmp_path_factory.mktemp("export") / "model"
    lines = finish([f"--run={run.workdir}", f"--output={output}"], main).splitlines()
    assert lines[-1].split() == ["python", str(output / "example.py")]
    return output


@pytest.fixture(scope="module")
def model(folder):
    return json.loads((folder / "model.json").read_text())


@pytest.fixture(scope="module")
def held_out(run):
    """Two studies of patients that fold 0 held out."""
    data = parse(StudyConfig, json.loads((run.workdir / "config.json").read_text())).data
    where = data.cohort, data.config, data.data_dir, data.manual_dir
    cohort = prepare_cohort(*where, **data.options)
    patients = json.loads((run.workdir / "splits.json").read_text())["folds"][0]["test"]
    numbers = [i for i, (patient, _) in enumerate(cohort.index) if patient in patients]
    return [cohort.studies[i] for i in numbers[:2]]


def differ(a, b, where="said"):
    """Names of what is not the same in two trees, to the bit."""
    if dataclasses.is_dataclass(a):
        a, b = vars(a), vars(b)
    if isinstance(a, (list, tuple)):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        return [name for key in a for name in differ(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    else:
        same = pickle.dumps(a) == pickle.dumps(b)  # a NaN is the same as itself
    return [] if same else [where]


def test_a_process_without_networks_reads_what_the_run_reads(run, folder, held_out, tmp_path):
    (tmp_path / "studies").write_bytes(pickle.dumps([dict(study) for study in held_out]))
    names = ("studies", "said")
    process = command_line.run(
        "tests.commands.without_networks", folder, "fold_0", *(tmp_path / name for name in names)
    )
    assert process.returncode == 0, process.stderr
    theirs = pickle.loads((tmp_path / "said").read_bytes())
    (fold,) = applied.load(run.workdir, [0], devices=1)
    ours = said(fold, held_out)
    stages = {name for name, _ in ours["outputs"]}
    assert stages == {stage.name for stage in fold.system.stages}
    # The same program on the same device: no rounding differs.
    assert not differ(ours, theirs)


def test_programs_are_for_every_platform_and_leave_nothing_to_a_library(model):
    for stage in model["stages"]:
        assert stage["platforms"] == ["cpu", "cuda", "tpu"]
        assert stage["custom_calls"] == [], stage["name"]
        assert stage["outputs"]


def first_takes_one_image_of_any_size(model):
    inputs = model["stages"][0]["inputs"]
    shape = str(inputs["image"]["shape"])  # of two sequences, the page's example has one too few
    return inputs.keys() == {"image"} and "*h" in shape and bool(re.search(r"\b1\W*$", shape))


def test_the_example_and_the_page_run_where_mskjax_is_not(folder, model, tmp_path):
    hook = "import sys; sys.modules['mskjax'] = None; sys.modules['flax'] = None\n"
    code = hook + f"import runpy; runpy.run_path({str(folder / 'example.py')!r}, None, '__main__')"
    if first_takes_one_image_of_any_size(model):
        page = (command_line.ROOT / "docs/export.md").read_text()
        shown = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
        code += f"\n{shown.replace('first-model', str(folder))}"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    for stage in model["stages"]:
        for name, own in stage["outputs"].items():
            assert f"{stage['name']}: {name} {own['dtype']}[" in process.stdout


def test_the_folder_says_what_it_is(run, folder, model):
    audit = json.loads((run.workdir / "cohort.json").read_text())
    card = (folder / "MODEL_CARD.md").read_text()
    assert ("PHANTOM" in card) == (audit["kind"] == "phantom")
    assert "Research use only" in card
    assert model["cohort"]["fingerprint"] == audit["fingerprint"]
    assert "Apache License" in (folder / "LICENSE").read_text()
    labels = json.loads((folder / "labels.json").read_text())
    assert labels == {"0": "background", **model["labels"]}
    folds = json.loads((run.workdir / "splits.json").read_text())["folds"]
    ranges = json.loads((folder / "training_ranges.json").read_text())
    assert ranges["slices"]["n"] >= len(folds[0]["train"])
    assert ranges["slices"]["low"] <= ranges["slices"]["high"]
    assert [fold["name"] for fold in model["folds"]] == [f"fold_{k}" for k in range(len(folds))]
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {*model["files"], "model.json"}


def test_no_patient_and_no_folder_of_this_machine_is_in_any_file(run, folder):
    audit = json.loads((run.workdir / "cohort.json").read_text())
    hidden = {name for pair in audit["index"] for name in pair} | {str(run.workdir.parent)}
    for path in (p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for name in hidden:
            word = rb"(?<![A-Za-z0-9])" + re.escape(name.encode()) + rb"(?![A-Za-z0-9])"
            assert len(name) < 3 or not re.search(word, content), (path, name)


# What follows is the same for every system.


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished.workdir, tmp_path / "run")


def refused(capsys, *arguments):
    assert main(list(map(str, arguments))) == 2
    return complaint(capsys.readouterr().err)


def test_one_fold_alone_is_exported(finished, tmp_path, finish):
    finish([f"--run={finished.workdir}", f"--output={tmp_path / 'one'}", "--folds=1"], main)
    assert json.loads((tmp_path / "one/model.json").read_text())["folds"][0]["name"] == "fold_1"
    assert not (tmp_path / "one/fold_0").exists()
    assert len(reading.load(tmp_path / "one")) == 1
    weights = next((tmp_path / "one/fold_1").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=f"{weights.name} has changed since it was exported"):
        reading.load(tmp_path / "one")


def test_calibration_of_the_run_goes_with_it(copy, tmp_path, finish):
    (copy / "calibration.json").write_text('{"temperature": 1.5}')
    finish([f"--run={copy}", f"--output={tmp_path / 'model'}"], main)
    assert (tmp_path / "model/calibration.json").read_text() == '{"temperature": 1.5}'
    assert "calibration.json" in json.loads((tmp_path / "model/model.json").read_text())["files"]


def spoilt(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda r: shutil.rmtree(r), "is not a folder; give the --workdir of a run"),
        (lambda r: (r / "config.json").unlink(), "config.json is missing; give the --workdir"),
        (lambda r: (r / "report/report.html").unlink(), "is not finished: it has no report; run"),
        (lambda r: shutil.rmtree(r / "fold_1/grades"), "fold_1/grades is not trained"),
        (lambda r: (r / "config.json").write_text("{"), "is no run of this version"),
        (lambda r: shutil.rmtree(r / "fold_1/grades/checkpoints"), "no checkpoint of step"),
        (lambda r: spoilt(r / "config.json", optimizer="sgd"), "config.optimizer is not a field"),
        (lambda r: spoilt(r / "fold_0/system.json", labels={}), "labels of this version of mskjax"),
        (
            lambda r: (r / "fold_0/system.json").write_text("{}"),
            "system.json lacks fitted, baselines",
        ),
        (lambda r: (r / "report/report.json").write_text("{}"), "is of an older version of mskjax"),
        (lambda r: (r / "cohort.json").write_text("x"), "cohort.json cannot be read"),
    ],
)
def test_a_run_that_cannot_be_exported_is_refused(copy, tmp_path, capsys, spoil, sentence):
    spoil(copy)
    output = tmp_path / "new" / "model"
    assert sentence in refused(capsys, f"--run={copy}", f"--output={output}")
    assert not output.parent.exists()


def test_an_output_inside_the_run_is_refused(finished, capsys):
    output = finished.workdir / "model"
    assert "inside the run" in refused(capsys, f"--run={finished.workdir}", f"--output={output}")
    assert not output.exists()


def test_an_output_that_is_not_empty_is_refused_and_left_as_it_is(finished, tmp_path, capsys):
    (tmp_path / "kept").write_text("mine")
    said = refused(capsys, f"--run={finished.workdir}", f"--output={tmp_path}")
    assert "exists and is not empty; give a new folder" in said
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("flag", "sentence"), [("x", "--folds is 'x'; give numbers"), ("7", "has folds 0, 1, not 7")]
)
def test_a_fold_that_is_not_there_is_refused(finished, tmp_path, capsys, flag, sentence):
    arguments = f"--run={finished.workdir}", f"--output={tmp_path / 'm'}", f"--folds={flag}"
    assert sentence in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())
