"""State dicts of PyTorch as NumPy arrays; nothing in the file is executed.

A file of ``torch.save`` is a pickle, and loading a pickle runs whatever its author wrote.  Here the
pickle's opcodes are interpreted by a machine that knows a state dict and nothing else: a name in
the file is compared with a list, never imported and never called.
"""

import io
import math
import mmap
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.errors import UserError

Weights = dict[str, np.ndarray]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LONGEST_PICKLE = 2**22  # bytes, without the numbers; a state dict takes about 150 a tensor
# Tied weights are stored once and bfloat16 doubles in size; what unpacks to more than this many
# times the file's size is a trap.
_MOST_EXPANSION = 16
_SMALLEST_BUDGET = 2**20
_MOST_DIMENSIONS = 32

# Storage classes of torch and the NumPy type of their elements; bfloat16 is held as its 16 bits.
_ELEMENTS = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_ORDERED_DICT = "collections.OrderedDict"
_REBUILD_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_GLOBALS = {_ORDERED_DICT, *_REBUILD_TENSOR, _REBUILD_PARAMETER} | {
    f"torch.{name}" for name in _ELEMENTS
}


class NotPlain(Exception):
    """The pickle holds something that a state dict of tensors does not; the message says what."""


def short(text: object) -> str:
    """One line of printable text, however long or odd what the file says may be."""
    line = " ".join(str(text).split())[:200]
    return "".join(c if c.isprintable() else "?" for c in line)


def unknown(path: Path) -> UserError:
    """What to say of a file of another format."""
    return UserError(
        f"{path}: is no weight file that this program reads; give a safetensors file, a PyTorch "
        "state dict (.pt, .pth) or Keras weights (.h5)."
    )


def float32_of_bfloat16(bits: np.ndarray) -> np.ndarray:
    """A bfloat16 is the upper half of a float32."""
    return np.asarray(bits.astype(np.uint32) << 16).view(np.float32)


# ---- PyTorch: the pickle


@dataclass(frozen=True)
class _Global:
    """A name in a pickle, on the list of names that are understood."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The flat memory that tensors are views of: `size` elements under `key` in the file."""

    key: str
    kind: str
    size: int

    @property
    def bytes(self) -> int:
        return self.size * np.dtype(_ELEMENTS[self.kind]).itemsize


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),  # the latter: Python 2
}


