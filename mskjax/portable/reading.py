"""An exported run, read from its folder: no network of this package is imported, nor Flax or Orbax.

What is left of the package is what surrounds the networks: it reads a study's volumes, cuts what a
stage is given, decodes what it says, hands it to the next stage and grades.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

from mskjax import applied
from mskjax.applied import Applied
from mskjax.config import StudyConfig, parse
from mskjax.data.pipeline import Examples, in_batches
from mskjax.errors import UserError
from mskjax.random_weights import untrained
from mskjax.two_stage.system import Predict

MODEL = "model.json"
FORMAT = 1  # of model.json


def load(folder: Path, folds: Sequence[str] | None = None) -> tuple[Applied, ...]:
    """The trained folds of an export; each reads as `applied.load` of the run would.

    Args:
      folder: that ``mskjax export`` wrote.
      folds: names, e.g. ``fold_0`` or ``seed_1/fold_0``; None gives all.

    Raises:
      UserError: the folder is no export, has changed since, or is of another version.
    """
    model = contents(folder)
    config = parse(StudyConfig, model["config"])
    known = {fold["name"]: fold for fold in model["folds"]}
    chosen = list(known) if folds is None else list(folds)
    if missing := [name for name in chosen if name not in known]:
        raise UserError(f"{folder} has {', '.join(known)}, not {', '.join(missing)}.")
    stages = {stage["name"]: Stage(folder, stage) for stage in model["stages"]}
    found = []
    for name in chosen:
        values = json.loads((folder / known[name]["system"]).read_text())
        system = applied.build(folder / known[name]["system"], config, values)
        weights = {stage: folder / file for stage, file in known[name]["weights"].items()}
        predict = predictor(stages, weights)
        found.append(Applied(system, values["baselines"], predict, name))
    return tuple(found)


def contents(folder: Path) -> dict[str, Any]:
    """Of model.json, once every file of the export was found to be what it was.

    Raises:
      UserError: naming the first file that is missing or has changed.
    """
    path = folder / MODEL
    if not path.is_file():
        raise UserError(f"{path} is missing; give a folder that mskjax export wrote.")
    try:
        model = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); copy the folder again.") from None
    if model.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {model.get('format')}, and this version of mskjax reads {FORMAT};"
            " export the run again."
        )
    if strange := sorted(_named(model) - {*model["files"]}) or _outside(model["files"]):
        raise UserError(
            f"{path} names {strange[0]}, which is no file of the export; make it again."
        )
    for name, wanted in model["files"].items():
        file = folder / name
        if not file.is_file() or sha256(file) != wanted:
            state = "has changed since it was exported" if file.is_file() else "is missing"
            raise UserError(f"{file} {state}; copy the folder again, or export the run again.")
    return model


def _named(model: Mapping[str, Any]) -> set[str]:
    """The files that are read."""
    folds = model["folds"]
    read = [name for fold in folds for name in (fold["system"], *fold["weights"].values())]
    return {*read, *(stage["program"] for stage in model["stages"])}


def _outside(names: Iterable[str]) -> list[str]:
    """Those that lead out of the folder."""
    return [n for n in names if PurePosixPath(n).is_absolute() or ".." in PurePosixPath(n).parts]


class Stage:
    """The program of a stage, which all folds share.

    Args:
      folder: of the export.
      entry: of the stage in model.json.
    """

    def __init__(self, folder: Path, entry: Mapping[str, Any]):
        self._path, self._entry = folder / entry["program"], entry

    def run(self, weights: Mapping[str, jax.Array], examples: Examples) -> Examples:
        """What the network says of all examples, in batches of the size of the run's evaluation.

        Raises:
          UserError: they are of another size than the program takes.
        """
        inputs = {}
        for name, own in self._entry["inputs"].items():
            inputs[name] = np.asarray(examples[name], own["dtype"])
            check_shape(f"{self._entry['name']}: {name}", own["shape"], inputs[name].shape[1:])

        def say(batch: Examples) -> dict[str, jax.Array]:
            return self._program(weights, {name: batch[name] for name in inputs})

        return in_batches(say, inputs, self._entry["batch"])

    @functools.cached_property
    def _program(self) -> Any:
        return jax.jit(export.deserialize(bytearray(self._path.read_bytes())).call)


def predictor(stages: Mapping[str, Stage], weights: Mapping[str, Path]) -> Predict:
    """Runs programs with the weights of a fold, which are read when they are first needed.

    Args:
      stages: by name.
      weights: files, by name of the stage.
    """

    def arrays(name: str) -> dict[str, jax.Array]:
        return _put(load_file(weights[name]))

    return applied.running(
        lambda name, own, examples: stages[name].run(own, examples),
        arrays,
        lambda name, trained: _put(untrained(trained)),
    )


def _put(weights: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jax.device_put(value) for name, value in weights.items()}


def check_shape(name: str, wanted: str, given: Sequence[int]) -> None:
    """Refuses examples that a program is not made for.

    Args:
      name: of the array, for the message.
      wanted: shape of a batch, as `training.stage.Input` has it.
      given: of an example.

    Raises:
      UserError: with both.
    """
    sides = wanted.split(", ")[1:]
    if len(sides) != len(given) or not all(map(_fits, sides, given)):
        raise UserError(
            f"{name} of this study is {' x '.join(map(str, given))}, and the exported program takes"
            f" {' x '.join(sides)}; read the study with the run itself, which takes any size."
        )


def _fits(side: str, length: int) -> bool:
    """Whether a length is the one that is asked for: ``3``, any (``h``) or a multiple (``8*h``)."""
    factor, _, letter = side.rpartition("*")
    return length == int(side) if letter.isdigit() else length % int(factor or 1) == 0


def sha256(path: Path) -> str:
    """Of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
