"""The studies that a fold holds out, read by its training or by those of several seeds together."""

from collections.abc import Callable
from typing import Any

from mskjax import predictions, reading
from mskjax.reporting.environment import environment
from mskjax.setting import Setting
from mskjax.training.stage import Study
from mskjax.writers import write_json

CASES = {"test": "cases.csv", "validation": "validation_cases.csv"}  # rows of a part of a fold


def write_rows(
    fold: reading.Reader,
    setting: Setting,
    number: int,
    part: str,
    seed: int | str,
    seen: Callable[[Study, Any], None] = lambda study, reading: None,
) -> None:
    """Reads a part of a fold and writes its rows (`CASES`) in the fold's folder.

    Args:
      fold: its training, or those of several seeds together.
      setting: of the study in whose folder they are left.
      number: of the fold.
      part: a key of `CASES`.
      seed: of the rows; empty for several seeds together.
      seen: see `reading.rows_of_fold`.
    """
    divided = setting.divided.folds[number]
    reading.write_rows(
        fold,
        setting.cohort,
        setting.numbers_of(number, part),
        setting.folder(number) / CASES[part],
        {"fold": number, "seed": seed},
        f"{setting.title(number)} {'evaluation' if part == 'test' else part}",
        kept=lambda row: reading.is_of(row, divided, part),
        seen=seen,
    )


def write(fold: reading.Reader, setting: Setting, number: int, seed: int | str) -> None:
    """Reads the held-out studies of a fold: rows, pictures, label maps, and the machine that read.

    Args:
      fold: as of `write_rows`, as the others.
      setting: of the study.
      number: of the fold.
      seed: of the rows.
    """
    folder, phantom = setting.folder(number), setting.cohort.audit["kind"] == "phantom"

    def leave(study: Study, found: Any) -> None:
        predictions.leave(folder, fold.system, study, found, phantom)

    # Of the machine that reads: it is what the rows can be compared on (`mskjax.verification`).
    write_json(folder / "environment.json", environment())
    write_rows(fold, setting, number, "test", seed, leave)
