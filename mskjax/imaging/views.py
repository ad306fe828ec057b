"""Fixed views of an example, whose predictions are averaged (test-time augmentation).

View 0 is the example itself.  The others come in pairs that move it one way and the other way by as
much, so that what moving does to a prediction cancels to first order; the moves of the pairs fill
the range evenly (the additive recurrence of Roberts, "The unreasonable effectiveness of
quasirandom sequences", 2018).  Nothing is random: an example is read alike in every run.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.imaging.augment import InPlane, move_crop

ROTATION, SCALE, TRANSLATION = 5.0, 0.05, 0.03  # degrees; zoom; fraction of rows and of columns
_MOVES = 4  # rotation, zoom, rows, columns


def in_plane(number: int) -> InPlane:
    """The motion of a view; no motion for view 0.

    Args:
      number: from 0 on.
    """
    pair, sign = (number + 1) // 2, 1.0 if number % 2 else -1.0
    moves = sign * _even(pair) if number else np.zeros(_MOVES)
    return InPlane(
        rotation=jnp.float32(np.deg2rad(ROTATION) * moves[0]),
        scale=jnp.float32((1 + SCALE) ** moves[1]),
        translation=jnp.asarray(TRANSLATION * moves[2:], jnp.float32),
        flip=jnp.asarray(False),
    )


def is_mirrored(number: int) -> bool:
    """Whether a view is mirrored where views may be: every second pair, from the first on."""
    return (number + 1) // 2 % 2 == 1


def moved(number: int, images: jax.Array) -> jax.Array:
    """Images or crops in a view; what comes from outside is the channel's minimum.

    Args:
      number: of the view, above 0.
      images: (B, H, W, C), or (B, D, H, W, C) whose slices move alike.

    Returns:
      Like `images`.
    """
    motion = in_plane(number)

    def one(image: jax.Array) -> jax.Array:
        slices = image.reshape(-1, *image.shape[-3:])
        low = slices.min((0, 1, 2), keepdims=True)
        return move_crop(motion, slices, low).reshape(image.shape)

    return jax.vmap(one)(images)


def _even(pair: int) -> np.ndarray:
    """(4,) in -1..1, float64: the point of a pair, from 1 on."""
    growth = 1.0  # the root of g^(d + 1) = g + 1 in d = 4 dimensions
    for _ in range(64):
        growth = (1 + growth) ** (1 / (_MOVES + 1))
    return 2 * ((0.5 + pair * growth ** -np.arange(1.0, _MOVES + 1)) % 1) - 1
