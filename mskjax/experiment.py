"""Experiments: files of variants, found by name from any folder.

An experiment file ends with ``get_config = Variants(phantom, cohort, ...)``: the first function
makes the default, the others change it, and the first line of a docstring says what the variant is.
Any Python file with ``get_config(variant)`` will do; what it leaves out takes the default of the
dataclass that declares it (`mskjax.fields.completed`).
"""

import difflib
import inspect
import json
import runpy
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mskjax import extensions
from mskjax.errors import UserError

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries the experiments inside the package; in a checkout they lie beside it.
SHIPPED = next(
    (f for f in (_PACKAGE / "experiments", _PACKAGE.parent / "experiments") if f.is_dir()),
    _PACKAGE / "experiments",
)


class Variants:
    """``get_config`` of an experiment file.

    Args:
      default: makes the config of the default variant.
      others: each changes the default's config in place.
    """

    def __init__(self, default: Callable[[], ConfigDict], *others: Callable[[ConfigDict], None]):
        self._default = default
        self._others = {function.__name__: function for function in others}

    def __call__(self, variant: str = "") -> ConfigDict:
        """The config of a variant, with its name in ``variant``; empty gives the default.

        Raises:
          UserError: there is no such variant.
        """
        variant = variant or self._default.__name__
        if variant not in self.described():
            raise UserError(f"no variant {variant!r}; {_known(variant, self.described())}")
        config = self._default()
        if variant in self._others:
            self._others[variant](config)
        config.variant = variant
        return config

    def described(self) -> dict[str, str]:
        """Name -> one line, the default first."""
        functions: dict[str, Callable[..., Any]] = {self._default.__name__: self._default}
        return {name: _first_line(f) for name, f in (functions | self._others).items()}


def package(config: ConfigDict, name: str, folds: int = 5, **data: Any) -> None:
    """Takes another package of the cohort, without the phantom's options.

    Args:
      config: changed in place.
      name: of the builder config.
      folds: of patients.
      **data: further fields of ``config.data``.
    """
    config.data.update(config=name, folds=folds, **data)
    # Of studies of their own only users can say what the images are of.
    config.data.options = ConfigDict({"kind": "real"} if name == "cohort" else {})


def names() -> dict[str, Path]:
    """Name -> file of the shipped experiments and of those in folders of `mskjax.extensions`.

    Raises:
      UserError: two files have the same name.
    """
    return extensions.found("experiments", [str(SHIPPED), *extensions.folders("experiments")])


def find(name: str) -> Path:
    """The file that is meant by what stands before the colon of ``--config``.

    Args:
      name: of an experiment, a path to an experiment file, or to a run's config.json.

    Raises:
      UserError: there is none; the sentence has the nearest name and all names.
    """
    path, known = Path(name), names()
    if path.suffix in (".py", ".json"):
        if path.is_file():
            return path
        raise UserError(f"--config={name}: no such file; {_known(path.stem, sorted(known))}")
    if name in known:
        return known[name]
    if (path / "config.json").is_file():
        raise UserError(f"--config={name} is a folder; write --config={path / 'config.json'}.")
    raise UserError(
        f"--config={name} is neither an experiment's name nor a path to a file (.py, or a run's"
        f" config.json); {_known(name, sorted(known))}"
    )


def load(spec: str) -> ConfigDict:
    """What an experiment or a run's config.json sets, as it stands there.

    Args:
      spec: ``NAME[:VARIANT]``, ``PATH.py[:VARIANT]`` or ``RUN/config.json``.

    Raises:
      UserError: there is no such experiment or variant, or the file is faulty.
    """
    name, _, variant = spec.partition(":")
    file = find(name)
    if file.suffix == ".json":
        if variant:
            raise UserError(f"--config={spec}: a run has no variants; leave :{variant} out.")
        return _from_json(file)
    config = made(file, *([variant] if variant else []))
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config: get_config of {file} gives no ConfigDict.")
    return config


def made(file: Path, *arguments: str) -> Any:
    """What ``get_config`` of a Python file gives.

    Raises:
      UserError: the file is faulty or has no ``get_config``.
    """
    get_config = _executed(file).get("get_config")
    if get_config is None:
        raise UserError(f"--config: {file} has no get_config; see {SHIPPED} for examples.")
    try:
        return get_config(*arguments)
    except UserError as error:
        raise UserError(f"--config={':'.join([str(file), *arguments])}: {error}") from None
    except Exception as error:
        raise UserError(_where(file, error)) from error


def listing() -> dict[str, tuple[str, dict[str, str]]]:
    """Name -> (one line, its variants with a line each) of every experiment that can be read."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for name, file in sorted(names().items()):
        try:
            module = _executed(file)
        except UserError as error:
            found[name] = (str(error), {})
            continue
        variants = module.get("get_config")
        described = variants.described() if isinstance(variants, Variants) else {}
        found[name] = ((module.get("__doc__") or "").strip().partition("\n")[0], described)
    return found


def _executed(file: Path) -> dict[str, Any]:
    try:
        return runpy.run_path(str(file))
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        raise UserError(f"--config: {where}: {error.msg}.") from None
    except Exception as error:
        raise UserError(_where(file, error)) from error


def _from_json(file: Path) -> ConfigDict:
    try:
        values = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"--config: {file} is no JSON ({error}); is it a run's config?") from None
    if not isinstance(values, dict):
        raise UserError(f"--config: {file} holds no config; is it a run's config.json?")
    return ConfigDict(values)


def _where(file: Path, error: Exception) -> str:
    """The line of an experiment file that failed, and how."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    line = f", line {lines[-1]}" if lines else ""
    return f"--config: {file}{line}: {type(error).__name__}: {error}."


def _known(name: str, known: Sequence[str] | dict[str, str]) -> str:
    begun = [k for k in known if k.startswith(name)]
    near = begun or difflib.get_close_matches(name, known, 1)
    listed = ", ".join(known)
    return f"did you mean {near[0]!r}, of {listed}?" if near else f"known: {listed}."


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0].rstrip(".")
