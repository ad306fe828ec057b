"""Writes a run as files that others run: ``python -m mskjax.export --run=DIR --output=DIR``.

The folder has a StableHLO program for each stage, the weights of each fold, what surrounds them as
data, a model card and an example; see docs/export.md.
"""

import argparse
import sys
from pathlib import Path

from mskjax import commands
from mskjax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and writes the folder; returns the exit code."""
    return commands.run(_export, argv)


def _export(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="mskjax export", description=__doc__)
    parser.add_argument("--run", required=True, help="workdir of a finished run")
    parser.add_argument("--output", required=True, help="folder to make; it must not exist")
    parser.add_argument("--folds", help="numbers, e.g. 0,1; default: all")
    flags = parser.parse_args(argv)
    try:
        folds = None if flags.folds is None else sorted({int(n) for n in flags.folds.split(",")})
    except ValueError:
        raise UserError(f"--folds is {flags.folds!r}; give numbers, e.g. --folds=0,1.") from None
    commands.configure_runtime()
    from mskjax.portable.folder import write
    from mskjax.progress import say

    output = Path(flags.output)
    write(Path(flags.run), output, folds)
    say(f"exported: {output}; read {output / 'MODEL_CARD.md'} before it goes to anyone")
    say("run its programs without mskjax:")
    say(f"  python {output / 'example.py'}")


if __name__ == "__main__":
    sys.exit(main())
