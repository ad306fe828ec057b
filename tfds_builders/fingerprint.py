"""The content of studies as hashes: the fingerprint of a cohort, and images known by their voxels.

The fingerprint is one hash over all studies in the order of their ids.  Such a hash can be neither
interrupted nor shared.  So whoever reads a study keeps what goes into it, but for the volumes.
Those lie in the records, and one pass over them makes the hash in the end.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfds_builders.outlines import is_volume

Trace = Sequence[tuple[str, str | None]]


class _Kept:
    """In the place of a hash: keeps what it is fed."""

    def __init__(self) -> None:
        self.content = bytearray()

    def update(self, content: bytes) -> None:
        self.content += content


def trace(features: Mapping[str, Any], example: Mapping[str, Any]) -> Trace:
    """What goes into the fingerprint of a study.

    Args:
      features: of the data set.
      example: one value a feature.

    Returns:
      Of each feature, in order, its name and the bytes, hexadecimal; None of a volume.
    """
    found: list[tuple[str, str | None]] = []
    for name in sorted(example):
        if is_volume(features[name]):
            found.append((name, None))
            continue
        kept = _Kept()
        update_digest(kept, example[name], f"/{name}")
        found.append((name, kept.content.hex()))
    return found


def fingerprint(studies: Iterable[tuple[Trace, Mapping[str, Any]]]) -> str:
    """The hash over all studies, hexadecimal.

    Args:
      studies: trace and volumes of each, in the order of their ids.
    """
    digest = hashlib.sha256()
    for steps, volumes in studies:
        for name, content in steps:
            if content is None:
                update_digest(digest, volumes[name], f"/{name}")
            else:
                digest.update(bytes.fromhex(content))
    return digest.hexdigest()


def image_hashes(example: Mapping[str, Any]) -> list[str]:
    """Content hashes of the images of a study, by which the same scan is known under two names.

    Args:
      example: its float32 volumes are its images.  A constant one stands for none and is left out.

    Returns:
      sha256, hexadecimal, of shape and voxels.
    """
    return [
        hashlib.sha256(f"{v.shape}".encode() + np.ascontiguousarray(v, "<f4").tobytes()).hexdigest()
        for v in _images(example)
    ]


def _images(example: Mapping[str, Any]) -> Iterator[np.ndarray]:
    for name in sorted(example):
        value = example[name]
        is_image = isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype == np.float32
        if is_image and value.min() < value.max():
            yield value


def update_digest(digest: Any, value: Any, name: str = "") -> None:
    """Feeds a nested example into a hash, keys in sorted order.

    Args:
      digest: a `hashlib` object.
      value: nested dicts and lists of arrays, strings and numbers.
      name: path of `value` in the example.
    """
    if isinstance(value, Mapping):
        for key in sorted(value):
            update_digest(digest, value[key], f"{name}/{key}")
        return
    if isinstance(value, list | tuple):
        digest.update(f"{name}#{len(value)}\n".encode())
        for i, item in enumerate(value):
            update_digest(digest, item, f"{name}/{i}")
        return
    array = np.asarray(value)
    if array.dtype.kind in "US":
        digest.update(f"{name}={array!s}\n".encode())
        return
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    digest.update(f"{name}:{array.dtype.str}{array.shape}\n".encode() + array.tobytes())
