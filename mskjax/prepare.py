"""Packages raw files as a cohort, with an audit of what was found, left out and why."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from mskjax import commands

_EPILOG = (
    "All cores package; MSKJAX_WORKERS=N in the environment says how many, each needs memory for"
    " one study.  What was stopped goes on with the same command, and so does the same command on"
    " other machines that share the folders.  docs/inputs.md says more."
)


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and packages the cohort; returns the exit code."""
    return commands.run(_prepare, argv)


def _prepare(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "mskjax.prepare", description=__doc__, epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--cohort", required=True, metavar="NAME[/CONFIG]")
    parser.add_argument("--manual_dir", metavar="RAW", help="folder of the raw files")
    parser.add_argument("--data_dir", required=True, metavar="DATA", help="packaged cohorts")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the config, e.g. patients=8; may be given again for another",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="package anew, e.g. after labels were corrected, and then replace the old package",
    )
    arguments = parser.parse_args(argv)
    # Imported late: help and mistakes answer at once.
    from mskjax.data.cohorts import builder_class, prepare_cohort

    name, _, config = arguments.cohort.partition("/")
    config = config or builder_class(name).BUILDER_CONFIGS[0].name
    cohort = prepare_cohort(
        name,
        config,
        arguments.data_dir,
        arguments.manual_dir,
        arguments.again,
        **dict(map(commands.option, arguments.option)),
    )
    print(audit_table(cohort.audit))
    flags = [f"--config={name}:{config}", f"--workdir=runs/{name}"]
    flags.append(f"--config.data.data_dir={arguments.data_dir}")
    if arguments.manual_dir:
        flags.append(f"--config.data.manual_dir={arguments.manual_dir}")
    flags += (f"--config.data.options.{option}" for option in arguments.option)
    commands.say_next("main", flags)


def audit_table(audit: Mapping[str, Any]) -> str:
    """The audit as text for a terminal: what there is, what was left out and why, notes."""
    title = f"{audit['name']}/{audit['config']} {audit['version']}"
    lines = [title + ("  PHANTOM" if audit["kind"] == "phantom" else "")]
    lines += [
        f"  {field:12} {audit[field]}"
        for field in ("licence", "citation", "patients", "studies", "cases", "fingerprint")
    ]
    lines += [
        f"  with {part:7} {having['patients']} patients, {having['studies']} studies"
        for part, having in audit["parts"].items()
    ]
    if audit["counts"]:
        width = max(map(len, audit["counts"]))
        lines.append("grade counts (-1 is missing)")
        for grade, counts in audit["counts"].items():
            listing = "  ".join(f"{value}: {n}" for value, n in counts.items())
            lines.append(f"  {grade:{width}}  {listing}")
    lines.append(f"left out: {len(audit['excluded']) or 'nothing'}")
    lines += [f"  {row['id']}: {row['why']}" for row in audit["excluded"]]
    if audit["restricted"]:
        lines.append(f"kept in part: {len(audit['restricted'])}")
        lines += [f"  {row['id']}: {row['why']}" for row in audit["restricted"]]
    lines += [f"note: {note}" for note in audit["notes"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
