import pytest

from mskjax.data.cohorts import prepare_cohort
from mskjax.prepare import audit_table, main


def test_packages_and_prints_the_audit(tmp_path, capsys):
    assert main(["--cohort=disc_degeneration", f"--data_dir={tmp_path}"]) == 0
    cohort = prepare_cohort("disc_degeneration", "phantom", tmp_path)
    printed = capsys.readouterr().out
    assert audit_table(cohort.audit) in printed
    assert "PHANTOM" in printed
    assert f"patients     {len(cohort.patients)}" in printed
    assert printed.splitlines()[-1].startswith(
        "next: python -m mskjax.main --config=disc_degeneration:phantom --workdir="
    )


def test_options_are_given_by_name(tmp_path):
    assert (
        main(["--cohort=disc_degeneration", f"--data_dir={tmp_path}", "--option", "patients=2"])
        == 0
    )
    assert len(prepare_cohort("disc_degeneration", "phantom", tmp_path, patients=2).index) == 2


def test_packages_again_when_asked(tmp_path):
    arguments = ["--cohort=disc_degeneration", f"--data_dir={tmp_path}", "--option=patients=1"]
    assert main(arguments) == 0
    (audit,) = tmp_path.rglob("audit.json")
    before = audit.stat().st_ino
    assert main(arguments) == 0
    assert audit.stat().st_ino == before
    assert main([*arguments, "--again"]) == 0
    assert audit.stat().st_ino != before


@pytest.mark.parametrize(
    ("cohort", "message"),
    [
        ("disc_degeneratio", "error: no cohort 'disc_degeneratio'; did you mean"),
        ("disc_degeneration/phanton", "error: cohort disc_degeneration has no config 'phanton'"),
        ("disc_degeneration/spider", "needs its raw files"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(tmp_path, capsys, cohort, message):
    assert main([f"--cohort={cohort}", f"--data_dir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert said.count("\n") == 1


def test_exclusions_are_listed():
    audit = {
        "name": "n", "config": "c", "version": "1.0.0", "kind": "real", "licence": "l",
        "citation": "t", "patients": 1, "studies": 1, "cases": 2, "fingerprint": "f",
        "counts": {"grade": {"-1": 1, "3": 1}}, "notes": ["remark"],
        "excluded": [{"id": "s1", "why": "it has no mask"}],
        "restricted": [{"id": "s2", "why": "it is not graded"}],
        "parts": {"image": {"patients": 1, "studies": 1}},
    }  # fmt: skip
    text = audit_table(audit)
    assert (
        "left out: 1\n  s1: it has no mask\nkept in part: 1\n  s2: it is not graded\nnote: remark"
        in text
    )
    assert "grade  -1: 1  3: 1" in text
    assert "PHANTOM" not in text
