"""Writes the report of a run again, or verifies the run (``--verify``, docs/reproducibility.md).

``python -m mskjax.report --runs=DIR [--output=DIR]`` computes the report from what the run left.

``python -m mskjax.report --runs=DIR --verify [--data_dir=DATA] [--output=DIR]`` holds the files
against the manifest, reads and scores the held-out studies again and compares every cell of
cases.csv and every figure.  The last line is PASS or FAIL; FAIL ends with exit code 2.
"""

import argparse
import sys
from pathlib import Path

from mskjax import commands
from mskjax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and writes or verifies the reports; returns the exit code."""
    return commands.run(_report, argv)


def _report(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="mskjax report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", nargs="+", required=True, help="workdirs of finished runs")
    parser.add_argument(
        "--output", help="folder of the report (default: the run's own), or of verify.json"
    )
    parser.add_argument("--verify", action="store_true", help="read, score and compare again")
    parser.add_argument(
        "--data_dir", help="with --verify: of packaged cohorts, if not as in config.json any more"
    )
    flags = parser.parse_args(argv)
    if flags.data_dir and not flags.verify:
        raise UserError("--data_dir is for --verify alone; a report needs no cohort.")
    runs = [Path(run) for run in flags.runs]
    for run in runs:
        if not run.is_dir():
            raise UserError(f"--runs: {run} is not a folder; give the --workdir of a run.")
    commands.configure_runtime()
    each = _verify if flags.verify else _write
    failed = [str(run) for run in runs if not each(run, flags, len(runs) > 1)]
    if failed:
        raise UserError(
            f"{' and '.join(failed)} {'is' if len(failed) == 1 else 'are'} not as the run left it;"
            " the lines above name what differs."
        )


def _write(run: Path, flags: argparse.Namespace, several: bool) -> bool:
    """Writes a report; its own one is then in the manifest of the run."""
    from mskjax import manifest, systems
    from mskjax.progress import say
    from mskjax.reporting.summary import write_report
    from mskjax.workdir import config_of

    config = config_of(run)
    system = systems.load(config.system).build(config)
    output = _output(run, flags, several)
    page = write_report(run, system, output)
    say(f"report: {page}")
    commands.say_open(page)
    if output is None or output.resolve() == (run / manifest.REPORT).resolve():
        manifest.follow(run)
    return True


def _verify(run: Path, flags: argparse.Namespace, several: bool) -> bool:
    """Verifies a run and says so; whether nothing differs."""
    from mskjax.progress import say
    from mskjax.verification import account, checks
    from mskjax.writers import write_json

    say(f"verifying {run}")
    done = []
    for check in checks.verify(run, flags.data_dir):
        done.append(check)
        say(account.lines(check))
    if output := _output(run, flags, several):
        write_json(output / "verify.json", account.as_json(run, done))
    say(account.verdict(done))
    return not account.failed(done)


def _output(run: Path, flags: argparse.Namespace, several: bool) -> Path | None:
    if not flags.output:
        return None
    return Path(flags.output) / run.name if several else Path(flags.output)


if __name__ == "__main__":
    sys.exit(main())
