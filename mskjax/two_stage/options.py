"""Options of a system and its stages, from the config."""

import types
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError

Size = TypeVar("Size", bound=tuple[int, ...])
NOTHING: Mapping[str, Any] = types.MappingProxyType({})  # fitted yet


def canvas_in(fitted: Mapping[str, Any], stage: str, smallest: Size) -> Size:
    """The canvas of a stage that was measured on its cohort, see `System.measure`.

    Args:
      fitted: measured and fitted, JSON.
      stage: its name.
      smallest: of a stage that nothing was measured for yet.
    """
    return cast(Size, tuple(fitted.get("canvas", {}).get(stage, smallest)))


def stage_options(
    config: StudyConfig, stages: Mapping[str, type], options: type | None = None
) -> list[Any]:
    """The options of each stage and, last, of the system, parsed.

    Args:
      config: of the study.
      stages: name of the stage -> its dataclass of options.
      options: the system's own; None where it has none.

    Raises:
      UserError: a stage is missing or unknown, or a field is unknown or wrong.
    """
    if set(config.stages) != set(stages):
        raise UserError(
            f"config.stages has {', '.join(config.stages)}; it needs {', '.join(stages)}."
        )
    if options is None and config.options:
        raise UserError(f"config.options has {', '.join(config.options)}; this system has none.")
    found: list[Any] = [
        parse(cls, config.stages[name], f"config.stages.{name}") for name, cls in stages.items()
    ]
    return found if options is None else [*found, parse(options, config.options, "config.options")]
