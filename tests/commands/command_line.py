"""A study so small that a whole run takes seconds, and ways to start it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import mini_spine

ROOT = Path(__file__).resolve().parents[2]
# Trainings of peers, and of whole studies beside one.
MINUTES = pytest.mark.skipif(
    "MSKJAX_BENCHMARKS" not in os.environ, reason="takes minutes: MSKJAX_BENCHMARKS=1 runs it"
)
EXPERIMENT = "experiments/disc_degeneration.py"

# Six generated patients, two folds; the U-Net learns enough to find discs.  Batches can be divided
# by 8 devices.
SMALL = {
    "resamples": 50,
    "devices": 1,
    "data.options.patients": 6,
    "data.folds": 2,
    "stages.regions.spacing_mm": 2.5,
    "stages.regions.patch": "(64,48)",
    "stages.regions.model.widths": "(8,16)",
    "stages.regions.train.steps": 60,
    "stages.regions.train.batch_size": 8,
    "stages.regions.train.learning_rate": 0.02,
    "stages.regions.train.warmup_steps": 2,
    "stages.regions.train.ema_decay": 0.0,
    "stages.regions.train.checkpoint_every": 10,
    "stages.regions.train.log_every": 5,
    "stages.grades.crop": "(3,8,16)",
    "stages.grades.model.width": 2,
    "stages.regions.model.norm": "batch",
    "stages.grades.model.norm": "batch",
    "stages.grades.model.blocks": "(1,1,1,1)",
    "stages.grades.train.steps": 6,
    "stages.grades.train.warmup_steps": 3,
    "stages.grades.train.batch_size": 8,
    "stages.grades.train.checkpoint_every": 2,
    "stages.grades.train.log_every": 2,
}


# A user's cohort of a dozen tiny images; the U-Nets learn enough to find what is bright.
SMALL_RECIPE = {
    "learning_rate": 0.02,
    "warmup_steps": 2,
    "ema_decay": 0.0,
    "validate_every": 100,
    "checkpoint_every": 10,
    "log_every": 10,
    "batch_size": 8,
}
SMALL_COHORT = {
    "fatty_infiltration": {
        "resamples": 50,
        "devices": 1,
        "data.folds": 2,
        "stages.regions.spacing_mm": 2.0,
        "stages.regions.patch": "(16,16)",
        "stages.regions.model.widths": "(4,8)",
        "stages.regions.model.dtype": "float32",
        "stages.regions.train.steps": 30,
        "stages.grades.crop": "(32,32)",
        "stages.grades.model.width": 2,
        "stages.grades.model.blocks": "(1,1,1,1,1)",
        "stages.grades.model.hidden": 4,
        "stages.grades.model.pool": "(1,1)",
        "stages.grades.model.dtype": "float32",
        "stages.grades.train.steps": 4,
    },
    "vertebral_fracture": {
        "resamples": 50,
        "devices": 1,
        "data.folds": 2,
        "stages.segments.spacing_mm": 2.0,
        "stages.segments.patch": "(16,16)",
        "stages.segments.model.widths": "(4,8)",
        "stages.segments.model.dtype": "float32",
        "stages.segments.train.steps": 30,
        "stages.grades.crop": "(32,32)",
        "stages.grades.model.width": 2,
        "stages.grades.model.blocks": "(1,1,1,1)",
        "stages.grades.model.dtype": "float32",
        "stages.grades.train.steps": 4,
    },
}


# Generated patients of other systems; what the networks learn does not matter.
SMALL_PHANTOM = {
    "shoulder_bones": {
        "resamples": 50,
        "devices": 1,
        "data.options.patients": 8,
        "data.split": "folds_and_official",
        "data.folds": 2,
        "stages.proposals.spacing_mm": 5.0,
        "stages.proposals.patch": "(32,32)",
        "stages.proposals.model.widths": "(4,8)",
        "stages.proposals.blocks.size": 15,
        "stages.proposals.blocks.points": 8,
        "stages.proposals.blocks.width": 4,
        "stages.proposals.blocks.hidden": 8,
        "stages.proposals.train.steps": 20,
        "stages.proposals.train.learning_rate": 2e-2,
        "stages.edges.spacing_mm": 2.4,
        "stages.edges.patch": "(64,64)",
        "stages.edges.blocks.size": 15,
        "stages.edges.blocks.points": 8,
        "stages.edges.blocks.width": 4,
        "stages.edges.blocks.hidden": 8,
        "stages.edges.train.steps": 10,
        "stages.edges.train.warmup_steps": 5,
    },
    "modic_changes": {
        "resamples": 50,
        "devices": 1,
        "data.options.patients": 6,
        "options.normalisations": "('z_score_volume','landmarks','none')",
        "stages.boxes.spacing_mm": 3.0,
        "stages.boxes.confidence": 0.0,  # the detector hardly learns: whatever it finds is taken
        "stages.boxes.model.norm": "batch",
        "stages.boxes.model.widths": "(4,8,8)",
        "stages.boxes.model.channels": 8,
        "stages.boxes.model.hidden": 8,
        "stages.boxes.model.anchor_sizes": "((7.,),(11.,))",
        "stages.boxes.train.steps": 6,
        "stages.boxes.train.warmup_steps": 3,
        "stages.grades.crop": "(1,12,16)",
        "stages.grades.model.width": 4,
        "stages.grades.model.norm": "batch",
        "stages.grades.heads": "('presence','pfirrmann')",
        "stages.grades.train.steps": 4,
        "stages.grades.train.warmup_steps": 2,
        "stages.grades.train.batch_size": 8,
    },
}


def study(workdir, data_dir, *flags, **changes):
    """Arguments of ``mskjax.main``; keywords change fields, ``__`` stands for a dot."""
    fields = SMALL | {k.replace("__", "."): v for k, v in changes.items()}
    return _arguments("", workdir, data_dir, fields, flags)


def cohort_study(system, workdir, data_dir, raw, *flags, **changes):
    """As `study`, for the variant ``cohort`` of another system."""
    stages = ("regions" if system == "fatty_infiltration" else "segments", "grades")
    recipes = {f"stages.{s}.train.{k}": v for s in stages for k, v in SMALL_RECIPE.items()}
    fields = recipes | SMALL_COHORT[system] | {"data.manual_dir": raw}
    fields |= {k.replace("__", "."): v for k, v in changes.items()}
    return _arguments(":cohort", workdir, data_dir, fields, flags, f"experiments/{system}.py")


def phantom_study(system, workdir, data_dir, *flags, **changes):
    """As `study`, for the variant ``phantom`` of another system."""
    fields = SMALL_PHANTOM[system] | {k.replace("__", "."): v for k, v in changes.items()}
    return _arguments("", workdir, data_dir, fields, flags, f"experiments/{system}.py")


def real_study(variant, workdir, data_dir, raw, *flags, **changes):
    """As `study`, for a variant that reads raw files."""
    own = {k: v for k, v in SMALL.items() if not k.startswith("data.")}
    fields = own | {"data.manual_dir": raw, "data.folds": 2}
    for stage in ("regions", "grades"):  # published sizes and half precision are for accelerators
        fields[f"stages.{stage}.model.dtype"] = "float32"
        fields[f"stages.{stage}.train.steps"] = 3
        fields[f"stages.{stage}.train.warmup_steps"] = 1
    fields["stages.grades.heads"] = "pfirrmann"
    fields |= {k.replace("__", "."): v for k, v in changes.items()}
    return _arguments(f":{variant}", workdir, data_dir, fields, flags)


def _arguments(variant, workdir, data_dir, fields, flags, experiment=EXPERIMENT):
    return [
        f"--config={experiment}{variant}",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        *flags,
    ]


def own_cohort(root, names, subsets=None):
    """A user's files: a patient, an image, a mask and four graded discs for each name."""
    for number, name in enumerate(names):
        mini_spine.write_nifti(root / f"{name}.nii.gz", mini_spine.image(number))
        mini_spine.write_nifti(root / f"{name}_seg.nii.gz", mini_spine.semantic())
    mini_spine.write_csv(
        root / "studies.csv",
        ["patient_id", "study_id", "image", "mask", "subset"],
        [
            [f"p{name}", name, f"{name}.nii.gz", f"{name}_seg.nii.gz", (subsets or {}).get(name)]
            for name in names
        ],
    )
    mini_spine.write_csv(
        root / "discs.csv",
        ["study_id", "level", "pfirrmann"],
        [[name, level, level + 1] for name in names for level in range(1, 5)],
    )


def command(*arguments):
    """What a user types, as a list for subprocess."""
    return [sys.executable, "-m", *arguments]


def run(*arguments, **options):
    """Runs ``python -m ...`` in the repository's root and returns the finished process."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False, **options
    )


def start(*arguments):
    """Starts ``python -m ...`` and returns at once."""
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def contents(folder):
    """Relative path -> (bytes, time of change) of every file of a folder."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def complaint(said):
    """The one sentence on stderr, which must have no traceback beside it."""
    assert "Traceback" not in said, said
    assert said.count("error:") == 1, said
    return said[said.index("error:") :].strip()


def unfinished(folder):
    """Files and folders that were being written; none has a final name."""
    return [p for p in folder.rglob("*") if p.suffix == ".tmp" or "checkpoint-tmp" in p.name]
