"""Writes the report of a run again: ``python -m mskjax.report --runs=DIR [--output=DIR]``."""

import argparse
import sys
from pathlib import Path

from mskjax import commands
from mskjax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and writes the reports; returns the exit code."""
    return commands.run(_report, argv)


def _report(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="mskjax report", description=__doc__)
    parser.add_argument("--runs", nargs="+", required=True, help="workdirs of finished runs")
    parser.add_argument("--output", help="folder of the report; default: the run's own")
    flags = parser.parse_args(argv)
    commands.configure_runtime()
    from mskjax import systems
    from mskjax.progress import say
    from mskjax.reporting.summary import write_report
    from mskjax.workdir import config_of

    for run in map(Path, flags.runs):
        if not run.is_dir():
            raise UserError(f"--runs: {run} is not a folder; give the --workdir of a run.")
        output = Path(flags.output) if flags.output else None
        if output and len(flags.runs) > 1:
            output = output / run.name
        config = config_of(run)
        system = systems.load(config.system).build(config)
        page = write_report(run, system, output)
        say(f"report: {page}")
        commands.say_open(page)


if __name__ == "__main__":
    sys.exit(main())
