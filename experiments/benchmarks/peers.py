"""A finished run beside MONAI: the same patients, folds and time, differences with intervals.

    pip install -e '.[bench]' && pip install --no-deps monai
    python experiments/benchmarks/peers.py --run runs/spider --output peer.json [--folds 0 1]

For runs of `disc_degeneration` and `modic_changes`; of several seeds give one, ``RUN/seed_0``.
Each fold's peer is trained on the very training patients of the fold, as long as our stage was
(``wall_s`` of its cost.json; a grader gets the time of all graders of the fold), or ``--minutes``
for each fold and stage.  Nothing is chosen on any patient.  `monai_peer` says how it is trained.

* Masks: BasicUNet (or ``--network dyn_unet``) at the pixel size of our finest level, so both see as
  many slices in their time; its targets are the fractions of the classes in these pixels, and its
  probabilities go back to the native grid as ours do, so that the grid costs it no more.
* Grades: ResNet-18 on the crops that our grader sees, of the reference regions in training and in
  the test: what differs is network and training, not cutting.  All gradings that our grader is
  trained on.  Crops of training patients without reference boxes are of those that the fold's own
  detector found, for both.  Boxes themselves are not compared: MONAI's detector is 3-D.

Both sides are scored by the same functions.  Ours are the rows of RUN/cases.csv, of the method that
leads the report; calls are made of either side's probabilities by the grading's own rule.
Differences are ours minus the peer's, intervals 95 %, by a bootstrap over patients that draws the
same patients for both.  Kept beside OUTPUT, in a folder of its name, is what the peers said: a
stage of a fold that is there is not trained again.  Run it on a machine as free as the run had.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax import commands

commands.configure_runtime()

import numpy as np  # noqa: E402

from mskjax import cases, systems  # noqa: E402
from mskjax.data.cohorts import Cohort, find_cohort  # noqa: E402
from mskjax.errors import EXIT_DONE, EXIT_USER, UserError  # noqa: E402
from mskjax.metrics import paired  # noqa: E402
from mskjax.metrics.grading import Grading  # noqa: E402
from mskjax.metrics.grading_statistic import statistic  # noqa: E402
from mskjax.metrics.intervals import (  # noqa: E402
    DRAWS,
    paired_patient_bootstrap,
    patient_bootstrap,
    weighting,
)
from mskjax.metrics.segmentation import mean_over_cases  # noqa: E402
from mskjax.progress import say  # noqa: E402
from mskjax.reporting import comparable  # noqa: E402
from mskjax.reporting.comparable import CROSSED, Run  # noqa: E402
from mskjax.reporting.environment import environment  # noqa: E402
from mskjax.tables import Row, floats  # noqa: E402
from mskjax.two_stage.discs import GradedDiscs  # noqa: E402
from mskjax.workdir import config_of  # noqa: E402
from mskjax.writers import write_json  # noqa: E402

Json = dict[str, Any]
NETWORKS = ("basic_unet", "dyn_unet")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what is missing, writes and prints the comparison.

    Args:
      argv: flags; None takes the process's.

    Returns:
      The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--output", type=Path, required=True, help="JSON that is written")
    time = parser.add_mutually_exclusive_group()
    time.add_argument("--minutes", type=float, help="of training, for each fold and stage")
    time.add_argument("--match-time", action="store_true", help="as long as ours (the default)")
    parser.add_argument("--folds", type=int, nargs="+", help="numbers; all of the run by default")
    parser.add_argument("--network", choices=NETWORKS, default=NETWORKS[0], help="for masks")
    parser.add_argument("--seed", type=int, default=0, help="of the peer's trainings")
    parser.add_argument("--data_dir", help="of the packaged cohort; by default the run's own")
    flags = parser.parse_args(argv)
    try:
        content = compare(flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER
    write_json(flags.output, content)
    print(table(content))
    say(f"comparison: {flags.output}")
    return EXIT_DONE


def compare(flags: argparse.Namespace) -> Json:
    """The content of the comparison; trains peers that are not trained yet.

    Args:
      flags: those of `main`.

    Raises:
      UserError: torch or MONAI is missing; the run cannot be compared, or is not at hand; the
        output belongs to another comparison.
    """
    check_flags(flags)
    import monai_peer
    import peer_folds

    run, cohort = opened(flags.run, flags.data_dir)
    folds = chosen(run, flags.folds)
    folder = flags.output.with_suffix("")
    claim(folder, run, flags)
    plan = peer_folds.Plan(flags.network, flags.minutes, flags.seed)
    peers = [peer_folds.Fold(run, cohort, k, plan, folder / f"fold_{k}") for k in folds]
    theirs = [row for peer in peers for row in peer.rows()]
    ours = [row for row in run.parts[CROSSED][0] if int(row["fold"]) in folds]
    settings = {"resamples": run.config.resamples, "seed": run.config.seed}
    return {
        "run": str(flags.run),
        "system": run.config.system,
        "variant": run.config.variant,
        "phantom": run.audit["kind"] == "phantom",
        "fingerprint": run.fingerprint,
        "folds": folds,
        "networks": {peer_folds.MASKS: flags.network, peer_folds.GRADES: "resnet18"},
        "seed": flags.seed,
        **settings,
        "figures": overlaps(ours, theirs, settings)
        + gradings(run.system, ours, (theirs, peer_folds.PEER), settings),
        "training": [entry for peer in peers for entry in peer.training()],
        "environment": {**environment(), "peer": monai_peer.environment()},
    }


def check_flags(flags: argparse.Namespace) -> None:
    """Raises UserError if what the peer needs is missing, or a flag cannot be followed."""
    for name in ("torch", "monai"):
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"{name} is not installed; run pip install -e '.[bench]' and then pip install"
                " --no-deps monai."
            )
    if flags.minutes is not None and not flags.minutes > 0:
        raise UserError(f"--minutes is {flags.minutes:g}; give a time above 0.")
    if flags.output.suffix != ".json":
        raise UserError(f"--output is {flags.output}; give a file that ends with .json.")


def opened(folder: Path, data_dir: str | None) -> tuple[Run, Cohort]:
    """A finished run and its packaged cohort.

    Args:
      folder: of the run.
      data_dir: where the cohort is packaged; None: where the run found it.

    Raises:
      UserError: see `compare`.
    """
    if seeds := sorted(folder.glob("seed_*")):
        raise UserError(f"--run: {folder} was trained from several seeds; give one, {seeds[0]}.")
    config = config_of(folder)
    system: Any = systems.load(config.system).build(config)
    if not issubclass(type(system), GradedDiscs):
        raise UserError(
            f"--run: {folder} is a run of {config.system}; give one of disc_degeneration or"
            " modic_changes, for which there is a peer."
        )
    run = comparable.read(folder.name, folder, system)
    if config.data.shuffle_labels or run.divided.unit == "case":
        raise UserError(
            f"--run: {folder} has shuffled labels or is divided by case; give a run with the"
            " patients' own labels that is divided by patient."
        )
    data = config.data
    where = data_dir or data.data_dir
    cohort = find_cohort(data.cohort, data.config, where, run.fingerprint, **data.options)
    if cohort is None:
        raise UserError(f"{where} has no package of {data.cohort}/{data.config}; give --data_dir.")
    return run, cohort


def chosen(run: Run, numbers: Sequence[int] | None) -> list[int]:
    """Numbers of the folds that are compared.

    Args:
      run: cross-validated; of repetitions the first.
      numbers: of some folds; None gives all.

    Raises:
      UserError: the run has no such fold.
    """
    known = sorted({int(row["fold"]) for row in run.parts[CROSSED][0]})
    if missing := sorted({*(numbers or ())} - {*known}):
        raise UserError(
            f"--folds: {run.folder} has {', '.join(map(str, known))}, not"
            f" {', '.join(map(str, missing))}."
        )
    return sorted({*numbers}) if numbers else known


def claim(folder: Path, run: Run, flags: argparse.Namespace) -> None:
    """Makes the folder of what peers say; another comparison's is refused.

    Raises:
      UserError: it holds something else.
    """
    own = {
        "config": json.loads((run.folder / "config.json").read_text()),
        "splits": json.loads((run.folder / "splits.json").read_text()),
        "network": flags.network,
        "seed": flags.seed,
        "minutes": flags.minutes,
    }
    path = folder / "claim.json"
    if path.exists():
        if json.loads(path.read_text()) != own:
            raise UserError(f"--output: {folder} holds another comparison; give another name.")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"--output: {folder} is not empty; give another name.")
    write_json(path, own)


# --------------------------------------------------------------------------------------------
# Figures of both, and their differences


def overlaps(ours: Sequence[Row], theirs: Sequence[Row], settings: Mapping[str, int]) -> list[Json]:
    """Dice of each structure, on the native grid, mean over the studies that both have.

    Args:
      ours: rows of cases.csv.
      theirs: rows of the peer, of the same schema.
      settings: ``resamples`` and ``seed`` of the bootstrap.

    Returns:
      ``figure``, and ``ours``, ``peer`` and ``difference`` as estimates of a report.
    """
    tables = [
        {(r["name"], r["study"]): r for r in rows if r["kind"] == "structure"}
        for rows in (ours, theirs)
    ]
    found = []
    for name in dict.fromkeys(name for name, _ in tables[0]):
        both = [key for key in tables[0] if key[0] == name and key in tables[1]]
        dice = [floats([t[key] for key in both], "dice")[:, None] for t in tables]
        patients = [tables[0][key]["patient"] for key in both]
        if both:
            estimates = beside(mean_over_cases, dice[0], dice[1], patients, settings)
            found.append(_entry(f"dice_{name}", *(own[0] for own in estimates)))
    return found


def gradings(
    system: Any,
    ours: Sequence[Row],
    theirs: tuple[Sequence[Row], str],
    settings: Mapping[str, int],
) -> list[Json]:
    """Figures of each grading on reference regions, on the cases that both have.

    Args:
      system: of the run.
      ours: rows of cases.csv.
      theirs: rows of the peer, of the same schema, and its method in their columns.
      settings: see `overlaps`.

    Returns:
      As `overlaps`.
    """
    found = []
    for grading in system.gradings:
        a, b = cases.graded(ours, grading), cases.graded(theirs[0], grading)
        sides = []
        for graded, method in ((a, system.method), (b, theirs[1])):
            p = graded.probabilities(grading, method, oracle=True)
            known = ~np.isnan(p).any(1)
            of_case = zip(graded.rows, graded.reference, p, known, strict=True)
            sides.append({r["case"]: (r, c, own) for r, c, own, there in of_case if there})
        both = [case for case in sides[0] if case in sides[1]]
        if not both:
            continue
        patients = [sides[0][case][0]["patient"] for case in both]
        parts = ("labels", "auroc") if len(grading.classes) == 2 else ("labels",)
        data = [_data(grading, [side[case] for case in both]) for side in sides]
        estimates = beside(statistic(grading, parts), data[0], data[1], patients, settings)
        for name in _figures(grading):
            found.append(_entry(f"{name}_{grading.task}", *(own[name] for own in estimates)))
    return found


def beside(
    figure: Any, ours: Any, theirs: Any, patients: Sequence[str], settings: Mapping[str, int]
) -> tuple[Any, Any, Any]:
    """A statistic of both sides and ours minus theirs, all on the same resamples of patients.

    Args:
      figure: see `metrics.intervals.patient_bootstrap`.
      ours: data of N cases.
      theirs: data of the same cases.
      patients: N ids.
      settings: see `overlaps`.
    """
    units = [*dict.fromkeys(patients)]
    drawn = paired.multiplicities(len(units), settings["resamples"], settings["seed"])
    with weighting(dict(zip(units, drawn.T, strict=True))):
        return (
            patient_bootstrap(figure, ours, patients),
            patient_bootstrap(figure, theirs, patients),
            paired_patient_bootstrap(figure, ours, theirs, patients),
        )


def _data(grading: Grading, found: Sequence[tuple[Row, int, np.ndarray]]) -> dict[str, np.ndarray]:
    p = np.array([own for _, _, own in found])
    data = {
        "reference": np.array([c for _, c, _ in found], np.int32),
        "predicted": grading.calls(p),
    }
    return data | ({"score": p[:, 1].astype(np.float32)} if len(grading.classes) == 2 else {})


def _figures(grading: Grading) -> tuple[str, ...]:
    if len(grading.classes) == 2:
        return "cohen_kappa", "auroc"
    return ("quadratic_weighted_kappa",) if grading.ordinal else ("balanced_accuracy",)


def _entry(name: str, ours: Any, theirs: Any, difference: Any) -> Json:
    sides = {"ours": ours, "peer": theirs, "difference": difference}
    entries = {side: own.as_json() for side, own in sides.items()}
    for own in entries.values():
        del own[DRAWS]
    return {"figure": name, **entries}


# --------------------------------------------------------------------------------------------
# As text


def table(content: Json) -> str:
    """The comparison as tables of Markdown.

    Args:
      content: see `compare`.
    """
    networks = " and ".join(content["networks"].values())
    lines = ["PHANTOM: generated images."] if content["phantom"] else []
    lines += [
        f"| figure | cases, patients | ours | MONAI ({networks}) | ours minus MONAI's |",
        "|---|---|---|---|---|",
    ]
    for row in content["figures"]:
        n, patients = row["difference"]["n"], row["difference"]["patients"]
        ours, theirs = _words(row["ours"]), _words(row["peer"])
        apart = _words(row["difference"], "+")
        lines.append(f"| {row['figure']} | {n}, {patients} | {ours} | {theirs} | {apart} |")
    lines += [
        "",
        "| fold, part | ours, s | MONAI, s | its steps, parameters |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {t['fold']}, {t['part']} | {t['ours_s']:.0f} | {t['peer_seconds']:.0f}"
        f" | {t['peer_steps']}, {t['peer_parameters']:,} |"
        for t in content["training"]
    ]
    own = content["environment"]["peer"]
    versions = f"MONAI {own['monai']}, torch {own['torch']}, {own['threads']} threads"
    return "\n".join([*lines, "", f"{versions}, {own['device']}; ours on {_devices(content)}"])


def _devices(content: Json) -> str:
    return ", ".join(sorted({t["ours_device"] for t in content["training"]}))


def _words(estimate: Json, sign: str = "") -> str:
    value, bounds = estimate["value"], estimate["ci95"]
    if value is None:
        return "-"
    low_high = f" ({bounds[0]:{sign}.3f} to {bounds[1]:{sign}.3f})" if bounds else ""
    return f"{value:{sign}.3f}{low_high}"


if __name__ == "__main__":
    sys.exit(main())
