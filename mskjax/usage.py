"""The text of ``mskjax.main --help``: experiments, flags, and every field of a config."""

import shutil
import textwrap
from collections.abc import Iterable

from mskjax import experiment, fields
from mskjax.config import MODES, DataConfig, StudyConfig, TrainConfig

USAGE = """\
Runs, resumes or finishes a study:

  python -m mskjax.main --config=NAME[:VARIANT] --workdir=DIR [--config.FIELD=VALUE ...]

Of a study that is begun, more steps may be asked for, and nothing else (docs/going_on.md).
"""
FLAGS = {
    "--config": "an experiment of the list above, found by its name from any folder; a file,"
    " PATH.py[:VARIANT]; or RUN/config.json, which repeats a run",
    "--workdir": "folder of this study alone; a study that was begun there goes on",
    "--mode": f"parts to run, any of {','.join(MODES)}; left out: all.  Or plan: says memory,"
    " FLOPs and time, without data; nothing is run, and plan.json is written if --workdir is given",
    "--folds": "numbers of the folds to work on, e.g. --folds=0,2; other processes may work on the"
    " others at the same time.  They are trained and evaluated; a command without --folds makes"
    " tables and report of all (docs/going_on.md)",
    "--stages": "with --mode=train: names of the stages to train; left out: all",
    "--memory_gb": "plan: memory of a device, 1e9 bytes; left out: what an accelerator here says",
    "--tflops": "plan: speed of a device, 1e12 FLOP/s; left out: what a compiled step reaches here",
    "--studies": "plan: how many there are, where the cohort is not packaged",
    "--compile": "plan: compiles and times the step here; left out: on an accelerator only",
    "--config.FIELD": "changes a field; a tuple is quoted: --config.FIELD='(1,2)'",
    "--help": "shows this; with --config, also the fields of that experiment's stages",
}
VALUES = 18  # columns of a value; a longer one has a line of its own


def study(spec: str | None) -> str:
    """Help of `mskjax.main`.

    Args:
      spec: what ``--config`` names; its fields are listed with their values there, which imports
        jax.  None lists the fields that all experiments have, with declared defaults.

    Raises:
      UserError: there is no such experiment or variant.
    """
    if spec is None:
        title = "Fields of every experiment, declared default, meaning (--config=NAME --help: all)"
        found = fields.declared(StudyConfig) + fields.declared(DataConfig, "data")
        found += fields.declared(TrainConfig, "stages.STAGE.train")
    else:
        title = f"Fields of {spec}, value there, meaning"
        found = fields.groups(fields.completed(experiment.load(spec)))
    width = max(len(name) for group in found for name in group.fields)
    parts = [
        USAGE,
        "Experiments and their variants; without a variant the first is meant:\n",
        *_experiments(),
        "Flags:\n",
        _rows(FLAGS.items(), 2, max(map(len, FLAGS))),
        f"{title}:\n",
        *(_group(group, width) for group in found if group.fields),
    ]
    return "\n".join(parts).rstrip()


def _experiments() -> Iterable[str]:
    for name, (line, variants) in experiment.listing().items():
        width = max(map(len, variants), default=0)
        yield f"  {name}\n{_wrapped(line, 4)}\n{_rows(variants.items(), 6, width)}"


def _group(group: fields.Group, width: int) -> str:
    rows = []
    for name, (value, meaning) in group.fields.items():
        start = f"{name:{width}}  {value:{VALUES}}"
        if len(value) > VALUES:
            rows.append(f"  {start}\n{_wrapped(meaning, 6 + width + VALUES)}\n")
        else:
            rows.append(_rows([(start, meaning)], 2, width + 2 + VALUES))
    return f"--config.{group.path}{'.' if group.path else ''}\n{''.join(rows)}"


def _rows(rows: Iterable[tuple[str, str]], indent: int, width: int) -> str:
    """Names in one column, texts beside it."""
    lines = []
    for name, text in rows:
        beside = _wrapped(text, indent + width + 2).lstrip()
        lines.append(f"{' ' * indent}{name:{width}}  {beside}".rstrip() + "\n")
    return "".join(lines)


def _wrapped(text: str, indent: int) -> str:
    columns = max(min(shutil.get_terminal_size((100, 24)).columns, 110), indent + 30)
    space = " " * indent
    return textwrap.fill(text, columns, initial_indent=space, subsequent_indent=space)
