"""Runs a study: ``python -m mskjax.main --config=experiments/NAME.py[:VARIANT] --workdir=DIR``."""

import sys
from pathlib import Path

from mskjax import commands


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and runs the study; returns the exit code."""
    return commands.run(_study, argv)


def _study(argv: list[str]) -> None:
    flags = commands.study_flags(argv)
    # Imported after the flags are known to be good: help and mistakes answer at once, and the
    # run-time settings precede the import of jax.
    commands.configure_runtime()
    from mskjax import config, study

    resolved = config.parse(config.StudyConfig, flags.config.to_dict())
    study.run(resolved, Path(flags.workdir), flags.mode)


if __name__ == "__main__":
    sys.exit(main())
