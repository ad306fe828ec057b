"""Outlines: studies without the values of their volumes, so that nothing is decoded to learn sizes.

A package has one line of JSON a study, in the order of the studies.  Read back, every feature is
what the decoded study has, and each volume is a stand-in with its shape and type.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.records import decode

OUTLINES = "outlines.jsonl"  # beside the audit


class Unread:
    """A volume of which only shape and type are known; whatever asks for its values fails.

    Args:
      shape: of the volume.
      dtype: of the volume.
    """

    __array_ufunc__ = None  # NumPy's functions raise TypeError
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Sequence[int], dtype: Any):
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Unread(shape={self.shape}, dtype={self.dtype})"

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{self!r} is the outline of a volume; take its values from the study.")

    __array__ = __bool__ = __eq__ = __getitem__ = __iter__ = __ne__ = _refuse  # type: ignore


class Outlines(Sequence):
    """The outlines of a package; ``outlines[i]`` is a new dict at every call.

    Args:
      path: the file.
      features: of the data set.

    Raises:
      OSError: the file cannot be read.
    """

    def __init__(self, path: Path, features: tfds.features.FeaturesDict):
        self._features = features
        self._lines = path.read_bytes().splitlines()

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, i: Any) -> Any:
        if not -len(self) <= i < len(self):
            raise IndexError(f"outline {i} of {len(self)}")
        return outline_of(self._features, self._lines[i])


def line(features: tfds.features.FeaturesDict, example: Mapping[str, Any]) -> str:
    """The outline of an example.

    Args:
      features: of the data set.
      example: one value a feature, as it is given to TFDS.

    Returns:
      One line of JSON, without its end.
    """
    volumes = [name for name in features if is_volume(features[name])]
    rest = tfds.features.FeaturesDict({n: f for n, f in features.items() if n not in volumes})
    # Through TFDS and back: floats get the precision in which they are stored.
    stored = rest.serialize_example({name: example[name] for name in rest})
    outline = decode(rest, rest.deserialize_example_np(stored))
    for name in volumes:
        outline[name] = {
            "shape": np.shape(example[name]),
            "dtype": np.dtype(features[name].np_dtype).name,
        }
    return json.dumps(outline, default=lambda array: array.tolist(), sort_keys=True)


def outline_of(features: tfds.features.FeaturesDict, text: str | bytes) -> dict[str, Any]:
    """What `line` wrote."""
    return _restored(features, json.loads(text))


def is_volume(feature: Any) -> bool:
    """Whether a feature is an array of no fixed shape."""
    return isinstance(feature, tfds.features.Tensor) and None in feature.shape


def _restored(feature: Any, value: Any) -> Any:
    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: _restored(feature[name], value[name]) for name in feature}
    if isinstance(feature, tfds.features.Sequence):
        return _columns(feature.feature, value)
    if is_volume(feature):
        return Unread(**value)
    return np.asarray(value, feature.np_dtype) if feature.shape else value


def _columns(feature: Any, values: Any) -> Any:
    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: _columns(feature[name], values[name]) for name in feature}
    if isinstance(feature, tfds.features.Text):
        return values
    return np.asarray(values, feature.np_dtype).reshape(len(values), *feature.shape)
