"""``--config.a.b=value``: a config of which the command line changes single fields."""

import difflib
import re
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError

PATTERN = r"--?(no)?config\."  # how a flag begins that sets a field


def resolved(config: ConfigDict, overrides: Sequence[str], known: Sequence[str]) -> StudyConfig:
    """The config of a study.

    Args:
      config: what an experiment or a run's config.json sets.
      overrides: flags as they were typed, each like `PATTERN`.
      known: names of the command's other flags, to suggest one of them.

    Raises:
      UserError: a flag names no field, or its value is of a wrong type.
    """
    from mskjax import fields  # late: it imports jax, and the mistakes below need none of it

    values, argv = flags.FlagValues(), ["mskjax.main", *overrides]
    try:
        config_flags.DEFINE_config_dict(
            "config", fields.completed(config), flag_values=values, sys_argv=argv
        )
        rest = values(argv)
    except flags.UnrecognizedFlagError as error:  # --config.a, where a= is no field's name
        raise UserError(f"no flag --{error.flagname}; {suggest(error.flagname, known)}") from None
    except (KeyError, AttributeError) as error:
        raise UserError(_about_field(error, overrides)) from None
    except (flags.Error, ValueError, TypeError) as error:
        raise UserError(about_value(error)) from None
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}; flags are written --name=value.")
    return parse(StudyConfig, values.config.to_dict())


def about_value(error: BaseException) -> str:
    """The last line of what may be a traceback in a message."""
    line = _last_line(str(error)) or type(error).__name__
    line = re.sub(r"^\[Errno \d+\] |^\w*Error: ", "", line)
    line = re.sub(r"invalid literal for int\(\).*", "it must be a whole number.", line)
    line = re.sub(r"could not convert string to float.*", "it must be a number.", line)
    return line if line.startswith("flag --") else f"--config: {line}"


def suggest(name: str, known: Sequence[str]) -> str:
    """The flag that was meant, or all there are."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean --{near[0]}?" if near else f"known: --{', --'.join(known)}."


def _about_field(error: BaseException, argv: Sequence[str]) -> str:
    """ml_collections gives only the last name of an unknown field; the flag has the whole path."""
    text = str(error.args[0]) if error.args else ""
    found = re.search(r"lookup: ([\w.]+)", text) or re.match(r"\W*(\w+)", text)
    field = found[1] if found else text
    flag = next(
        (a for a in argv if re.match(rf"--?config\.([\w.]+\.)?{re.escape(field)}\b", a)), field
    )
    near = re.search(r'Did you mean "(\w+)"', text)
    hint = f"did you mean {near[1]!r}?" if near else "add --help to see all fields."
    return f"{flag.partition('=')[0]}: there is no field {field!r}; {hint}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()
