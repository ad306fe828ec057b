"""Reads new studies: ``python -m mskjax.predict --run=DIR --input=PATH... --output=DIR``."""

import argparse
import sys
from pathlib import Path

from mskjax import commands
from mskjax.errors import UserError

_EPILOG = (
    "Research use only, not a medical device.  Exit codes: 0 all studies were read, 3 some could"
    " not be, 2 none could or the input is wrong.  docs/predict.md says what may be given, what is"
    " written and what identifies a patient."
)


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and reads the studies; returns the exit code."""
    return commands.run(_predict, argv)


def _predict(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "mskjax.predict", description=__doc__, epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="workdir of a finished run")
    parser.add_argument(
        "--input",
        action="extend",
        nargs="+",
        default=[],
        metavar="PATH",
        help="DICOM folders or files, .nii.gz, .mha, .png, folders of studies, or a table (.csv)",
    )
    parser.add_argument("more", nargs="*", metavar="PATH", help="as --input")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--folds", metavar="K,K", help="of the run; default: all, as an ensemble")
    parser.add_argument(
        "--series", metavar="N", help="of a DICOM study: number or UID; or t1=3,t2=5"
    )
    parser.add_argument("--pixel_mm", type=float, metavar="MM", help="pixel size of PNGs")
    parser.add_argument("--slice", type=int, metavar="N", help="which slice is meant, from 0")
    parser.add_argument(
        "--coverage", type=float, default=0.9, metavar="P", help="of the sets of grades"
    )
    parser.add_argument(
        "--keep-ids",
        "--keep_ids",
        action="store_true",
        help="call studies by their ids; patients' names may then be written",
    )
    parser.add_argument(
        "--hash-uids",
        "--hash_uids",
        action="store_true",
        help="DICOM files refer to their images by keyed hashes, to be given away",
    )
    parser.add_argument(
        "--mapping", metavar="FILE", help="write which name is which study, for you alone to read"
    )
    flags = parser.parse_args(argv)
    paths = [*flags.input, *flags.more]
    if not paths:
        raise UserError("--input is needed: a folder or file of the studies that are to be read.")
    if not 0 < flags.coverage < 1:
        raise UserError(f"--coverage is {flags.coverage}; it must be between 0 and 1.")
    if flags.pixel_mm is not None and not 0 < flags.pixel_mm < 100:
        raise UserError(f"--pixel_mm is {flags.pixel_mm}; it must be a size in mm.")
    folds = commands.numbers("--folds", flags.folds)
    commands.configure_runtime()
    # Imported late: help and mistakes answer at once.
    from mskjax import prediction

    summary = prediction.run(
        prediction.Wish(
            run=Path(flags.run),
            paths=[Path(path) for path in paths],
            output=Path(flags.output),
            folds=folds,
            series=flags.series,
            pixel_mm=flags.pixel_mm,
            slice_index=flags.slice,
            coverage=flags.coverage,
            keep_ids=flags.keep_ids,
            hash_uids=flags.hash_uids,
            mapping=None if flags.mapping is None else Path(flags.mapping),
        )
    )
    commands.say_open(summary)


if __name__ == "__main__":
    sys.exit(main())
