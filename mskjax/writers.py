"""Files of a run: JSON, and metrics with the method names of `clu.metric_writers`.

clu's own writer needs TensorFlow; where that is installed it takes this one's place unchanged.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import tensorboardX


def write_json(path: Path, content: Any) -> None:
    """Writes a file that appears under its name only when complete; the first process writes."""
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        temporary.replace(path)


class Writer:
    """Scalars to JSON lines and to TensorBoard events.

    Args:
      folder: holds ``metrics.jsonl`` and the event files.
      start_step: rows after this step are dropped: a killed run had logged them after its last
        save, and the resumed run logs them again.
    """

    def __init__(self, folder: Path, start_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        rows = [r for r in read_rows(path) if r["step"] <= start_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(r) + "\n" for r in rows))
        temporary.replace(path)
        self._lines = path.open("a")
        self._events = tensorboardX.SummaryWriter(
            str(folder), purge_step=start_step + 1, write_to_disk=True
        )

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one row; values are Python or NumPy floats."""
        row = {"step": step, **{k: float(v) for k, v in scalars.items()}}
        self._lines.write(json.dumps(row) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(name, float(value), step)

    def flush(self) -> None:
        """Makes the rows so far visible to readers."""
        self._lines.flush()
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self.flush()
        self._lines.close()
        self._events.close()


def read_rows(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.jsonl; a half-written last line (a kill) is left out."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
