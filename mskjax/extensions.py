"""A user's own systems, cohorts and experiments: folders beside the shipped ones.

``MSKJAX_PATH`` names the folders, as ``PYTHONPATH`` does with modules; like that it is read when a
process starts, and reaches child processes.  Each folder is laid out as docs/new_system.md says:
``systems/NAME.py``, ``tfds_builders/NAME/NAME.py``, ``experiments/NAME.py``.  The packages
`mskjax.systems` and `tfds_builders` extend their paths by them, so nothing is registered anywhere.
"""

import importlib
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

from mskjax.errors import UserError

VARIABLE = "MSKJAX_PATH"

Kind = Literal["systems", "tfds_builders", "experiments"]


def folders(kind: Kind) -> list[str]:
    """``FOLDER/kind`` of every folder of ``MSKJAX_PATH`` that has it, in the order given.

    Raises:
      UserError: a folder of ``MSKJAX_PATH`` does not exist.
    """
    named = [Path(p).expanduser() for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
    for folder in named:
        if not folder.is_dir():
            raise UserError(
                f"{VARIABLE} names {folder}, which is not a folder; correct the path or take it"
                " out."
            )
    own = dict.fromkeys(folder.resolve() / kind for folder in named)
    return [str(folder) for folder in own if folder.is_dir()]


def found(kind: Kind, places: Sequence[str]) -> dict[str, Path]:
    """Name -> file of what lies in some folders, in their order.

    A file or package whose name begins with ``_`` is a helper of the others and not listed.

    Args:
      kind: which part of the layout they hold.
      places: the folder of the shipped ones, then those of `folders`.

    Raises:
      UserError: two files have the same name.
    """
    files: dict[str, Path] = {}
    for folder in places:
        for name, file in _files(kind, Path(folder)):
            if name in files:
                raise UserError(
                    f"{file} has the name of {files[name]}; rename yours, or take its folder out of"
                    f" {VARIABLE}."
                )
            files[name] = file
    return files


def load(package: ModuleType, name: str) -> ModuleType:
    """Imports a module of a package that the user's folders extend.

    Args:
      package: `mskjax.systems` or `tfds_builders`.
      name: of the module, dotted from the package on.

    Raises:
      UserError: a module of the user's own cannot be imported; with file, line and reason.
    """
    try:
        return importlib.import_module(f"{package.__name__}.{name}")
    except Exception as error:
        place = _place(error, package.__path__[1:])
        if place is None:  # a defect of ours
            raise
        raise UserError(
            f"{place}: cannot be imported ({type(error).__name__}: {error}); mend it there."
        ) from error


def _files(kind: Kind, folder: Path) -> list[tuple[str, Path]]:
    if kind == "tfds_builders":
        files = [(p.parent.name, p) for p in folder.glob("*/*.py") if p.stem == p.parent.name]
    else:
        files = [(p.stem, p) for p in folder.glob("*.py")]
    if kind == "systems":
        files += [(p.parent.name, p) for p in folder.glob("*/__init__.py")]
    return sorted((name, p) for name, p in files if not name.startswith("_"))


def _place(error: Exception, own: Sequence[str]) -> str | None:
    """File and line of the user's where an error arose; None where no file of theirs took part."""
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):  # its file is not run, so it has no frame
        frames.append((error.filename or "", error.lineno))
    theirs = [(f, n) for f, n in frames if any(f.startswith(p + os.sep) for p in own)]
    return f"{theirs[-1][0]}, line {theirs[-1][1]}" if theirs else None
