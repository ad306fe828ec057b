"""The command that makes a study again, every override included, from its resolved config.

It is the shipped experiment and variant that the config names, and a flag for each field in which
the config differs from it.  Places are left to whoever runs it: ``RAW`` stands for the folder of
the raw files, ``RUN`` for that of the run that is repeated, ``WORKDIR`` for a new one.  A config
that flags cannot say is taken from the run itself (``--config=RUN/config.json``).
"""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from mskjax import experiment, fields, overrides
from mskjax.config import StudyConfig, changes, parse, to_json
from mskjax.errors import UserError

_PLACES = ("data_dir", "manual_dir", "splits")  # of ``data``: of the machine that ran it


def command(config: StudyConfig) -> str:
    """``python -m mskjax.main --config=NAME:VARIANT --config.a.b=value ... --workdir=WORKDIR``.

    Args:
      config: of a study, resolved.

    Returns:
      The command, quoted for a shell.  Run as it stands, with the places filled in, it gives the
      same config, which is checked here.
    """
    chosen = next(_ways(config), ["--config=RUN/config.json"])
    if config.data.manual_dir is not None:
        chosen.append("--config.data.manual_dir=RAW")
    if config.data.splits is not None:
        chosen.append("--config.data.splits=RUN/splits.json")
    return shlex.join(["python", "-m", "mskjax.main", *chosen, "--workdir=WORKDIR"])


def _ways(config: StudyConfig) -> Iterator[list[str]]:
    """Flags that resolve to this config, those of the experiment of the system's name first."""
    names = sorted(experiment.names(), key=lambda name: (name != config.system, name))
    wanted = _content(config)
    for name in names:
        spec = f"{name}:{config.variant}"
        try:
            default = experiment.load(spec)
            if default.get("system") != config.system:
                continue
            values = fields.completed(default).to_dict()
            changed = changes(_content(parse(StudyConfig, values)), wanted)
            given = [f"--{path}={_text(value)}" for path, _, value in changed]
            found = overrides.resolved(default, given, ())
        except UserError:
            continue  # no such variant there, or what differs is no flag
        if _content(found) == wanted:
            yield [f"--config={_shortest(name, config.variant)}", *given]


def _content(config: StudyConfig) -> dict[str, Any]:
    """A config as JSON holds it, without places."""
    found = json.loads(to_json(config))
    found["data"] = {k: v for k, v in found["data"].items() if k not in _PLACES}
    return found


def _text(value: Any) -> str:
    """A value as a flag has it."""
    return value if isinstance(value, str) else _literal(value)


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"({','.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def _shortest(name: str, variant: str) -> str:
    """``NAME``, where the variant is the default one."""
    default = experiment.load(name).get("variant")
    return name if variant == default else f"{name}:{variant}"
