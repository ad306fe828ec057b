"""The systems, one file each; a new system is a new file and touches no other."""

import difflib
import importlib
import pkgutil
from types import ModuleType

from mskjax.errors import UserError


def names() -> list[str]:
    """Names of the systems that are declared here."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The module of a system: ``check(config)`` and ``build(config, studies)``.

    Raises:
      UserError: there is no such system.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known systems: {', '.join(known)}."
        raise UserError(f"config.system is {name!r}; {hint}")
    return importlib.import_module(f"{__name__}.{name}")
