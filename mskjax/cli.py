"""The console script ``mskjax COMMAND ...``: the same commands as ``python -m mskjax.COMMAND``."""

import difflib
import importlib
import sys

COMMANDS = {
    "main": "run, resume or finish a study",
    "predict": "read new studies with a finished run",
    "evaluate": "test a finished run on patients of another cohort",
    "prepare": "package raw files as a cohort, with an audit",
    "report": "write a run's report again from its artefacts",
    "status": "say how far a run is and how long it still takes",
    "export": "write a finished run as programs and weights that run without it",
    "sweep": "search hyper-parameters, with any number of workers",
}


def main(argv: list[str] | None = None) -> int:
    """Hands the arguments to the command's module; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("usage: mskjax COMMAND [--help | flags]\n")
        print("\n".join(f"  {name:8} {does}" for name, does in COMMANDS.items()))
        return 0 if arguments else 2
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COMMANDS)}."
        print(f"error: no command {name!r}; {hint}", file=sys.stderr)
        return 2
    return importlib.import_module(f"mskjax.{name}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