class _Machine:
    """Interprets one pickle of numbers, text, lists, tuples, dicts and tensors.

    Attributes:
      storages: key -> storage, of all tensors met.
    """

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # stacks below each open mark
        self._memo: dict[int, Any] = {}

    def run(self, stream: Any) -> Any:
        """Reads from a binary stream up to the pickle's end and returns its object."""
        start = stream.tell()
        for opcode, argument, position in pickletools.genops(stream):
            if opcode.name == "STOP":
                return self._pop()
            if position is not None and position - start > _LONGEST_PICKLE:
                raise NotPlain("has a pickle of more than 4 MiB beside its numbers")
            self._step(opcode.name, argument)
        raise ValueError("a pickle without an end")

    def _step(self, opcode: str, argument: Any) -> None:
        push = self._stack.append
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case _ if opcode in _CONSTANTS:
                push(_CONSTANTS[opcode])
            case _ if opcode in _LITERALS:
                push(argument)
            case "EMPTY_LIST":
                push([])
            case "EMPTY_DICT":
                push({})
            case "MARK":
                self._outer.append(self._stack)
                self._stack = []
            case "TUPLE":
                items = self._pop_to_mark()
                self._stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self._pop() for _ in range(int(opcode[-1]))]
                push(tuple(reversed(items)))
            case "APPEND" | "APPENDS":
                items = self._pop_to_mark() if opcode == "APPENDS" else [self._pop()]
                self._top(list).extend(items)
            case "SETITEM":
                value, key = self._pop(), self._pop()
                _set_items(self._top(dict), [(key, value)])
            case "SETITEMS":
                items = self._pop_to_mark()
                _set_items(self._top(dict), zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "BINGET" | "LONG_BINGET":
                push(self._memo[argument])
            case "GLOBAL":
                push(_known(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name, module = self._pop(), self._pop()
                push(_known(f"{checked_text(module)}.{checked_text(name)}"))
            case "BINPERSID":
                push(self._storage(self._pop()))
            case "REDUCE":
                arguments, function = self._pop(), self._pop()
                push(_reduce(function, arguments))
            case "BUILD":
                self._pop()  # attributes of an OrderedDict: the versions of its modules
                self._top(dict)
            case _:
                raise NotPlain(f"holds the pickle opcode {opcode}")

    def _pop(self) -> Any:
        if not self._stack:
            raise ValueError("a pickle that takes from an empty stack")
        return self._stack.pop()

    def _top(self, kind: type = object) -> Any:
        if not self._stack:
            raise ValueError("a pickle that takes from an empty stack")
        if not isinstance(self._stack[-1], kind):
            raise NotPlain(f"fills an object of type {_type_name(self._stack[-1])}")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        if not self._outer:
            raise ValueError("a pickle with an unmatched mark")
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _storage(self, reference: Any) -> _Storage:
        """The storage that a persistent id ("storage", class, key, device, size[, view]) names."""
        match reference:
            case ("storage", _Global(name), str(key), _, int(size), *view) if (
                name.removeprefix("torch.") in _ELEMENTS
                and size >= 0
                and all(part is None for part in view)  # no part of a storage
            ):
                storage = _Storage(key, name.removeprefix("torch."), size)
            case _:
                raise NotPlain("refers to something other than the storage of a tensor")
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {short(key)} is described in two ways")
        return storage


def _known(name: str) -> _Global:
    if name not in _GLOBALS:
        raise NotPlain(f"refers to {short(name)}")
    return _Global(name)


def _type_name(value: Any) -> str:
    return type(value).__name__.strip("_").lower()


def checked_text(value: Any) -> str:
    """The value, which must be text; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("a name in the file is no text")
    return value


def _set_items(target: dict[Any, Any], items: Any) -> None:
    for key, value in items:
        # Tuples as keys would be hashed: of nested ones that takes for ever.
        if not isinstance(key, str | int):
            raise NotPlain(f"has a key of type {_type_name(key)}")
        target[key] = value


def _reduce(function: Any, arguments: Any) -> Any:
    """What calling a known name would give; the call itself is never made."""
    name = function.name if isinstance(function, _Global) else ""
    match arguments:
        case () if name == _ORDERED_DICT:
            return {}
        case (list(pairs),) if name == _ORDERED_DICT:  # as Python 2 wrote it
            found: dict[Any, Any] = {}
            _set_items(found, pairs)
            return found
        case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if (
            name in _REBUILD_TENSOR
        ):
            return _tensor(storage, offset, shape, strides)
        case (_Tensor() as tensor, *_) if name == _REBUILD_PARAMETER:
            return tensor
    raise NotPlain(f"calls {name or 'an object'} in a way that torch.save does not")


def _tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple) -> _Tensor:
    """Checks that a view lies within its storage.

    Raises:
      ValueError: if it does not.
    """
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides)):
        raise ValueError("a tensor with negative or fractional sizes")
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor with {len(shape)} sizes and {len(strides)} strides")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise ValueError(f"a tensor that reaches beyond its storage of {storage.size} elements")
    return _Tensor(storage, offset, shape, strides)


# ---- PyTorch: the containers


def read_zip(path: Path) -> Weights:
    """A state dict in the zip format of torch 1.6 and later; raises `NotPlain` and much else."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        roots = [n.removesuffix("data.pkl") for n in members if re.fullmatch("[^/]*/data.pkl", n)]
        if len(roots) != 1:
            raise unknown(path)

        def read(name: str, size: int | None = None) -> bytes:
            member = members[roots[0] + name]
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > file_size(path):
                raise ValueError(f"{short(name)} is compressed, which torch.save never does")
            if size is not None and member.file_size != size:
                raise ValueError(f"{short(name)} has {member.file_size} bytes, not {size}")
            return archive.read(member)

        tree = _Machine().run(io.BytesIO(read("data.pkl")))
        order = read("byteorder") if roots[0] + "byteorder" in members else b"little"
        if order not in (b"little", b"big"):
            raise ValueError("an unknown byte order")
        return _arrays(
            path,
            _state_dict(tree),
            lambda storage: read(f"data/{storage.key}", storage.bytes),
            "<" if order == b"little" else ">",
        )


def read_legacy(path: Path) -> Weights:
    """A state dict in the format before torch 1.6; raises `NotPlain` and much else."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if _Machine().run(stream) != _LEGACY_MAGIC or _Machine().run(stream) != _LEGACY_PROTOCOL:
            raise NotPlain("is a pickle that torch.save did not write")
        _Machine().run(stream)  # the machine it was written on; the numbers are little-endian
        machine = _Machine()
        tree = machine.run(stream)
        places = _legacy_storages(stream, _Machine().run(stream), machine.storages)

        def read(storage: _Storage) -> bytes:
            return stream[places[storage.key] : places[storage.key] + storage.bytes]

        return _arrays(path, _state_dict(tree), read, "<")


def _legacy_storages(
    stream: mmap.mmap, keys: Any, storages: Mapping[str, _Storage]
) -> dict[str, int]:
    """Positions of the numbers: each storage is its element count (int64), then the elements."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("the list of storages is none")
    places = {}
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(stream.read(8), "little")
        places[key] = stream.tell()
        if count != storage.size:
            raise ValueError(f"storage {short(key)} has {count} elements, not {storage.size}")
        if places[key] + storage.bytes > len(stream):
            raise ValueError(f"the file ends within storage {short(key)}")
        stream.seek(places[key] + storage.bytes)
    return places


def _state_dict(tree: Any) -> dict[str, _Tensor]:
    """The tensors by name, out of a wrapping dict and without the prefix of DataParallel."""
    if not isinstance(tree, dict):
        raise NotPlain(f"holds an object of type {_type_name(tree)} and no dict")
    inner = next((v for k in ("state_dict", "model") if isinstance(v := tree.get(k), dict)), tree)
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise NotPlain(f"holds {short(name)} of type {_type_name(value)}, not a tensor")
    if all(name.startswith("module.") for name in inner):
        return {name.removeprefix("module."): value for name, value in inner.items()}
    return inner


def _arrays(
    path: Path,
    tensors: Mapping[str, _Tensor],
    read: Callable[[_Storage], bytes],
    byte_order: str,
) -> Weights:
    """Arrays that own their memory; storages are read one at a time, each once."""
    _check_budget(path, tensors.values())
    sharing: dict[_Storage, list[str]] = {}
    for name, tensor in tensors.items():
        sharing.setdefault(tensor.storage, []).append(name)
    arrays = {}
    for storage, names in sharing.items():
        flat = np.frombuffer(read(storage), byte_order + _ELEMENTS[storage.kind])
        arrays.update({name: _array(flat, tensors[name]) for name in names})
    return {name: arrays[name] for name in tensors}


def _check_budget(path: Path, tensors: Iterable[_Tensor]) -> None:
    total = sum(math.prod(t.shape) * np.dtype(_ELEMENTS[t.storage.kind]).itemsize for t in tensors)
    budget = max(_MOST_EXPANSION * file_size(path), _SMALLEST_BUDGET)
    if total > budget:
        raise ValueError(f"its tensors would take {total} bytes in memory")


def _array(flat: np.ndarray, tensor: _Tensor) -> np.ndarray:
    if 0 in tensor.shape:
        view = np.zeros(tensor.shape, flat.dtype)
    else:
        steps = [
            s * flat.itemsize if n > 1 else 0
            for n, s in zip(tensor.shape, tensor.strides, strict=True)
        ]
        view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, steps)
    if tensor.storage.kind == "BFloat16Storage":
        return float32_of_bfloat16(view)
    return np.array(view, view.dtype.newbyteorder("="), order="C")


def file_size(path: Path) -> int:
    """Bytes."""
    return path.stat().st_size
