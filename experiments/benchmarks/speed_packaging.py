"""Part ``packaging`` of `speed.py`: raw files to a package, and the package read once.

The raw files are generated spines with their masks as compressed NIfTI, on the disk that holds
temporary files, in memory after the first round.  Neither side's start-up is timed but that of our
worker processes, which begin with each cohort.

* Ours (`prepare_cohort`, what ``python -m mskjax.prepare`` calls): all cores.  Every raw file is
  hashed; tables, headers, geometry, labels and the levels of discs are checked; axes are turned;
  images are known by content, so that no scan has two patients; volumes are compressed without
  loss into ArrayRecord shards, which a kill does not harm; a fingerprint is taken over all that was
  written, which is read for it again; audit and outlines are written.
* MONAI's `PersistentDataset` with two threads: images and masks are read, turned, normalised and
  written with `torch.save`, uncompressed.  Nothing is checked, hashed or graded.

Reading is one pass over all studies in one thread, each decoded into arrays of its own.
"""

import argparse
import csv
import dataclasses
import functools
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from speed_rows import Row
from speed_turns import check_there, in_turn

from mskjax.data.cohorts import Cohort, prepare_cohort
from mskjax.progress import say
from tfds_builders.phantoms.acquisition import SAGITTAL_T2
from tfds_builders.phantoms.spine import SpinePhantomConfig, spine_phantom

COHORT = "disc_degeneration"
STUDIES, QUICK_STUDIES = 60, 6
DRAWN = 6  # different spines; the others are theirs with other noise
THREADS = 2
# A clinical series of moderate size: drawing one takes a third of a second.
CLINICAL = SpinePhantomConfig(
    protocol=dataclasses.replace(SAGITTAL_T2, pixel_mm=1.1),
    n_slices=12,
    rows=256,
    cols=256,
    supersample=(1, 1, 1),
)
LABELS = (("L", "R"), ("P", "A"), ("I", "S"))  # of both ends of each axis
DISC_COLUMNS = ("study_id", "level", "pfirrmann")


def measure(flags: argparse.Namespace) -> list[Row]:
    """Rows of writing and of reading.

    Args:
      flags: ``rounds`` and ``quick``.

    Raises:
      UserError: torch or MONAI is not installed.
    """
    check_there("torch", "monai")
    studies, config = (QUICK_STUDIES, None) if flags.quick else (STUDIES, CLINICAL)
    with tempfile.TemporaryDirectory(prefix="mskjax_speed_") as name:
        folder = Path(name)
        write_raw(folder / "raw", studies, config)
        fresh = (folder / f"package_{i}" for i in itertools.count())
        ours = functools.partial(_anew, fresh, functools.partial(packaged, folder / "raw"))
        theirs = functools.partial(_anew, fresh, functools.partial(persistent, folder / "raw"))
        ours(), theirs()  # files are in memory, modules are imported
        written = in_turn(ours, theirs, flags.rounds)
        cohort = packaged(folder / "raw", folder / "ours")
        cached = persistent(folder / "raw", folder / "theirs")
        read = in_turn(lambda: read_all(cohort.studies), lambda: read_all(cached), flags.rounds)
        sizes = [_megabytes(folder / side) for side in ("raw", "ours", "theirs")]
        shape = " x ".join(map(str, cohort.studies[0]["image"].shape))
    size = f"{studies} x {shape}, MB raw, package, cache: {', '.join(f'{s:.1f}' for s in sizes)}"
    row = functools.partial(Row, "packaging", f"{COHORT}/cohort", size=size, ours="mskjax")
    peer = f"MONAI PersistentDataset, {THREADS} threads"
    rows = [
        row(what="studies packaged", peer=peer, pairs=written),
        row(what="studies read", peer="MONAI PersistentDataset", pairs=read),
    ]
    for own in rows:
        rates = [studies / float(np.median(side)) for side in zip(*own.pairs, strict=True)]
        say(f"{own.what}: {rates[0]:.1f} and {rates[1]:.1f} a second, {own.ratio:.2f}")
    return rows


def write_raw(folder: Path, studies: int, config: SpinePhantomConfig | None = None) -> None:
    """Writes studies.csv, discs.csv and the files they name, as README of the cohort says.

    Args:
      folder: is made.
      studies: of a patient each.
      config: of the spines; the small default if None.
    """
    folder.mkdir(parents=True)
    spines = [spine_phantom(seed, config) for seed in range(min(DRAWN, studies))]
    rows, discs = [], []
    for number in range(studies):
        spine, name = spines[number % len(spines)], f"s{number:05d}"
        noise = np.random.default_rng(number).integers(0, 3, spine.image.shape, np.int16)
        for end, values in (("", spine.image + noise), ("_mask", spine.mask)):
            nib.save(nib.Nifti1Image(values, spine.affine), folder / f"{name}{end}.nii.gz")
        rows.append((f"p{number:05d}", name, f"{name}.nii.gz", f"{name}_mask.nii.gz"))
        discs += [(name, g["level"], g["pfirrmann"]) for g in spine.gradings]
    write_table(folder / "studies.csv", ("patient_id", "study_id", "image", "mask"), rows)
    write_table(folder / "discs.csv", DISC_COLUMNS, discs)


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a CSV with a line of names."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def packaged(raw: Path, folder: Path) -> Cohort:
    """Our side: the cohort, packaged in a folder."""
    return prepare_cohort(COHORT, "cohort", folder, raw)


def persistent(raw: Path, folder: Path) -> Sequence[Any]:
    """MONAI's side: a dataset whose items have all been touched once, so that they are cached."""
    from monai import data, transforms

    both = ("image", "mask")
    files = [
        {"image": str(path), "mask": str(path).replace(".nii.gz", "_mask.nii.gz")}
        for path in sorted(raw.glob("*.nii.gz"))
        if not path.name.endswith("_mask.nii.gz")
    ]
    steps = transforms.Compose(
        [
            transforms.LoadImaged(both),
            transforms.EnsureChannelFirstd(both),
            transforms.Orientationd(both, axcodes="LIP", labels=LABELS),
            transforms.NormalizeIntensityd("image"),
        ]
    )
    folder.mkdir(parents=True)
    cached = data.PersistentDataset(files, steps, cache_dir=folder)
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(cached.__getitem__, range(len(cached))):
            pass
    return cached


def read_all(studies: Sequence[Any]) -> None:
    """Reads every study once; image and mask are arrays in memory then."""
    for number in range(len(studies)):
        study = studies[number]
        for name in ("image", "mask"):
            np.asarray(study[name])


def _anew(fresh: Iterator[Path], make: Callable[[Path], object]) -> None:
    folder = next(fresh)
    make(folder)
    shutil.rmtree(folder)


def _megabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6
