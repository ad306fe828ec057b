"""The systems, one file each; a new system is a new file and touches no other.

It lies here, or in a folder of the user's own (`mskjax.extensions`).
"""

import difflib
import sys
from types import ModuleType

from mskjax import extensions
from mskjax.errors import UserError

__path__ = [*__path__, *extensions.folders("systems")]


def names() -> list[str]:
    """Names of the systems that are shipped, and of the user's own.

    Raises:
      UserError: two have the same name.
    """
    return sorted(extensions.found("systems", __path__))


def load(name: str) -> ModuleType:
    """The module of a system: ``check(config)`` and ``build(config, studies)``.

    Raises:
      UserError: there is no such system, or the user's own cannot be imported.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known systems: {', '.join(known)}."
        raise UserError(f"config.system is {name!r}; {hint}")
    return extensions.load(sys.modules[__name__], name)


def declared(name: str) -> tuple[dict[str, type], type | None]:
    """The dataclasses of a system's options: of each stage in turn, and its own or None.

    A system's module has them as ``STAGES`` and, where it has options of its own, ``Options``.

    Raises:
      UserError: there is no such system.
    """
    module = load(name)
    return module.STAGES, getattr(module, "Options", None)
