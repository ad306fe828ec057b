"""Files of a run: text, JSON, and metrics with the method names of `clu.metric_writers`.

Of several processes the first alone writes; the others call the same functions and touch nothing.
clu's own writer needs TensorFlow; where that is installed it takes this one's place unchanged.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mskjax import roles


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, in a folder that is made, that appears under its name only when complete."""
    if roles.is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(content)
        temporary.replace(path)


def write_text(path: Path, content: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """As `write_text`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


class Writer:
    """Scalars to JSON lines and to TensorBoard events.

    Args:
      folder: holds ``metrics.jsonl`` and the event files.
      start_step: rows after this step are dropped: a killed run had logged them after its last
        save, and the resumed run logs them again.
    """

    def __init__(self, folder: Path, start_step: int):
        self._files: tuple[Any, ...] = ()
        if not roles.is_first():
            return
        import tensorboardX  # late: it takes a second, and readers of a run need none of it

        path = folder / "metrics.jsonl"
        rows = [r for r in read_rows(path) if r["step"] <= start_step]
        write_text(path, "".join(json.dumps(r) + "\n" for r in rows))
        self._lines = path.open("a", buffering=1)  # each row is there for `status` at once
        self._events = tensorboardX.SummaryWriter(
            str(folder), purge_step=start_step + 1, write_to_disk=True
        )
        self._files = (self._lines, self._events)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one row; values are Python or NumPy floats."""
        if not self._files:
            return
        row = {"step": step, **{k: float(v) for k, v in scalars.items()}}
        self._lines.write(json.dumps(row) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(name, float(value), step)

    def flush(self) -> None:
        """Makes the rows so far visible to readers."""
        for file in self._files:
            file.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        for file in self._files:
            file.flush()
            file.close()


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
