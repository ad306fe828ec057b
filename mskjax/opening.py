"""How a study begins in its folder: the cohort is opened, and what it is of is written once.

Several processes may begin one study at the same time, each with folds of its own: the first to
come writes config, cohort and division, and the others hold theirs against these.
"""

import contextlib
import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax import again, going_on, manifest, roles
from mskjax import workdir as workdirs
from mskjax.config import StudyConfig
from mskjax.data import splits
from mskjax.data.cohorts import Cohort, prepare_cohort
from mskjax.errors import UserError
from mskjax.progress import say
from mskjax.replicas import Replica
from mskjax.reporting.environment import environment
from mskjax.training import processes
from mskjax.writers import write_json


def open_cohort(config: StudyConfig) -> Cohort:
    """The cohort, which the first process packages where it is missing and the others open.

    Raises:
      UserError: see `prepare_cohort`; or the processes find different cohorts.
    """
    if not roles.is_first():
        processes.sync("packaged")
    data = config.data
    cohort = prepare_cohort(
        data.cohort, data.config, data.data_dir, data.manual_dir, **data.options
    )
    if roles.is_first():
        processes.sync("packaged")
    prints = processes.gather("cohort", cohort.audit["fingerprint"])
    if other := [i for i, found in enumerate(prints) if found != prints[0]]:
        raise UserError(
            f"process {other[0]} finds another cohort in {data.data_dir} than process 0; give all"
            " a config.data.data_dir and a config.data.manual_dir of a file system that they share."
        )
    return cohort


def begin(
    whole: Replica,
    cohort: Cohort,
    divided: splits.Splits,
    folds: Sequence[int] = (),
    kept: Container[Path] = (),
) -> None:
    """Writes what a study, and those that it consists of, say of themselves before they train.

    Args:
      whole: the study.
      cohort: of its patients.
      divided: their division.
      folds: that the caller owns, beside others who may own others; none means all.
      kept: folders of finished studies in which nothing is to be trained or read: they stay as they
        are, their manifests too.

    Raises:
      UserError: others are at work on another cohort, division or config.
    """
    machine = environment()
    for part in whole.every():
        if part.workdir in kept:
            continue
        with workdirs.beginning(part.workdir) if folds else contextlib.nullcontext():
            going_on.extend(part.workdir, part.config, folds)
            started = workdirs.check(part.workdir, part.config)
            shared = bool(folds) and (started or bool(workdirs.busy(part.workdir, folds)))
            if shared:
                _check_shared(part.workdir, cohort, divided)
                _compare(part.workdir / "environment.json", machine)
            workdirs.claim(part.workdir, part.config, folds)
            if roles.is_first():
                manifest.discard(part.workdir)
            contents = {
                "environment.json": machine,
                "cohort.json": cohort.audit,
                workdirs.COMMAND: {"command": again.command(part.config)},
            }
            for name, content in contents.items():
                if not shared or not (part.workdir / name).exists():
                    write_json(part.workdir / name, content)
            if not (started or shared) or not (part.workdir / "splits.json").exists():
                splits.save(part.workdir / "splits.json", divided)
    processes.sync("begun")


def _check_shared(workdir: Path, cohort: Cohort, divided: splits.Splits) -> None:
    """Holds cohort and division against those that other processes work with.

    Raises:
      UserError: they differ.
    """
    theirs = workdir / "cohort.json"
    if theirs.exists() and (
        json.loads(theirs.read_text())["fingerprint"] != cohort.audit["fingerprint"]
    ):
        raise UserError(
            f"{theirs} is of other data than the cohort here; give all processes the same"
            " config.data.data_dir and config.data.manual_dir, or another --workdir."
        )
    theirs = workdir / "splits.json"
    if theirs.exists() and not splits.are_same(theirs, divided):
        raise UserError(
            f"{theirs} divides the patients otherwise than this command; give all processes the"
            " same config.data.splits, or another --workdir."
        )


def _compare(path: Path, machine: Mapping[str, Any]) -> None:
    """Says where this machine has other versions than the one that began the study."""
    theirs = json.loads(path.read_text()).get("packages", {}) if path.exists() else {}
    ours = machine["packages"]
    if other := [name for name in ours if theirs.get(name, ours[name]) != ours[name]]:
        versions = ", ".join(f"{name} {theirs[name]} there and {ours[name]} here" for name in other)
        say(f"note: {path} is of a machine with other versions ({versions}).")
