"""Boxes drawn at random, and their overlap by a loop over pairs."""

import numpy as np


def random_boxes(rng, n, extent=60, sides=(3, 30)):
    start = rng.uniform(0, extent, (n, 2))
    return np.concatenate([start, start + rng.uniform(*sides, (n, 2))], 1).astype(np.float32)


def numpy_iou(a, c):
    """By counting: areas of one box and another, one pair at a time."""

    def area(x):
        return max(x[2] - x[0], 0) * max(x[3] - x[1], 0)

    out = np.zeros((len(a), len(c)))
    for i, x in enumerate(np.float64(a)):
        for j, y in enumerate(np.float64(c)):
            common = area([max(x[0], y[0]), max(x[1], y[1]), min(x[2], y[2]), min(x[3], y[3])])
            union = area(x) + area(y) - common
            out[i, j] = common / union if union > 0 else 0
    return out
