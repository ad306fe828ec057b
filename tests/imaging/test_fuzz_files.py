"""Damaged files of every format are read or refused in a sentence: never more, never for long."""

import collections
import os
import re
import resource
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from imaging import mutations

from mskjax.imaging.files import read_volume

SHARED = Path(os.environ.get("MSKJAX_SHARED", Path(__file__).resolve().parents[2] / "../shared"))
SCANNER = SHARED / "data" / "scanner_files"
SEEDS = 10_000
MOST_MEGABYTES = 1500  # the largest of the files holds 20 MB of voxels


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return mutations.samples(tmp_path_factory.mktemp("samples"))


@pytest.mark.filterwarnings("ignore::mskjax.errors.FileNote")
def test_the_samples_are_valid(valid):
    assert len(valid) == 15
    for path in valid:
        read_volume(path)


def test_damaged_files_of_every_kind(valid, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = collections.Counter()
    for path in valid:
        for seed in range(3 if path.name == "j2k.dcm" else 40):  # that one starts a process
            result = mutations.outcome(path, seed, tmp_path)
            assert result in ("read", "refused"), f"{path.name}, seed {seed}: {result}"
            results[result] += 1
    assert results["read"] > 50  # otherwise nothing behind the first check was reached
    assert results["refused"] > 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not SCANNER.is_dir(), reason=f"no scanner files at {SCANNER}")
def test_damaged_files_of_scanners(valid, tmp_path):
    kinds = (".dcm", ".nii", ".nii.gz")
    files = sorted(p for p in SCANNER.rglob("*") if p.name.endswith(kinds)) + valid
    # A compressed one is decoded in a process of its own: ten times the work, so less often.
    plain = [p for p in files if not mutations.is_compressed(p)]
    files = 4 * plain + [p for p in files if p not in plain]
    results = collections.Counter()
    faults, first = [], 0
    while first < SEEDS:
        first, found = watch(first, files, tmp_path, results)
        faults += found
    print(dict(results))
    assert not faults, "\n".join(faults)
    assert results["read"] > SEEDS / 20
    assert results["refused"] > SEEDS / 5


def watch(first, files, folder, results):
    """Runs seeds until one hangs or ends the process; the next seed, and what went wrong."""
    command = [sys.executable, mutations.__file__, folder, first, SEEDS, *files]
    faults = []
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as child:
        line, seed, began = "", first, time.monotonic()
        while True:
            ready, _, _ = select.select([child.stdout], [], [], 4 * mutations.MOST_SECONDS)
            line = child.stdout.readline() if ready else ""
            if not line:
                break
            seed, what, result = re.fullmatch(r"(\d+) (\w+) (.*)\n", line).groups()
            if what == "begins":
                name, began = result, time.monotonic()
                continue
            results[result if result in ("read", "refused") else "wrong"] += 1
            if result not in ("read", "refused"):
                faults.append(f"seed {seed}, {name}: {result}")
            if int(what) > MOST_MEGABYTES:
                faults.append(f"seed {seed}, {name}: {what} MB")
        child.kill()
    if int(seed) < SEEDS - 1 or child.returncode not in (0, -9):
        how = "hung" if not ready else f"ended with {child.returncode}"
        faults.append(f"seed {seed}, {name}: {how} after {time.monotonic() - began:.0f} s")
    return int(seed) + 1, faults
