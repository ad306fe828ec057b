"""A user's own Y-views, from files to the report, and the ways to set the graders."""

import csv
import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from builders import mini_spine
from commands.command_line import cohort_study, complaint
from commands.fatty_cohort import GRADES, own_cohort
from PIL import Image
from safetensors.numpy import save_file
from sklearn.metrics import roc_auc_score

from mskjax import prepare
from mskjax.reporting import gallery

pytestmark = pytest.mark.long

SYSTEM = "fatty_infiltration"
ORACLE_A = "oracle_p_model_task_a_high_grade"
CLASSES_A = ("low_grade", "low_grade", "", "high_grade", "high_grade")
CLASSES_D = ("low_grade", "low_grade", "low_grade", "high_grade", "high_grade")
HALVES = {"train": ["pa", "pc", "pe", "pg", "pi"], "test": ["pb", "pd", "pf", "ph", "pj"]}


def edit(raw, name, **cells):
    with (raw / "studies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    next(r for r in rows if r["study_id"] == name).update(cells)
    mini_spine.write_csv(raw / "studies.csv", list(rows[0]), [list(r.values()) for r in rows])


def study(cohort, workdir, *flags, **changes):
    return cohort_study(SYSTEM, workdir, cohort.data_dir, cohort.raw, *flags, **changes)


def rows_of(workdir, kind):
    with (workdir / "cases.csv").open(newline="") as file:
        return [r for r in csv.DictReader(file) if r["kind"] == kind]


def report_of(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, finish):
    """Raw files, packaged by ``mskjax.prepare``, and what it said."""
    root = tmp_path_factory.mktemp("fatty")
    raw, data_dir = own_cohort(root / "raw"), root / "data"
    flags = [f"--cohort={SYSTEM}/cohort", f"--manual_dir={raw}", f"--data_dir={data_dir}"]
    said = finish(flags, prepare.main)
    halves = root / "halves.json"
    halves.write_text(json.dumps({"folds": [HALVES]}))
    return SimpleNamespace(raw=raw, data_dir=data_dir, said=said, halves=halves)


@pytest.fixture(scope="module")
def workdir(tiny_run):
    """A finished run of two folds on the user's files."""
    return tiny_run(SYSTEM).workdir


def test_prepare_prints_what_it_packaged_and_what_it_left_out(cohort):
    assert "fatty_infiltration/cohort 1.3.0\n" in cohort.said
    assert "patients     12" in cohort.said
    assert "studies      13" in cohort.said
    assert "goutallier  0: 2  1: 3  2: 3  3: 2  4: 2" in cohort.said
    assert "k: kept for segmentation only: it is not graded" in cohort.said
    assert "l: kept for grading only: it has no mask" in cohort.said


def test_every_image_is_scored_as_far_as_it_is_annotated(workdir):
    cases = {r["case"]: r for r in rows_of(workdir, "grade")}
    known = GRADES | {"c2": 1, "l": 2}
    for task, classes in {"task_a": CLASSES_A, "task_d": CLASSES_D}.items():
        expected = {k: classes[grade] for k, grade in known.items()}
        assert {k: r[f"reference_{task}"] for k, r in cases.items()} == expected
    assert {r["study"] for r in rows_of(workdir, "structure")} == {*GRADES, "c2", "k"}
    assert {r["fold"] for r in cases.values() if r["patient"] == "pc"} in ({"0"}, {"1"})
    assert cases["l"][ORACLE_A] == "" != cases["c"][ORACLE_A]  # it has no mask
    assert cases["e"]["wrong"] == ""  # task A leaves grade 2 out
    dice = [float(r["dice"]) for r in rows_of(workdir, "structure")]
    assert np.mean(dice) > 0.8  # it found them, so what is below is about graded images


def test_the_report_says_what_was_kept_in_part(workdir):
    report = report_of(workdir)
    assert report["variant"] == "cohort"
    assert {(e["id"], e["why"].split(":")[0]) for e in report["cohort"]["restricted"]} == {
        ("k", "kept for segmentation only"),
        ("l", "kept for grading only"),
    }
    assert report["cohort"]["excluded"] == []
    assert "control" not in report["protocol"]


def test_figures_can_be_recomputed_from_the_table(workdir):
    cases = [r for r in rows_of(workdir, "grade") if r["found"] == "1"]
    assert len(cases) == 12
    report = report_of(workdir)
    for task in ("task_a", "task_d"):
        suffix, excluded = f"_{task}", task == "task_a"
        inside = [r for r in cases if r[f"reference_{task}"]]
        high = [r[f"reference_{task}"] == "high_grade" for r in inside]
        p = [float(r[f"p_model_{task}_high_grade"]) for r in inside]
        figures = report["end_to_end"]
        assert figures[f"auroc{suffix}"]["n"] == len(inside)
        assert figures[f"auroc{suffix}"]["value"] == pytest.approx(roc_auc_score(high, p), abs=1e-5)
        accuracy = np.mean([h == (v >= 0.5) for h, v in zip(high, p, strict=True)])
        assert figures[f"accuracy{suffix}"]["value"] == pytest.approx(accuracy)
        assert report["oracle_region"][f"auroc{suffix}"]["n"] == len(inside) - (not excluded)


def test_pictures_show_what_the_grader_saw(workdir):
    folds = {r["study"]: r["fold"] for r in rows_of(workdir, "grade")}
    page = (workdir / "report" / "report.html").read_text()
    left_out = page.count("left out to keep this page below 3 MB")
    assert page.count("data:image/png") + left_out == min(len(folds), gallery.SHOWN)
    assert page.count("data:image/png") > len(folds) // 2
    for name, fold in folds.items():
        with Image.open(workdir / f"fold_{fold}" / "pictures" / f"{name}.png") as picture:
            shown = np.asarray(picture.convert("L")).astype(int)
        last = shown[shown.shape[0] // 2 :, -shown.shape[1] // 4 :]  # the crop
        assert last.std() > 20
    # A map of this tiny network has one place or four: none is shown (`reporting.explained`).
    assert {r["map_correlation"] for r in rows_of(workdir, "grade")} == {""}


def one_division(cohort, workdir, **changes):
    """Train on five patients, test on five others: half the time of two folds."""
    fields = {"data__splits": cohort.halves, "stages__regions__train__steps": 20, "resamples": 20}
    return study(cohort, workdir, **(fields | changes))


def test_five_grades_beside_task_b_on_a_network_without_normalisation(cohort, main_here, tmp_path):
    arguments = one_division(
        cohort, tmp_path, stages__grades__heads="('B','goutallier')",
        stages__grades__model__norm="none", stages__grades__emd_weight=1.0,
    )  # fmt: skip
    assert main_here(*arguments) == 0
    cases, report = rows_of(tmp_path, "grade"), report_of(tmp_path)
    assert {r["case"] for r in cases} == set("bdfhj")
    columns = [f"oracle_p_model_goutallier_grade_{g}" for g in range(5)]
    grades = [[float(r[c]) for c in columns] for r in cases]
    np.testing.assert_allclose(np.sum(grades, 1), 1, atol=1e-5)
    rounded = np.floor(np.array(grades) @ np.arange(5) + 0.5)
    reference = [int(r["reference_goutallier"].removeprefix("grade_")) for r in cases]
    right = np.mean(rounded == reference)
    figures = report["oracle_region"]
    assert figures["accuracy_goutallier"]["value"] == pytest.approx(right)
    assert figures["accuracy_goutallier"]["n"] == figures["auroc_task_b"]["n"] == 5
    assert "quadratic_weighted_kappa_goutallier" in report["end_to_end"]
    high = [grade > 1 for grade in reference]
    auroc = roc_auc_score(high, [float(r["oracle_p_model_task_b_high_grade"]) for r in cases])
    assert figures["auroc_task_b"]["value"] == pytest.approx(auroc, abs=1e-5)
    assert "norm" not in str(report["architecture"][1]["table"])


def vgg_file(path, widths=(2, 4, 8, 16, 16), hidden=4):
    """torchvision's VGG-BN with one convolution a block, random weights; classes of ImageNet."""
    rng, weights, channels = np.random.default_rng(0), {}, 3
    for block, width in enumerate(widths):
        conv, norm = f"features.{4 * block}", f"features.{4 * block + 1}"
        weights[f"{conv}.weight"] = rng.normal(0, 0.3, (width, channels, 3, 3))
        weights[f"{conv}.bias"] = rng.normal(0, 0.1, width)
        for name in ("weight", "running_var"):
            weights[f"{norm}.{name}"] = rng.uniform(0.5, 1.5, width)
        for name in ("bias", "running_mean"):
            weights[f"{norm}.{name}"] = rng.normal(0, 0.1, width)
        channels = width
    sizes = {"classifier.0": (hidden, channels), "classifier.3": (hidden, hidden)}
    for name, size in (sizes | {"classifier.6": (1000, hidden)}).items():
        weights[f"{name}.weight"] = rng.normal(0, 0.3, size)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, size[0])
    save_file({k: v.astype(np.float32) for k, v in weights.items()}, path)
    return path


def test_pretrained_weights_and_sampling_for_tasks_e_and_c(cohort, main_here, tmp_path):
    file = vgg_file(tmp_path / "vgg.safetensors")
    workdir = tmp_path / "run"
    arguments = one_division(
        cohort, workdir, stages__grades__heads="('E','C')", stages__grades__model__pretrained=file,
        stages__grades__train__balance="sampling",
    )  # fmt: skip
    assert main_here(*arguments) == 0
    noted = json.loads((workdir / "fold_0/grades/initialisation.json").read_text())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert noted[0] == f"34 arrays were loaded from the file with SHA-256 {digest}."
    assert "spread over 1 channels" in noted[1]
    assert noted[2] == "These layers keep their initialisation: head_C, head_E."
    report = report_of(workdir)
    started = {a["stage"]: a["initialisation"] for a in report["architecture"]}
    assert started == {"regions": ["random"], "grades": noted}
    assert str(file) in (workdir / "report" / "report.html").read_text()
    assert report["recipe"]["stages"]["grades"]["train"]["balance"] == "sampling"
    # E is grade 2 against 3, 4; C 0, 1 against 2; D, always reported, is read from E's head.
    figures = report["end_to_end"]
    counts = [figures[f"auroc{suffix}"]["n"] for suffix in ("_task_e", "_task_c", "_task_d")]
    assert counts == [3, 3, 5]
    assert set(report["confusion"]) == {"task_e", "task_c", "task_d"}
    cases = rows_of(workdir, "grade")
    high = [r["reference_task_d"] == "high_grade" for r in cases]
    p = [float(r["oracle_p_model_task_d_high_grade"]) for r in cases]
    expected = roc_auc_score(high, p)
    found = report["oracle_region"]["auroc_task_d"]["value"]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("fault", "messages"),
    [
        (
            "narrow",
            [
                "the weights do not fit this VGG with norm 'batch'",
                "features.0.weight has shape (3, 3, 3, 1) in our layout, the model (3, 3, 3, 2)",
                "features.1.running_var has shape (1,) in our layout, the model (2,)",
                "; and 11 more.",
            ],
        ),
        ("shallow", ["features.16.weight is missing in the file"]),
        ("missing", ["vgg.safetensors: cannot be opened (No such file or directory)"]),
        ("damaged", ["vgg.safetensors", "damaged"]),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_any_work(
    cohort, main_here, tmp_path, capsys, fault, messages
):
    file, workdir, data = tmp_path / "vgg.safetensors", tmp_path / "run", tmp_path / "data"
    if fault != "missing":
        widths = {"narrow": (1, 2, 4, 8, 8), "shallow": (2, 4, 8, 16)}
        vgg_file(file, widths.get(fault, (2, 4, 8, 16, 16)))
    if fault == "damaged":
        file.write_bytes(file.read_bytes()[:-100])
    arguments = cohort_study(
        SYSTEM, workdir, data, cohort.raw, stages__grades__model__pretrained=file
    )
    assert main_here(*arguments) == 2
    said = complaint(capsys.readouterr().err)
    assert "\n" not in said
    assert all(message in said for message in messages), said
    assert not data.exists()
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": "('F',)"}, "heads is ('F',); the first must be a task (A, B, C, D, E), the"),
        ({"heads": "('A','cuff')"}, "the others any of A, B, C, D, E, goutallier"),
        ({"heads": "('goutallier','A')"}, "the first must be a task"),
        ({"heads": "('A','A')"}, "heads is ('A', 'A'); each may be named once"),
        ({"crop": "(16,16)"}, "crop is (16, 16); vgg19 needs at least 32 rows and columns"),
        ({"model__norm": "layer"}, "norm is 'layer'"),
        ({"model__blocks": "(1,1,1,1)"}, "vgg19 has 5 groups of at least one"),
        ({"model__name": "vgg16"}, "name is 'vgg16'"),
        ({"train__balance": "sample"}, "balance is 'sample'"),
    ],
)
def test_wrong_graders_are_refused_before_any_work(
    cohort, main_here, tmp_path, capsys, changes, message
):
    fields = {f"stages__grades__{k}": v for k, v in changes.items()}
    workdir, data = tmp_path / "run", tmp_path / "data"
    assert main_here(*cohort_study(SYSTEM, workdir, data, cohort.raw, **fields)) == 2
    said = complaint(capsys.readouterr().err)
    assert message in said
    assert "\n" not in said
    assert not data.exists()
    assert not workdir.exists()


@pytest.mark.parametrize("command", ["prepare", "main"])
def test_wrong_tables_are_listed_and_nothing_is_packaged(main_here, tmp_path, capsys, command):
    raw, data, workdir = own_cohort(tmp_path / "raw"), tmp_path / "data", tmp_path / "run"
    edit(raw, "a", grade="5")
    edit(raw, "d", side="both")
    if command == "prepare":
        flags = [f"--cohort={SYSTEM}/cohort", f"--manual_dir={raw}", f"--data_dir={data}"]
        assert prepare.main(flags) == 2
    else:
        assert main_here(*cohort_study(SYSTEM, workdir, data, raw)) == 2
    first, *faults = complaint(capsys.readouterr().err).splitlines()
    assert "cannot be packaged" in first
    assert faults == [
        "  studies.csv, line 2: grade is '5'; it must be a whole number, 0 to 4.",
        "  studies.csv, line 5: side is 'both'; it must be left, right or empty.",
    ]
    assert not [p for p in data.rglob("*") if p.is_file()]
    assert not (workdir / "splits.json").exists()
