"""What TFDS stores of a study, as the rest of mskjax sees it."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds


def decode(feature: Any, value: Any) -> Any:
    """A record that TFDS has read, in plain types.

    Args:
      feature: of the data set, or of a part of the record.
      value: what TFDS makes of it.

    Returns:
      Strings as str, scalars as numbers, arrays as NumPy, and a sequence of records as a dict of
      columns, one entry a record.
    """
    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: decode(feature[name], value[name]) for name in feature}
    if isinstance(feature, tfds.features.Text):
        return value.decode()
    if isinstance(feature, tfds.features.Sequence):
        return _columns(feature.feature, value)
    return value


def _columns(feature: Any, values: Any) -> Any:
    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: _columns(feature[name], values[name]) for name in feature}
    if isinstance(feature, tfds.features.Text):
        return [v.decode() for v in values]
    return np.asarray(values, feature.np_dtype).reshape(len(values), *feature.shape)
