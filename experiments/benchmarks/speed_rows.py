"""What `speed.py` and its parts hand around: one comparison, and all of them as a table."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing that both sides did, in turn.

    Attributes:
      part: of the benchmark, e.g. ``networks``.
      name: of what is measured, e.g. ``unet_phantom``.
      what: of it is timed, e.g. ``training step``.
      size: in words, e.g. ``6 x 224 x 128 x 1``.
      ours: what our side is, e.g. ``mskjax``.
      peer: what the other side is, e.g. ``torch, channels_last``.
      pairs: (ours, peer) seconds of each round; never printed, since they are a machine's.
    """

    part: str
    name: str
    what: str
    size: str
    ours: str
    peer: str
    pairs: tuple[tuple[float, float], ...]

    @property
    def ratio(self) -> float:
        """Median of the peer's seconds over ours; above 1 ours is faster."""
        return float(np.median(self._ratios))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the ratios."""
        low, high = np.quantile(self._ratios, [0.25, 0.75])
        return float(low), float(high)

    def as_json(self) -> dict[str, Any]:
        """Fields, ratio and quartiles as JSON."""
        own = dataclasses.asdict(self)
        pairs = [list(pair) for pair in self.pairs]
        return own | {"pairs": pairs, "ratio": self.ratio, "quartiles": list(self.quartiles)}

    @property
    def _ratios(self) -> np.ndarray:
        if not self.pairs:
            raise ValueError(f"{self.part}/{self.name} has no pairs")
        return np.array([theirs / ours for ours, theirs in self.pairs])


def table(rows: Sequence[Row]) -> str:
    """Ratios as a table of Markdown, a line a row.

    Args:
      rows: in the order of the lines.
    """
    lines = [
        "| part | name | what | size | ours | beside | ratio (quartiles) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        middle, low, high = map(_shown, (row.ratio, *row.quartiles))
        cells = (row.part, row.name, row.what, row.size, row.ours, row.peer)
        lines.append(f"| {' | '.join(cells)} | {middle} ({low} to {high}) |")
    return "\n".join(lines)


def _shown(ratio: float) -> str:
    """Two decimals, or two digits of what they would make nothing."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"
