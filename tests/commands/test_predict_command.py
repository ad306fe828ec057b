"""New studies read by a finished run, as a user types it."""

import contextlib
import csv
import gzip
import io
import json
import re
import shutil
import stat
import subprocess
import warnings
from types import SimpleNamespace

import jsonschema
import numpy as np
import pydicom
import pytest
from commands.scans import write_dicom

from mskjax import ensemble
from mskjax.data.cohorts import prepare_cohort
from mskjax.imaging.files import read_volume, write_volume
from mskjax.imaging.geometry import reorient
from mskjax.imaging.volume import Volume
from mskjax.predict import main
from mskjax.results.document import schema

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _own_salt(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSKJAX_SALT_FILE", str(tmp_path_factory.mktemp("salt") / "salt"))
        yield


@pytest.fixture(scope="module")
def studies(finished):
    cohort = prepare_cohort(
        "disc_degeneration", "phantom", str(finished.data_dir), None, patients=6, seed=0
    )
    return [cohort.studies[i] for i in range(2)]


def image_of(study, axes="LIP"):
    """The image of a study as a file of a scanner that stores other axes."""
    volume = reorient(Volume(study["image"], study["affine"]), axes)
    return Volume(volume.data, volume.affine)


@pytest.fixture(scope="module")
def inputs(studies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_volume(folder / "one.nii.gz", image_of(studies[0], "ASR"))
    write_volume(folder / "two.mha", image_of(studies[1], "PIR"))
    return folder


@pytest.fixture(scope="module")
def output(finished, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicted") / "out"
    flags = [f"--run={finished.workdir}", f"--input={inputs}", f"--output={folder}", "--keep-ids"]
    assert main(flags) == 0
    return folder


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_masks_lie_on_the_grid_of_the_input_and_are_those_of_the_ensemble(
    finished, studies, inputs, output
):
    together = ensemble.load(finished.workdir, devices=1)
    for name, file, study in (
        ("one", "one.nii.gz", studies[0]),
        ("two", "two.mha", studies[1]),
    ):
        given = read_volume(inputs / file)
        (reading,) = together.read([study])
        for ending, expected in (
            ("", reading.located.mask),
            ("_levels", reading.located.found["levels"]),
        ):
            mask = read_volume(output / name / f"{name}{ending}.nii.gz")
            assert mask.data.shape == given.data.shape
            np.testing.assert_allclose(mask.affine, given.affine, atol=1e-4)
            np.testing.assert_array_equal(reorient(mask).data, expected)
            assert expected.any()


def test_results_keep_to_their_schema_and_say_what_the_ensemble_says(finished, studies, output):
    together = ensemble.load(finished.workdir, devices=1)
    for name, study in (("one", studies[0]), ("two", studies[1])):
        found = result_of(output / name)
        jsonschema.validate(found, schema())
        (joint,) = together.read_jointly([study])
        rows = together.system.columns(study, joint.reading)
        assert [r["level"] for r in found["regions"]] == [
            d.level for d in joint.reading.located.regions
        ]
        assert found["regions"][0]["name"] == "L5/S1"
        for region, row in zip(found["regions"], rows, strict=True):
            grades = {g["task"]: g for g in region["grades"]}
            assert set(grades) == {"pfirrmann", "severity"}
            for task, grade in grades.items():
                assert grade["call"] == row[f"call_{task}"]
                assert grade["agreement"] in (0, 0.5, 1)
                # Six patients are too few to fit anything: the probabilities are the networks'.
                for cls, p in grade["probabilities"].items():
                    assert p == pytest.approx(row[f"p_model_{task}_{cls}"], abs=1e-4)
                assert grade["prediction_set"] == [*grade["probabilities"]]
        assert found["run"]["members"] == ["fold_0", "fold_1"]
        assert "too" in str(found["run"]["calibration"]) or "fewer" in str(found["run"])
        assert any("PHANTOM" in note for note in found["notes"])
        assert found["disclaimer"] == "Research use only, not a medical device"


def test_boxes_hold_the_discs_on_the_grid_of_the_input(output):
    for name in ("one", "two"):
        levels = read_volume(output / name / f"{name}_levels.nii.gz")
        for region in result_of(output / name)["regions"]:
            inside = np.argwhere(levels.data == region["level"])
            assert region["box"]["start"] == inside.min(0).tolist()
            assert region["box"]["stop"] == (inside.max(0) + 1).tolist()
            corners = np.array(region["box"]["corners_mm"])
            centre = levels.affine[:3, :3] @ inside.mean(0) + levels.affine[:3, 3]
            assert np.all(corners.min(0) <= centre)
            assert np.all(centre <= corners.max(0))


def test_volumes_are_those_of_the_masks(output):
    mask = read_volume(output / "one" / "one.nii.gz")
    voxel = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
    volumes = result_of(output / "one")["volumes_ml"]
    for label, name in enumerate(("vertebra", "disc", "canal"), 1):
        assert volumes[name] == pytest.approx((mask.data == label).sum() * voxel, rel=1e-4)


def test_the_summary_has_a_row_for_every_region(output):
    rows = table(output / "summary.csv")
    for name in ("one", "two"):
        own = [r for r in rows if r["study"] == name]
        regions = result_of(output / name)["regions"]
        assert [r["region"] for r in own] == [r["name"] for r in regions]
        assert [r["call_pfirrmann"] for r in own] == [r["grades"][0]["call"] for r in regions]
    assert {r["status"] for r in rows} == {"done"}
    assert (output / "one" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_one_fold_alone_can_be_asked(finished, inputs, tmp_path):
    flags = [f"--run={finished.workdir}", "--folds=1", "--keep-ids", f"--output={tmp_path / 'o'}"]
    assert main([*flags, "--input", str(inputs / "one.nii.gz")]) == 0
    found = result_of(tmp_path / "o" / "one")
    assert found["run"]["members"] == ["fold_1"]
    assert all(g["agreement"] is None for r in found["regions"] for g in r["grades"])


def test_a_bad_study_is_told_and_the_others_are_read(finished, inputs, tmp_path, capsys):
    given = shutil.copytree(inputs, tmp_path / "given")
    (given / "broken.nii.gz").write_bytes((given / "one.nii.gz").read_bytes()[:200])
    out = tmp_path / "out"
    flags = [f"--run={finished.workdir}", f"--input={given}", f"--output={out}", "--keep-ids"]
    assert main(flags) == 3
    said = capsys.readouterr()
    assert "1 of 3 studies could not be read" in said.err
    assert "Traceback" not in said.err
    rows = {r["study"]: r for r in table(out / "summary.csv")}
    assert rows["broken"]["status"] == "refused"
    assert rows["broken"]["reason"]
    assert (out / "one" / "result.json").exists()
    assert not (out / "broken").exists()
    for name in ("one.nii.gz", "two.mha"):
        (given / name).unlink()
    assert main([*flags[:2], f"--output={tmp_path / 'none'}", "--keep-ids"]) == 2
    assert "no study could be read" in capsys.readouterr().err


def test_a_call_that_was_stopped_goes_on(finished, inputs, output, tmp_path, capsys):
    copied = shutil.copytree(output, tmp_path / "out")
    shutil.rmtree(copied / "two")
    (copied / "summary.csv").unlink()
    kept = (copied / "one" / "result.json").stat().st_mtime_ns
    flags = [f"--run={finished.workdir}", f"--input={inputs}", f"--output={copied}", "--keep-ids"]
    assert main(flags) == 0
    assert (copied / "one" / "result.json").stat().st_mtime_ns == kept
    assert (copied / "summary.csv").read_bytes() == (output / "summary.csv").read_bytes()
    assert main([*flags[:3]]) == 2  # other flags
    assert "of another run or of other flags" in capsys.readouterr().err


def test_names_say_nothing_and_a_table_for_the_user_alone_maps_them_back(
    finished, inputs, tmp_path, capsys
):
    given = tmp_path / "Zyxname^Jane" / "1970-01-01"
    given.mkdir(parents=True)
    shutil.copy(inputs / "one.nii.gz", given / "JANE_ZYXNAME_4711.nii.gz")
    (given / "ZYXNAME_broken.nii.gz").write_bytes(b"no image")
    out, mapping = tmp_path / "out", tmp_path / "map.csv"
    flags = [f"--run={finished.workdir}", f"--input={given}", f"--output={out}"]
    assert main([*flags, f"--mapping={mapping}"]) == 3
    said = capsys.readouterr()
    written = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    names = " ".join(str(p.relative_to(out)) for p in out.rglob("*"))
    for secret in ("zyxname", "jane", "4711_", "_4711", "1970-01", "19700101"):
        assert secret not in (said.out + said.err).lower().replace(str(tmp_path).lower(), "")
        assert secret.encode() not in written.lower()
        assert secret not in names.lower()
    rows = table(mapping)
    assert stat.S_IMODE(mapping.stat().st_mode) == 0o600
    (one,) = [r for r in rows if "JANE_ZYXNAME" in r["files"]]
    assert (out / one["study"] / "result.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output={out}"], "--input is needed"),
        (["--input={out}/none.nii.gz", "--output={out}"], "cannot be opened"),
        (["--input={inputs}", "--output={inputs}"], "is not empty"),
        (["--input={inputs}", "--output={out}", "--folds=9"], "has folds 0, 1, not 9"),
        (["--input={inputs}", "--output={out}", "--coverage=1.5"], "must be between 0 and 1"),
        (["--input={inputs}", "--output={out}", "--series=3"], "--series chooses among DICOM"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_leaves_no_trace(
    finished, inputs, tmp_path, capsys, flags, message
):
    out, before = tmp_path / "out", sorted(inputs.rglob("*"))
    given = [f.format(inputs=inputs, out=out) for f in flags]
    assert main([f"--run={finished.workdir}", *given]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()
    assert sorted(inputs.rglob("*")) == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "cases.csv").unlink(), "cases.csv is missing"),
        (lambda run: (run / "config.json").unlink(), "config.json is missing"),
        (lambda run: shutil.rmtree(run / "fold_1/grades"), "grades is not trained"),
    ],
)
def test_a_run_that_is_not_finished_is_refused(finished, inputs, tmp_path, capsys, spoil, message):
    run = shutil.copytree(finished.workdir, tmp_path / "run")
    spoil(run)
    out = tmp_path / "out"
    assert main([f"--run={run}", f"--input={inputs}", f"--output={out}"]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture(scope="module")
def scanned(finished, studies, tmp_path_factory):
    """A study as DICOM with identifying values everywhere, and what reading it left and said."""
    root = tmp_path_factory.mktemp("scans")
    study = studies[0]
    given = root / "Plantedname^Karl" / "P19550517"
    planted = write_dicom(given / "T2", study["image"], study["affine"])
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(out),
    ):
        patch.chdir(root)
        flags = [f"--run={finished.workdir}", f"--input={given.parent}"]
        assert main([*flags, "--output=plain"]) == 0
        assert main([*flags, "--output=hashed", "--hash-uids"]) == 0
    (plain,), (hashed,) = ((root / n).glob("study-*") for n in ("plain", "hashed"))
    secrets = {**planted, "folder": "Plantedname", "date": "19550517"}
    return SimpleNamespace(
        given=given, plain=plain, hashed=hashed, secrets=secrets, said=out.getvalue()
    )


def test_dicom_gets_a_segmentation_that_refers_to_its_images(scanned):
    found = result_of(scanned.plain)
    assert "series 1 of 1: sagittal T2, " in found["series"]["image"]
    images = [pydicom.dcmread(file) for file in sorted((scanned.given / "T2").iterdir())]
    seg = pydicom.dcmread(scanned.plain / "segmentation.dcm")
    (series,) = seg.ReferencedSeriesSequence
    referred = {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence}
    assert referred <= {image.SOPInstanceUID for image in images}
    assert seg.StudyInstanceUID == images[0].StudyInstanceUID
    mask = read_volume(scanned.plain / f"{scanned.plain.name}.nii.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = read_volume(scanned.given)
    np.testing.assert_allclose(mask.affine, given.affine, atol=1e-4)
    numbers = {s.SegmentLabel: s.SegmentNumber for s in seg.SegmentSequence}
    frames = [
        g.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for g in seg.PerFrameFunctionalGroupsSequence
    ]
    own = [k for k, n in enumerate(frames) if n == numbers["vertebra"]]
    assert seg.pixel_array[own].sum() == (mask.data == 1).sum() > 0


def test_dicom_gets_a_report_with_the_grades(scanned):
    report = pydicom.dcmread(scanned.plain / "report.dcm")
    assert report.Modality == "SR"
    text = report.to_json()
    for region in result_of(scanned.plain)["regions"]:
        assert region["name"] in text
        for grade in region["grades"]:
            assert grade["call"] in text
    assert "not a medical device" in text.lower()


def test_nothing_that_identifies_a_patient_is_written_or_said(scanned):
    assert len(scanned.secrets) > 200
    for folder in (scanned.plain, scanned.hashed):
        for path in [*folder.rglob("*"), *(p for p in folder.parent.glob("*") if p.is_file())]:
            content = path.read_bytes()
            if path.name.endswith(".gz"):
                content = gzip.decompress(content)
            told = [k for k, v in scanned.secrets.items() if v.encode() in content]
            assert not told, path.name
            assert not [k for k, v in scanned.secrets.items() if v in path.name]
    assert not [k for k, v in scanned.secrets.items() if v in scanned.said]


def test_references_are_hashed_on_request(scanned):
    image = pydicom.dcmread(next(iter((scanned.given / "T2").iterdir())))
    uids = [image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID]
    for name in ("segmentation.dcm", "report.dcm"):
        plain, hashed = ((f / name).read_bytes() for f in (scanned.plain, scanned.hashed))
        assert image.StudyInstanceUID.encode() in plain
        assert not [uid for uid in uids if uid.encode() in hashed]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is missing")
def test_dicom_output_is_valid(scanned):
    for path in [*scanned.plain.glob("*.dcm"), *scanned.hashed.glob("*.dcm")]:
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "Error" not in done.stdout + done.stderr


def test_a_defect_that_one_study_meets_spares_the_others(
    finished, inputs, tmp_path, capsys, monkeypatch
):
    from mskjax.description import Describer

    volumes_ml = Describer.volumes_ml

    def faulty(self, study, joint):
        if study["study_id"] == "one":
            raise ZeroDivisionError(f"of {inputs / 'one.nii.gz'}")
        return volumes_ml(self, study, joint)

    monkeypatch.setattr(Describer, "volumes_ml", faulty)
    out = tmp_path / "out"
    flags = [f"--run={finished.workdir}", f"--input={inputs}", f"--output={out}", "--keep-ids"]
    assert main(flags) == 3
    rows = {r["study"]: r for r in table(out / "summary.csv")}
    assert rows["two"]["status"] == "done"
    assert "a defect of mskjax (ZeroDivisionError in " in rows["one"]["reason"]
    assert not (out / "one").exists()
