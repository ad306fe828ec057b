"""Writes the report of a run again, compares runs, or verifies them.

``python -m mskjax.report --runs=DIR [--readers=FILE] [--output=DIR]`` computes the report from what
the run left, with readers beside the model (docs/report.md).

``python -m mskjax.report --runs A B C --output=DIR`` compares several runs (docs/compare.md).  So
are the members of a population, given by its folder.

``python -m mskjax.report --runs=DIR --verify [--data_dir=DATA] [--output=DIR]`` holds the files
against the manifest, reads and scores the held-out studies again and compares every cell of
cases.csv and every figure (docs/reproducibility.md).  The last line is PASS or FAIL; FAIL ends with
exit code 2.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mskjax import commands
from mskjax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and does what they ask for; returns the exit code."""
    return commands.run(_report, argv)


def _report(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="mskjax report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", nargs="+", required=True, help="workdirs of finished runs")
    parser.add_argument(
        "--output",
        help="folder of the report (default: the run's own), of the comparison, or of verify.json",
    )
    parser.add_argument(
        "--reference",
        help="of several runs, the one to compare the others with; default: the first",
    )
    parser.add_argument(
        "--readers", help="of one run: a table of what readers called (docs/report.md); kept"
    )
    parser.add_argument("--verify", action="store_true", help="read, score and compare again")
    parser.add_argument(
        "--data_dir", help="with --verify: of packaged cohorts, if not as in config.json any more"
    )
    flags = parser.parse_args(argv)
    if flags.readers and (flags.verify or len(flags.runs) > 1):
        raise UserError("--readers is for the report of one run.")
    if flags.data_dir and not flags.verify:
        raise UserError("--data_dir is for --verify alone; a report needs no cohort.")
    runs = [Path(run) for run in flags.runs]
    for run in runs:
        if not run.is_dir():
            raise UserError(f"--runs: {run} is not a folder; give the --workdir of a run.")
    commands.configure_runtime()
    output = Path(flags.output) if flags.output else None
    if flags.verify:
        _verify_all(runs, output, flags.data_dir)
    else:
        readers = Path(flags.readers) if flags.readers else None
        _write(runs, output, flags.reference, readers)


def _write(
    runs: Sequence[Path], output: Path | None, reference: str | None, readers: Path | None
) -> None:
    """Writes the report of a run, which is then in the run's manifest, or compares several."""
    from mskjax import cases, comparing, manifest, systems
    from mskjax import workdir as workdirs
    from mskjax.progress import say
    from mskjax.reporting import reader_study
    from mskjax.reporting.summary import write_report
    from mskjax.workdir import config_of

    folders = [part for run in runs for part in comparing.members(run) or [run]]
    if len(folders) > 1:
        if output is None and len(runs) > 1:
            raise UserError("--output is needed to compare several runs; give it a folder.")
        commands.say_open(comparing.write(folders, output or runs[0] / comparing.FOLDER, reference))
        return
    if reference:
        raise UserError("--reference is for several runs, and --runs has one; leave it out.")
    run = folders[0]
    config = config_of(run)
    system = systems.load(config.system).build(config)
    if readers is not None:
        if not system.gradings:
            raise UserError(f"--readers: {system.name} grades nothing that readers could call.")
        rows = cases.read(run / "cases.csv")
        grading = system.gradings[0]
        calls = reader_study.load(readers, rows, grading, system.sets.get(grading.task, {}))
        reader_study.keep(output or run / workdirs.REPORT, calls)
    page = write_report(run, system, output)
    say(f"report: {page}")
    if output is None or output.resolve() == (run / manifest.REPORT).resolve():
        manifest.follow(run)
    commands.say_open(page)


def _verify_all(runs: Sequence[Path], output: Path | None, data_dir: str | None) -> None:
    """Verifies runs one after the other.

    Raises:
      UserError: naming those that are not what they were.
    """
    places = {run: output and (output / run.name if len(runs) > 1 else output) for run in runs}
    failed = [str(run) for run, place in places.items() if not _verify(run, place, data_dir)]
    if failed:
        raise UserError(
            f"{' and '.join(failed)} {'is' if len(failed) == 1 else 'are'} not as the run left it;"
            " the lines above name what differs."
        )


def _verify(run: Path, output: Path | None, data_dir: str | None) -> bool:
    """Verifies a run and says so; whether nothing differs."""
    from mskjax.progress import say
    from mskjax.verification import account, checks
    from mskjax.writers import write_json

    say(f"verifying {run}")
    done = []
    for check in checks.verify(run, data_dir):
        done.append(check)
        say(account.lines(check))
    if output:
        write_json(output / "verify.json", account.as_json(run, done))
    say(account.verdict(done))
    return not account.failed(done)


if __name__ == "__main__":
    sys.exit(main())
