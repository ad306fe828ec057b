"""Modic changes on paired T1 and T2: Faster R-CNN finds discs, a 3-D CNN grades them.

After Cina et al., Brain & Spine 2024;4:102738 (mskjax/systems/modic_changes says what is theirs
and what is open).  All normalisations of `options.normalisations` are compared in one run.

    python -m mskjax.main --config=modic_changes --workdir=runs/modic
    python -m mskjax.main --config=modic_changes:spider_midsagittal --workdir=runs/spider \
        --config.data.manual_dir=FOLDER

Each function is a variant: the default, or what differs from it.  `main --config=modic_changes
--help` lists every field.  Results: README.md, "Measured".
"""

from ml_collections import ConfigDict

from mskjax.experiment import Variants, package


def phantom() -> ConfigDict:
    """Generated spines, small networks; minutes on two CPU cores."""
    return ConfigDict(
        {
            "system": "modic_changes",
            "data": {
                "cohort": "modic_changes",
                "config": "phantom",
                "options": {"patients": 60, "seed": 0},
                "folds": 2,
                "validation_fraction": 0.0,  # the last weights are used: none to select
            },
            "options": {
                # The first is the one that end-to-end figures are of.
                "normalisations": (
                    "z_score_volume",
                    "z_score_crop",
                    "none",
                    "min_max",
                    "percentile",
                    "landmarks",
                    "tissue_reference",
                ),
            },
            "stages": {
                "boxes": {
                    "spacing_mm": 2.0,
                    "channels": ("t2",),
                    "confidence": 0.2,
                    "model": {
                        "widths": (16, 32, 32),
                        "hidden": 64,
                        "anchor_sizes": ((10.0,), (16.0,)),
                    },
                    "train": {
                        "steps": 500,
                        "learning_rate": 2e-3,
                        "warmup_steps": 20,
                        "clip_norm": 5.0,
                        "ema_decay": 0.95,
                    },
                },
                "grades": {
                    "crop": (3, 24, 32),
                    "extent": 1.3,
                    "model": {"width": 8, "blocks": (1, 1, 1, 1), "norm": "group"},
                    "heads": ("modic", "pfirrmann"),
                    "augmentation": {"slice_shift": 0},
                    "train": {
                        "steps": 150,
                        "batch_size": 16,
                        "learning_rate": 3e-3,
                        "weight_decay": 1e-2,
                        "ema_decay": 0.95,
                        "balance": "weights",
                        "validate_every": 150,
                        "checkpoint_every": 150,
                    },
                },
            },
        }
    )


def spider_midsagittal(config: ConfigDict) -> None:
    """171 real patients of SPIDER, a slice each, 3 seeds; two and a half hours."""
    package(config, "spider_midsagittal")
    _two_cores(config)
    config.stages.grades.crop = (1, 40, 80)


def cohort_small(config: ConfigDict) -> None:
    """Your 30 to 100 patients; about two hours on two CPU cores (an estimate, not measured)."""
    package(config, "cohort")
    _two_cores(config)
    # Three slices cost three times one, so fewer normalisations are compared.
    config.stages.grades.crop = (3, 40, 80)
    config.options.normalisations = ("z_score_volume", "z_score_crop", "none")


def spider(config: ConfigDict) -> None:
    """SPIDER as downloaded (Zenodo 10159290), 3-D; an accelerator."""
    package(config, "spider")
    _large(config)


def cohort(config: ConfigDict) -> None:
    """Your files (tfds_builders/modic_changes/README.md), large networks; an accelerator."""
    package(config, "cohort")
    _large(config)
    config.stages.grades.heads = ("modic", *config.stages.grades.heads[1:])


def _two_cores(config: ConfigDict) -> None:
    """What two cores can train in two hours."""
    config.population = ConfigDict({"seeds": 3})
    config.data.validation_fraction = 0.0  # the last checkpoint is used; nothing is selected
    boxes, grades = config.stages.boxes, config.stages.grades
    boxes.spacing_mm = 1.3
    boxes.model.update(widths=(16, 32, 64, 64), hidden=128, anchor_sizes=((16.0,), (26.0,)))
    boxes.model.anchor_ratios = (0.3, 0.55, 1.0)  # the lowest disc is steep
    boxes.train.update(steps=1500, learning_rate=1e-3, ema_decay=0.99)
    _recipe(grades)
    grades.extent = 2.0
    grades.model.width = 16
    grades.train.update(steps=600, batch_size=12, learning_rate=2e-3)
    grades.train.update(warmup_steps=20, ema_decay=0.98)
    for stage in (boxes, grades):
        stage.train.update(validate_every=300, checkpoint_every=300)


def _recipe(grades: ConfigDict) -> None:
    """Of graders of real discs, whatever their size.

    Few patients have too few discs of each Modic type to train the types (of SPIDER's discs four
    have type 1), so presence leads.  Narrowing and bulging are learnt beside what is reported.
    Chosen on inner folds of SPIDER's first fold's training patients (docs/results.md).  Shifting
    and reversing slices does nothing to crops of one slice.
    """
    grades.heads = ("presence", "pfirrmann", "narrowing", "bulging")
    grades.update(emd_weight=1.0, views=8, augmentation={"slice_shift": 1, "flip_slices": 0.5})
    grades.model.update(norm="batch", dropout=0.3)
    grades.train.update(weight_decay=0.1, balance="none")


def _large(config: ConfigDict) -> None:
    """The paper leaves the sizes open."""
    _recipe(config.stages.grades)
    config.data.validation_fraction = 0.1  # checkpoints are selected
    boxes, grades = config.stages.boxes, config.stages.grades
    boxes.spacing_mm = 0.8
    boxes.model.update(widths=(64, 128, 256, 512), channels=256, hidden=1024, dtype="bfloat16")
    boxes.model.anchor_sizes = ((26.0,), (42.0,))
    boxes.train.batch_size = 16
    grades.update(crop=(9, 112, 144), extent=2.2)
    grades.model.update(width=64, blocks=(3, 4, 6, 3), dtype="bfloat16")
    grades.train.batch_size = 32
    for stage in (boxes, grades):
        stage.train.update(steps=8_000, learning_rate=5e-4, warmup_steps=400)
        stage.train.update(validate_every=400, checkpoint_every=400, ema_decay=0.999, select="best")


get_config = Variants(phantom, cohort_small, spider_midsagittal, spider, cohort)
