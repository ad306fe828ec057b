"""Weight files of PyTorch, safetensors and Keras as NumPy arrays; nothing in them is executed."""

import hashlib
import importlib
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.errors import UserError
from mskjax.models.torch_files import (
    NotPlain,
    Weights,
    checked_text,
    file_size,
    float32_of_bfloat16,
    read_legacy,
    read_zip,
    short,
    unknown,
)

# Safetensors calls its types F32, I64 and so on.
_SAFETENSORS_ELEMENTS = {"BF16": "<u2", "BOOL": "?"} | {
    f"{kind.upper()}{8 * size}": f"<{kind}{size}"
    for kind, sizes in {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}.items()
    for size in sizes
}
# What the readers below and the libraries under them raise on a damaged file.
_DAMAGE = (
    *(EOFError, LookupError, MemoryError, OSError, OverflowError, RuntimeError, TypeError),
    *(ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)


def read_weights(path: str | Path) -> Weights:
    """Reads the weights of another framework's file, recognised by its content.

    Args:
      path: a safetensors file; a state dict by ``torch.save`` in the zip or the older format, also
        within ``{"state_dict": ...}`` or ``{"model": ...}``; Keras weights in HDF5 (``.h5``).

    Returns:
      Name -> array in the file's order, shape and dtype, except that bfloat16 becomes float32.
      The names are those of the file; a "module." before all names of a state dict is dropped.
      Weights of Keras are called "layer/weight" as Keras 2 calls them, e.g.
      "block1_conv1/kernel" or "bn_conv1/moving_variance", also where the file has the older
      "block1_conv1_W_1:0" or "bn_conv1_running_std:0" (which always held the variance).

    Raises:
      UserError: the file is missing, damaged, of another format, holds more than plain weights, or
        needs a package that is not installed.
    """
    path = Path(path)
    reader = _reader(path)
    try:
        weights = reader(path)
    except NotPlain as error:
        raise UserError(
            f"{path}: {error}, so it is not a plain state dict; save "
            "model.state_dict() with torch.save."
        ) from error
    except _DAMAGE as error:
        raise UserError(
            f"{path}: is damaged or incomplete ({_reason(error)}); download or copy it again."
        ) from error
    if not weights:
        raise UserError(f"{path}: holds no weights; save the weights of a model.")
    return weights


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, 64 lower-case hexadecimal digits, by which a download is checked.

    Raises:
      UserError: the file cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _reader(path: Path) -> Callable[[Path], Weights]:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise _unreadable(path, error) from error
    # The length of a safetensors header may look like the beginning of a pickle: this one first.
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return _read_safetensors
    if head.startswith(b"PK\3\4"):
        return read_zip
    if head.startswith(b"\x80"):
        return read_legacy
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _read_keras
    raise unknown(path)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be opened ({error.strerror}); check the path.")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{short(error.args[0])} is missing"
    return short(error) or "it ends too early"


def _package(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{path}: reading it needs the package {name}; pip install 'mskjax[pretrained]'."
        ) from error


# ---- safetensors


def _read_safetensors(path: Path) -> Weights:
    safetensors = _package("safetensors", path)
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(str(error).removeprefix("Error while deserializing: ")) from error
    weights = {}
    for name, entry in entries:
        kind = entry["dtype"]
        if kind not in _SAFETENSORS_ELEMENTS:
            raise UserError(
                f"{path}: {short(name)} is of type {short(kind)}; convert it to float32."
            )
        values = np.frombuffer(entry["data"], _SAFETENSORS_ELEMENTS[kind]).reshape(entry["shape"])
        if kind == "BF16":
            weights[name] = float32_of_bfloat16(values)
        else:
            weights[name] = values.astype(values.dtype.newbyteorder("="))
    return weights


# ---- Keras


def _read_keras(path: Path) -> Weights:
    h5py = _package("h5py", path)
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        layers = _names(root.attrs, "layer_names")
        if layers is None:
            raise UserError(
                f"{path}: is HDF5, but names no Keras layers; save the model from Keras with "
                'model.save("weights.h5").'
            )
        weights: Weights = {}
        left = file_size(path)
        for layer in layers:
            for stored in _names(_member(root, layer).attrs, "weight_names") or ():
                values = _member(root[layer], stored)
                _check_dataset(values, file, left)
                left -= values.nbytes
                name = _keras_name(layer, stored)
                if name in weights:
                    raise ValueError(f"two weights are called {short(name)}")
                weights[name] = values[()].astype(values.dtype.newbyteorder("="))
        return weights


def _member(group: Any, name: str) -> Any:
    if name not in group:
        raise ValueError(f"{short(name)} is missing")
    return group[name]


def _names(attributes: Any, key: str) -> list[str] | None:
    """A list of names, which Keras divides over key0, key1, ... where it is too long for HDF5."""
    parts = [attributes[key]] if key in attributes else []
    while key not in attributes and f"{key}{len(parts)}" in attributes:
        parts.append(attributes[f"{key}{len(parts)}"])
    if not parts:
        return None
    found = [name for part in parts for name in np.asarray(part).ravel().tolist()]
    return [name.decode() if isinstance(name, bytes) else checked_text(name) for name in found]


def _check_dataset(values: Any, file: Any, left: int) -> None:
    """Refuses what is not plain numbers within this very file.

    Args:
      values: what a weight's name leads to.
      file: the HDF5 file.
      left: bytes of the file that no weight read so far accounts for.

    Raises:
      ValueError: if it is something else.
    """
    shape = getattr(values, "shape", None)
    if shape is None or values.dtype.kind not in "fiub":
        raise ValueError("a weight is no array of numbers")
    if values.is_virtual or values.external or values.file.filename != file.filename:
        raise ValueError("a weight is kept in another file")
    if values.nbytes > left or values.id.get_storage_size() < values.nbytes:
        raise ValueError(f"a weight of shape {shape} is compressed or not stored in full")


_KERAS_1 = re.compile(r"(.+)_(W|b|gamma|beta|running_mean|running_std)(?:_\d+)?")
_KERAS_2 = {
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",  # of Keras 1, whose "std" was the variance
}


def _keras_name(layer: str, stored: str) -> str:
    """Name of a weight as Keras 2 would call it, once under its layer.

    Args:
      layer: the group that holds it, e.g. "conv1".
      stored: e.g. "conv1/kernel:0", "conv1_1/kernel:0" (a second model of the session),
        "model/conv1/kernel" (Keras 3), "conv1_W:0" or "conv1_W_1:0" (Keras 1).
    """
    name = re.sub(r":\d+$", "", stored)
    if "/" not in name and (old := _KERAS_1.fullmatch(name)):
        name = f"{old[1]}/{_KERAS_2.get(old[2], old[2])}"
    *scopes, weight = name.split("/")
    own = re.compile(re.escape(layer) + r"(_\d+)?")
    last = max((i + 1 for i, scope in enumerate(scopes) if own.fullmatch(scope)), default=0)
    return "/".join([layer, *scopes[last:], weight])
