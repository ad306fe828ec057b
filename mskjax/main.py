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
        from mskjax import next_steps, plan

        plan.run(flags.config, flags.workdir, **flags.plan)
        next_steps.after_plan(flags, argv)
    else:
        config, parts = json.loads(to_json(flags.config)), (flags.folds, flags.stages)
        commands.together(config=config, mode=list(flags.mode), parts=list(map(list, parts)))
        from mskjax import next_steps, study

        left = study.run(flags.config, flags.workdir, flags.mode, *parts)
        next_steps.after_study(flags, argv, left)


if __name__ == "__main__":
    sys.exit(main())
