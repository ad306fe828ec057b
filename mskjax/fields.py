"""Every field of a config: its default, where it is declared, and what it means.

What needs a system's declarations imports jax, so `commands.configure_runtime` comes before.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mskjax import systems
from mskjax.config import StudyConfig


def completed(config: ConfigDict) -> ConfigDict:
    """A config with every field that its system declares, so that flags may set any of them.

    What is wrong (an unknown field, a value of a wrong type) stays as it is: `config.parse` and the
    system say so.

    Args:
      config: what an experiment sets; anything may be missing but ``system``.

    Returns:
      A new config.  Fields without a value are placeholders of their type.

    Raises:
      UserError: there is no such system.
    """
    values = config.to_dict()
    if isinstance(values.get("system"), str):
        stages, options = systems.declared(values["system"])
        values["options"] = _group(options, values.get("options", {}))
        given = values.get("stages", {})
        if isinstance(given, Mapping):
            filled = {name: _group(cls, given.get(name, {})) for name, cls in stages.items()}
            values["stages"] = {**filled, **{k: v for k, v in given.items() if k not in filled}}
    return ConfigDict(_group(StudyConfig, values))


def meanings(cls: type) -> dict[str, str]:
    """Name -> meaning of a dataclass's fields, from ``Attributes:`` of it and of its bases.

    ``a, b: text`` gives both names the text.  Markup of code is left out.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= attributes(base.__doc__ or "")
    return found


def attributes(docstring: str) -> dict[str, str]:
    """Name -> text of the section ``Attributes:`` of a Google docstring; empty without one."""
    _, begun, section = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    found: dict[str, str] = {}
    current: list[str] = []
    for line in section.splitlines() if begun else ():
        if line and not line.startswith("  "):
            break  # the section is over
        entry = re.match(r"  (\w+(?:, \w+)*): (.*)", line)
        if entry:
            current = entry[1].split(", ")
            found |= dict.fromkeys(current, entry[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}".rstrip() for name in current}
    return {name: re.sub(r"`+([^`]*)`+", r"\1", text) for name, text in found.items()}


@dataclasses.dataclass(frozen=True)
class Group:
    """The fields of one dataclass.

    Attributes:
      path: dotted name of the group below ``config``; empty for the study's own fields.
      fields: name -> (value as text, meaning).
    """

    path: str
    fields: Mapping[str, tuple[str, str]]


def groups(config: ConfigDict) -> list[Group]:
    """Fields of a completed config with the values that they have there."""
    values = config.to_dict()
    stages, options = systems.declared(values["system"])
    found = list(_groups(StudyConfig, values, ""))
    if options is not None:
        found += _groups(options, values["options"], "options")
    for name, cls in stages.items():
        found += _groups(cls, values["stages"][name], f"stages.{name}")
    return found


def declared(cls: type, path: str = "") -> list[Group]:
    """The fields of a dataclass itself, with their declared defaults."""
    return [next(_groups(cls, ConfigDict(_group(cls, {})).to_dict(), path))]


def _groups(cls: type, values: Mapping[str, Any], path: str) -> Iterator[Group]:
    hints, said = typing.get_type_hints(cls), meanings(cls)
    inner, own = [], {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(hints[field.name]):
            inner.append(field.name)
        elif cls is not StudyConfig or field.name not in ("stages", "options"):
            own[field.name] = (_shown(values[field.name], field), said.get(field.name, ""))
    yield Group(path, own)
    for name in inner:
        yield from _groups(hints[name], values[name], f"{path}.{name}" if path else name)


def _shown(value: Any, field: dataclasses.Field) -> str:
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    if value is None:
        return "required" if required else "None"
    return value if isinstance(value, str) else str(value).replace(" ", "")


def _group(cls: type | None, values: Any) -> Any:
    """Values of a dataclass by name, those that are missing from their declaration."""
    if cls is None or not isinstance(values, Mapping):
        return values
    hints = typing.get_type_hints(cls)
    filled: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        hint = hints[field.name]
        if field.name in values:
            value = values[field.name]
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = None if field.default is dataclasses.MISSING else field.default
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        filled[field.name] = _field(hint, value)
    return {**filled, **{name: v for name, v in values.items() if name not in filled}}


def _field(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if dataclasses.is_dataclass(hint):
        return _group(typing.cast(type, hint), {} if value is None else value)
    if value is None:
        return placeholder(typing.get_origin(hint) or hint)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)  # or the command line could give it whole numbers only
    return _tuples(value) if typing.get_origin(hint) is tuple else value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
