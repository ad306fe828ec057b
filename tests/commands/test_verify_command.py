"""``mskjax.report --verify``: a run is what it says, or what differs is found and named."""

import contextlib
import csv
import getpass
import json
import shutil
import socket

import jax
import numpy as np
import pytest
from commands.command_line import complaint, contents, run

from mskjax import manifest
from mskjax.report import main
from mskjax.training.checkpoints import restore_variables

pytestmark = pytest.mark.slow

AWAY = "--data_dir=/nowhere"  # without the cohort nothing is read again, which takes the time


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished.workdir, tmp_path / "run")


@pytest.fixture
def verify(capsys):
    """Verifies in this process; the exit code, what was said of each check, and the verdict."""

    def call(folder, *flags):
        capsys.readouterr()
        code = main([f"--runs={folder}", "--verify", *flags])
        said = capsys.readouterr()
        if code:
            assert "is not as the run left it" in complaint(said.err)
        lines = said.out.splitlines()
        checks, name = {}, ""
        for line in lines[1:-1]:
            if line.startswith("    "):
                checks[name].append(line.strip())
            elif line.startswith("  "):
                name = line.split()[0]
                checks[name] = [line.strip()]
        return code, checks, lines[-1]

    return call


def forge(folder):
    """Who knows of the manifest writes it anew."""
    manifest.write(folder)


def failed(checks):
    return {name for name, said in checks.items() if said[0].split()[1] == "FAIL"}


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def change_cell(folder, value):
    """Another probability of the first graded case of fold 1, in the fold's and the run's table."""
    for path in (folder / "fold_1" / "cases.csv", folder / "cases.csv"):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        own = next(r for r in rows if r["fold"] == "1" and r["oracle_p_model_pfirrmann_ii"])
        own["oracle_p_model_pfirrmann_ii"] = value(float(own["oracle_p_model_pfirrmann_ii"]))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return own


def flip_byte(stage):
    """A byte of the weights that a stage is used with: they are restored, and one is far off."""
    before = jax.tree.leaves(restore_variables(stage))
    files = [p for p in (stage / "checkpoints").rglob("d/*") if p.is_file()]
    for path in sorted(files, key=lambda p: -p.stat().st_size)[:4]:
        raw = path.read_bytes()
        for share in np.linspace(0.1, 0.9, 33):
            changed = bytearray(raw)
            changed[int(share * len(raw))] ^= 0xFF
            path.write_bytes(changed)
            with contextlib.suppress(ValueError):  # its checksum tells
                after = jax.tree.leaves(restore_variables(stage))
                # Weights that are no numbers would say nothing of what reading finds.
                if not all(np.isfinite(leaf).all() for leaf in after):
                    continue
                if max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 1:
                    return
        path.write_bytes(raw)  # of what training alone goes on from
    raise AssertionError("no flipped byte changes the weights")


def test_a_run_that_nobody_touched_passes_and_stays_as_it_is(finished, tmp_path):
    before = contents(finished.workdir)
    flags = [f"--runs={finished.workdir}", "--verify", f"--output={tmp_path}"]
    process = run("mskjax.report", *flags)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.splitlines()[-1] == "PASS"
    assert process.stdout.count("read again, to the last digit") == 2
    assert contents(finished.workdir) == before
    told = json.loads((tmp_path / "verify.json").read_text())
    assert told["result"] == "PASS"
    assert told["manifest_sha256"] == manifest.digest(finished.workdir)
    names = ["files", "config", "cohort", "splits", "fold_0", "fold_1"]
    names += ["cases.csv", "report.json", "report.html"]
    assert [check["name"] for check in told["checks"]] == names
    assert not any(check["differences"] for check in told["checks"])


