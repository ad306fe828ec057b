"""External test of a run: ``python -m mskjax.evaluate --run=DIR --cohort=NAME/CONFIG``."""

import argparse
import shlex
import sys
from pathlib import Path

from mskjax import commands
from mskjax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and runs the test; returns the exit code."""
    return commands.run(_evaluate, argv)


def _evaluate(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("mskjax.evaluate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, metavar="DIR", help="workdir of a finished run")
    parser.add_argument("--cohort", required=True, metavar="NAME[/CONFIG]", help="of the patients")
    parser.add_argument("--manual_dir", metavar="RAW", help="folder of the raw files")
    parser.add_argument("--data_dir", default="data", metavar="DATA", help="packaged cohorts")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the config; may be given again for another",
    )
    parser.add_argument("--patients", metavar="ID,ID", help="of the cohort; default: all")
    parser.add_argument("--folds", metavar="K,K", help="of the run; default: all, as one")
    parser.add_argument(
        "--output", metavar="DIR", help="default: RUN/external/CONFIG, and the run's own report"
    )
    flags = parser.parse_args(argv)
    folds = commands.numbers("--folds", flags.folds)
    run = Path(flags.run)
    name, _, config_name = flags.cohort.partition("/")
    commands.configure_runtime()
    # Imported late: help and mistakes answer at once.
    from mskjax import external, manifest, systems
    from mskjax.data.cohorts import prepare_cohort
    from mskjax.reporting.summary import write_report
    from mskjax.workdir import config_of

    config = config_of(run)
    external.check_builder(config, name)
    if not (run / "cases.csv").exists():
        raise UserError(f"{run / 'cases.csv'} is missing; finish the run first.")
    config_name = config_name or "cohort"
    cohort = prepare_cohort(
        name,
        config_name,
        flags.data_dir,
        flags.manual_dir,
        **dict(map(commands.option, flags.option)),
    )
    if flags.patients:
        cohort = external.chosen(cohort, flags.patients.split(","))
    inside = flags.output is None
    output = run / external.FOLDER / config_name if inside else Path(flags.output)
    command = shlex.join(["python", "-m", "mskjax.evaluate", *argv])
    external.run(run, cohort, output, folds, command)
    system = systems.load(config.system).build(config)
    if inside:
        page = write_report(run, system)
        manifest.follow(run)
    else:
        page = write_report(run, system, output / "report", [output])
    external.announce(output, page)
    commands.say_open(page)


if __name__ == "__main__":
    sys.exit(main())
