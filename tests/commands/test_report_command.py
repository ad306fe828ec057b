"""``mskjax.report``: a run's report again, from what the run left."""

import json
import shutil

import pytest
from commands.command_line import complaint, contents, run

from mskjax import cases
from mskjax.report import main

pytestmark = pytest.mark.slow


def test_writes_the_same_report_again(finished, tmp_path):
    before = contents(finished.workdir)
    process = run("mskjax.report", f"--runs={finished.workdir}", f"--output={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert str(tmp_path / "report.html") in process.stdout
    assert contents(finished.workdir) == before
    for name in ("report.json", "report.html"):
        again = (tmp_path / name).read_bytes()
        assert again == (finished.workdir / "report" / name).read_bytes()


def test_needs_no_checkpoint_and_follows_the_table(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished.workdir, workdir, ignore=shutil.ignore_patterns("checkpoints"))
    lines = (workdir / "cases.csv").read_text().splitlines()
    kept = [lines[0], *(line for line in lines[1:] if not line.startswith("1,"))]
    (workdir / "cases.csv").write_text("\n".join(kept) + "\n")
    shutil.rmtree(workdir / "report")
    assert main([f"--runs={workdir}"]) == 0
    report = (workdir / "report" / "report.json").read_text()
    assert report != (finished.workdir / "report" / "report.json").read_text()


@pytest.fixture(scope="module")
def two(finished, tmp_path_factory):
    """The finished run and a copy that calls every disc of one patient v, in one folder."""
    folder = tmp_path_factory.mktemp("compared")
    for name in ("one", "other"):
        shutil.copytree(
            finished.workdir, folder / name, ignore=shutil.ignore_patterns("checkpoints")
        )
    table = folder / "other" / "cases.csv"
    rows = cases.read(table)
    for row in rows:
        if row["kind"] == "grade" and row["patient"] == rows[0]["patient"]:
            for name in ("i", "ii", "iii", "iv", "v"):
                row[f"p_model_pfirrmann_{name}"] = str(float(name == "v"))
            row["call_pfirrmann"] = "v"
    cases.write(table, rows)
    assert main([f"--runs={folder / 'other'}"]) == 0
    return folder


@pytest.mark.long
def test_several_runs_are_compared_in_a_folder(two, tmp_path, capsys):
    before = contents(two)
    output = tmp_path / "both"
    assert main(["--runs", str(two / "one"), str(two / "other"), f"--output={output}"]) == 0
    said = capsys.readouterr().out
    assert f"comparison: {output / 'comparison.html'}" in said
    assert "other minus one, end to end: " in said
    assert sorted(p.name for p in output.iterdir()) == ["comparison.html", "comparison.json"]
    assert contents(two) == before
    found = json.loads((output / "comparison.json").read_text())
    each = [json.loads((two / n / "report" / "report.json").read_text()) for n in ("one", "other")]
    (pair,), primary = found["pairs"], found["primary"]
    first = pair["differences"][0]
    assert first["metric"] == primary
    values = [r["end_to_end"][primary]["value"] for r in each]
    assert [first["reference"], first["run"]] == pytest.approx(values, abs=1e-5)
    assert values[0] != values[1]
    assert first["difference"]["n"] == each[0]["end_to_end"][primary]["n"]
    # One patient of six differs: exchanging that one or not is all that matters.
    assert first["p"] == 1
    assert pair["remarks"] == []


def test_the_reference_is_chosen_by_name_or_folder(two, tmp_path, capsys):
    runs = [str(two / name) for name in ("one", "other")]
    for chosen in ("other", runs[1]):
        assert main(["--runs", *runs, f"--output={tmp_path}", f"--reference={chosen}"]) == 0
        assert "one minus other, end to end: " in capsys.readouterr().out
    assert main(["--runs", *runs, f"--output={tmp_path}", "--reference=oher"]) == 2
    assert "--reference is oher; it must be one of one, other" in complaint(capsys.readouterr().err)


def test_members_of_a_population_are_compared_in_its_folder(two, tmp_path, capsys):
    for name in ("one", "other"):
        shutil.copytree(two / name, tmp_path / f"member_{name}")
    assert main([f"--runs={tmp_path}"]) == 0
    assert (tmp_path / "comparison" / "comparison.html").exists()
    assert "member_other minus member_one" in capsys.readouterr().out


def test_a_comparison_that_is_refused_leaves_nothing(two, tmp_path, capsys):
    runs = [str(two / name) for name in ("one", "other")]
    assert main(["--runs", *runs]) == 2
    assert "--output is needed to compare several runs" in complaint(capsys.readouterr().err)
    shutil.copytree(two / "other", tmp_path / "control")
    config = tmp_path / "control" / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"shuffle_labels": false', '"shuffle_labels": true'))
    assert config.read_text() != text
    output = tmp_path / "out"
    assert main(["--runs", runs[0], str(tmp_path / "control"), f"--output={output}"]) == 2
    assert "control is a control run with shuffled labels" in complaint(capsys.readouterr().err)
    assert main(["--runs", runs[0], "--reference=one"]) == 2
    assert "--reference is for several runs" in complaint(capsys.readouterr().err)
    assert not output.exists()
    output.touch()
    assert main(["--runs", *runs, f"--output={output}"]) == 2
    assert f"{output} is a file; give a folder" in complaint(capsys.readouterr().err)


def test_a_run_of_another_version_is_named(two, tmp_path, capsys):
    shutil.copytree(two / "other", tmp_path / "old")
    config = tmp_path / "old" / "config.json"
    config.write_text(config.read_text().replace('"resamples"', '"resample"'))
    runs = [str(two / "one"), str(tmp_path / "old")]
    assert main(["--runs", *runs, f"--output={tmp_path / 'out'}"]) == 2
    said = complaint(capsys.readouterr().err)
    assert said == "error: old: config.resample is not a field; did you mean 'resamples'?"


@pytest.mark.parametrize("missing", ["cases.csv", "config.json", "fold_1/grades/cost.json"])
def test_an_unfinished_run_is_named(finished, tmp_path, capsys, missing):
    workdir = tmp_path / "run"
    shutil.copytree(finished.workdir, workdir, ignore=shutil.ignore_patterns("checkpoints"))
    shutil.rmtree(workdir / "report")
    (workdir / missing).unlink()
    assert main([f"--runs={workdir}"]) == 2
    said = complaint(capsys.readouterr().err)
    assert f"{workdir / missing} is missing" in said
    assert not (workdir / "report" / "report.json").exists()


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main([f"--runs={tmp_path / 'none'}"]) == 2
    assert f"{tmp_path / 'none'} is not a folder" in complaint(capsys.readouterr().err)


@pytest.mark.long
def test_readers_stand_beside_the_model_and_stay(finished, tmp_path, capsys):
    run = shutil.copytree(finished.workdir, tmp_path / "run")
    rows = [r for r in cases.read(run / "cases.csv") if r["kind"] == "grade"]
    lines = [
        f"{r['study']},{r['level'].removeprefix('level ')},senior,{r['reference_pfirrmann']}"
        for r in rows[:-1]
    ]
    table = tmp_path / "readers.csv"
    table.write_text("\n".join(["study_id,level,reader,call", *lines]))
    assert main([f"--runs={run}", f"--readers={table}"]) == 0
    first = (run / "report" / "report.json").read_bytes()
    tables = {t["title"]: t for t in json.loads(first)["tables"]}
    own = next(r for r in tables["Readers and model"]["rows"] if r[0] == "senior")
    assert own[1] == len(rows) - 1
    assert own[2]["value"] == 1.0
    assert "McNemar" in (run / "report" / "report.html").read_text()
    # Another report has them still, to the byte, and the run is what it says.
    assert main([f"--runs={run}"]) == 0
    assert (run / "report" / "report.json").read_bytes() == first
    capsys.readouterr()
    assert main([f"--runs={run}", "--verify", f"--data_dir={finished.data_dir}"]) == 0
    table.write_text("study_id,level,reader,call\nnobody,1,senior,3\n")
    assert main([f"--runs={run}", f"--readers={table}"]) == 2
    assert "no held-out case is level 1 of study 'nobody'" in capsys.readouterr().err
    assert (run / "report" / "report.json").read_bytes() == first
