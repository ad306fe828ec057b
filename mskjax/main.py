"""Runs a study: ``python -m mskjax.main --config=NAME[:VARIANT] --workdir=DIR``."""

import json
import sys

from mskjax import commands
from mskjax.config import to_json


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and runs or plans the study; returns the exit code."""
    return commands.run(_study, argv)


def _study(argv: list[str]) -> None:
    flags = commands.study_flags(argv)
    # After the flags: help and mistakes answer at once.
    if flags.workdir is None or commands.PLAN in flags.mode:
        from mskjax import plan

        plan.run(flags.config, flags.workdir, **flags.plan)
    else:
        commands.together(config=json.loads(to_json(flags.config)), mode=list(flags.mode))
        from mskjax import study

        study.run(flags.config, flags.workdir, flags.mode)


if __name__ == "__main__":
    sys.exit(main())
