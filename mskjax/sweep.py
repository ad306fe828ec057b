"""Searches hyper-parameters: ``python -m mskjax.sweep --config=SWEEP --workdir=DIR``.

Any number of workers are the same command, on one machine or, with --storage=postgresql://..., on
many; on GPUs, give each worker its own (CUDA_VISIBLE_DEVICES).  Run again it goes on; finished, it
writes table, page and best config again, with the optimism once the best config is tested.
"""

import argparse
import importlib.util
import shutil
import sys
import textwrap
from pathlib import Path

from mskjax import commands
from mskjax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and works on the sweep; returns the exit code."""
    return commands.run(_sweep, argv)


def _sweep(argv: list[str]) -> None:
    flags = _parser().parse_args(argv)
    for name in ("optuna", "sqlalchemy"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"{name} is not installed; run pip install 'mskjax[sweep]'.")
    commands.configure_runtime()
    from mskjax.progress import say
    from mskjax.sweeps import declared, page, results, worker
    from mskjax.sweeps.objective import Objective
    from mskjax.sweeps.storage import JOURNAL, Storage
    from mskjax.sweeps.trials import Timing, Trials, forget

    sweep, folder = declared.load(flags.config), Path(flags.workdir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir: {folder} is a file; give a folder.")
    is_new = not flags.storage and not (folder / JOURNAL).exists()
    trials = Trials(sweep, Storage(flags.storage or str(folder / JOURNAL)), folder, Timing())
    try:
        worker.work(trials, Objective(sweep))
    except UserError:
        forget(folder, is_new)
        raise
    content = results.write(trials, folder)
    say(f"report: {page.write_page(sweep, content, folder)}")
    tested = content["test"]
    if tested is None:
        say(f"train and test the best config (trial {content['best']}), once:")
        say(f"  {content['command']}")
    elif tested["optimism"] is not None:
        say(
            f"{sweep.config.objective}: {tested['estimate']['value']:.4f} on {tested['patients']}"
            f" test patients, optimism of validation {tested['optimism']:+.4f}"
        )


class _Parser(argparse.ArgumentParser):
    """Help ends with the shipped sweeps and the fields of a file, from where they are declared."""

    def format_help(self) -> str:
        from mskjax import fields
        from mskjax.sweeps import declared

        width = min(shutil.get_terminal_size((100, 24)).columns, 110)
        lines = [super().format_help(), f"shipped sweeps: {', '.join(sorted(declared.names()))}"]
        lines.append("\nfields of a sweep file (its get_config gives a mapping of them):")
        for name, meaning in fields.meanings(declared.SweepConfig).items():
            lines.append(textwrap.fill(f"  {name:10} {meaning}", width, subsequent_indent=" " * 13))
        return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mskjax sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="a sweep's name, or a file of fields")
    parser.add_argument("--workdir", required=True, help="folder of the sweep; trials lie in it")
    parser.add_argument(
        "--storage",
        help="URL of a data base that all workers reach, postgresql://USER@HOST:PORT/DATABASE (the"
        " password belongs into ~/.pgpass or PGPASSWORD), or a journal file; left out:"
        " journal.log in the workdir",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