def test_files_that_are_not_the_manifests_are_named(copy, verify):
    change_cell(copy, lambda p: round(p / 2, 6))
    path = max((copy / "fold_0/grades/checkpoints").rglob("d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (copy / "fold_0/pictures/new.png").touch()
    (copy / "fold_1/system.json").unlink()
    code, checks, verdict = verify(copy, AWAY)
    assert code == 2
    assert verdict == "FAIL: files, report.json"
    names = ["cases.csv", path.relative_to(copy).as_posix(), "fold_0/pictures/new.png"]
    names += ["fold_1/cases.csv", "fold_1/system.json"]
    assert [line.split(": ")[0] for line in checks["files"][1:]] == names


# A read that fails leaves others behind, whose threads complain when they end.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_weights_and_a_cell_that_were_forged_with_all_hashes_are_found_by_reading(copy, verify):
    flip_byte(copy / "fold_0" / "regions")  # of a grader so small, channels may say nothing
    row = change_cell(copy, lambda p: round(p + 1e-6, 6))  # the last digit
    assert main([f"--runs={copy}"]) == 0  # figures and page follow the table
    forge(copy)
    code, checks, verdict = verify(copy)
    assert (code, verdict) == (2, "FAIL: fold_0, fold_1")
    assert all(line.startswith("fold_0/cases.csv, row [") for line in checks["fold_0"][1:-1])
    (line,) = checks["fold_1"][1:]
    place = f"fold_1/cases.csv, row [{row['study']}, grade, {row['name']}, {row['case']}]"
    assert line.startswith(f"{place}, column oracle_p_model_pfirrmann_ii: then ")
    assert f"then {row['oracle_p_model_pfirrmann_ii']}, now " in line


def test_a_table_that_is_not_the_one_of_its_folds_is_named(copy, verify):
    table = (copy / "cases.csv").read_text()
    row = change_cell(copy, lambda p: round(p / 2, 6))
    (copy / "fold_1" / "cases.csv").write_text((copy / "fold_1" / "cases.csv").read_text())
    (copy / "cases.csv").write_text(table)
    forge(copy)
    code, checks, _ = verify(copy, AWAY)
    assert code == 2
    (line,) = checks["cases.csv"][1:]
    assert row["case"] in line
    assert "column oracle_p_model_pfirrmann_ii" in line


@pytest.mark.parametrize("forged", [False, True])
def test_a_figure_that_was_changed_is_found_and_named(copy, verify, forged):
    def better(report):
        entry = report["end_to_end"]["quadratic_weighted_kappa_pfirrmann"]
        entry["value"] = round(entry["value"] + 0.001, 6)

    rewrite(copy / "report" / "report.json", better)
    if forged:
        forge(copy)
    code, checks, _ = verify(copy, AWAY)
    assert code == 2
    assert failed(checks) == {"report.json", "report.html"} | ({"files"} if not forged else set())
    (line,) = checks["report.json"][1:]
    place = "report/report.json, end_to_end.quadratic_weighted_kappa_pfirrmann.value"
    assert line.startswith(f"{place}: then ")


@pytest.mark.parametrize("forged", [False, True])
def test_a_swapped_patient_is_found_and_named(copy, verify, forged):
    def swap(content):
        fold = content["folds"][0]
        fold["train"][0], fold["validation"][0] = fold["validation"][0], fold["train"][0]
        swapped.extend([fold["train"][0], fold["validation"][0]])

    swapped: list[str] = []
    rewrite(copy / "splits.json", swap)
    if forged:
        forge(copy)
    code, checks, _ = verify(copy)
    assert code == 2
    assert failed(checks) == ({"splits"} if forged else {"files", "splits"})
    assert {line.split(": ")[0] for line in checks["splits"][1:]} == {
        f"splits.json, fold 0, patient {patient}" for patient in swapped
    }


def test_a_test_patient_who_was_swapped_is_found_without_the_cohort(copy, verify):
    def swap(content):
        fold = content["folds"][0]
        fold["train"][0], fold["test"][0] = fold["test"][0], fold["train"][0]

    new = json.loads((copy / "splits.json").read_text())["folds"][0]["train"][0]
    rewrite(copy / "splits.json", swap)
    forge(copy)
    code, checks, _ = verify(copy, AWAY)
    assert code == 2
    assert "splits" in failed(checks)
    assert f"tested by more than one fold (folds 0 and 1: {new})" in checks["splits"][1]


@pytest.mark.long
def test_other_versions_are_compared_to_the_stated_tolerance(copy, verify):
    for path in (copy / "environment.json", *copy.glob("fold_*/environment.json")):
        rewrite(path, lambda e: e["packages"].update(jaxlib="0.0.1"))
    change_cell(copy, lambda p: round(p + 1e-3, 6))
    assert main([f"--runs={copy}"]) == 0
    forge(copy)
    code, checks, verdict = verify(copy)
    assert code == 0
    assert verdict == "PASS, not checked: report.html"
    assert "probabilities to 0.002" in checks["fold_1"][0]
    assert "(jaxlib: 0.0.1, now " in checks["fold_1"][0]
    change_cell(copy, lambda p: round(p + 2e-3, 6))
    code, checks, _ = verify(copy)
    assert code == 2
    assert "column oracle_p_model_pfirrmann_ii" in checks["fold_1"][1]


def test_without_its_cohort_all_else_is_checked_and_what_is_not_is_said(finished, verify):
    code, checks, verdict = verify(finished.workdir, AWAY)
    assert code == 0
    assert verdict == "PASS, not checked: cohort, fold_0, fold_1"
    assert "/nowhere has no package of it; give --data_dir" in checks["cohort"][0]


def test_a_run_of_before_manifests_is_checked_but_for_its_hashes(copy, verify):
    manifest.discard(copy)
    code, checks, verdict = verify(copy, AWAY)
    assert code == 0
    assert verdict.startswith("PASS, not checked: files")
    assert "finished by a version that left none" in checks["files"][0]


def test_another_cohort_in_its_place_is_named(copy, verify, finished):
    rewrite(copy / "cohort.json", lambda audit: audit.update(fingerprint="0" * 64))
    code, checks, _ = verify(copy, f"--data_dir={finished.data_dir}")
    assert code == 2
    assert "has the fingerprint 0000000000000000" in checks["cohort"][1]


def test_an_unfinished_run_and_a_flag_without_verify_are_refused(copy, capsys):
    manifest.discard(copy)
    (copy / "cases.csv").unlink()
    assert main([f"--runs={copy}", "--verify"]) == 2
    assert "cases.csv is missing; finish the run" in complaint(capsys.readouterr().err)
    assert main([f"--runs={copy}", "--data_dir=x"]) == 2
    assert "--data_dir is for --verify alone" in complaint(capsys.readouterr().err)


def test_the_manifest_follows_a_report_that_is_written_again(copy):
    rewrite(copy / "report" / "report.json", lambda report: report.update(title="another"))
    (copy / "fold_0" / "system.json").write_text("{}")
    assert main([f"--runs={copy}"]) == 0
    assert [name for name, *_ in manifest.differences(copy)] == ["fold_0/system.json"]


def test_no_name_of_a_machine_or_a_person_is_in_what_a_run_says_of_its_machine(finished):
    files = [
        finished.workdir / "environment.json",
        *finished.workdir.glob("fold_*/environment.json"),
    ]
    assert len(files) == 3
    for path in files:
        said = path.read_text()
        assert str(finished.data_dir) not in said
        assert "/" not in said
        for name in {socket.gethostname(), getpass.getuser()}:
            assert f'"{name}"' not in said
        cpu = json.loads(said)["cpu"]
        assert cpu["model"]
        assert cpu["threads"] >= 1
