"""Fatty infiltration of the supraspinatus: U-Net finds the fossa on the Y-view, VGG-19 grades it.

After Saavedra et al., Front Med 2024, 10.3389/fmed.2024.1416169
(mskjax/systems/fatty_infiltration.py says what is theirs and what is open).

    python -m mskjax.main --config=fatty_infiltration --workdir=runs/fatty
    python -m mskjax.main --config=fatty_infiltration:cohort --workdir=runs/mine \
        --config.data.manual_dir=FOLDER \
        --config.stages.grades.model.pretrained=vgg19_bn.pth   # ImageNet weights (README.md)

Each function is a variant: the default, or what differs from it.  `main
--config=fatty_infiltration --help` lists every field.  Results: README.md, "Measured".
"""

from ml_collections import ConfigDict

from mskjax.experiment import Variants, package


def phantom() -> ConfigDict:
    """Generated shoulders, small networks; minutes on two CPU cores."""
    return ConfigDict(
        {
            "system": "fatty_infiltration",
            "data": {
                "cohort": "fatty_infiltration",
                "config": "phantom",
                "options": {"patients": 100, "seed": 0},
                "folds": 2,
            },
            "stages": {
                "regions": {
                    "spacing_mm": 1.6,
                    "patch": (96, 96),
                    "model": {"widths": (16, 32, 64)},
                    "train": {
                        "steps": 120,
                        "learning_rate": 3e-3,
                        "ema_decay": 0.95,
                        "validate_every": 40,
                        "checkpoint_every": 60,
                    },
                },
                "grades": {
                    "crop": (48, 48),
                    "model": {
                        "name": "vgg19",
                        "width": 16,
                        "blocks": (1, 1, 2, 2, 2),
                        "hidden": 64,
                        "pool": (1, 1),
                        "dropout": 0.2,
                    },
                    # Tasks A to E are heads of one network, the first is reported first; task D is
                    # always reported; "goutallier" adds the five grades as an ordinal head.
                    "heads": ("A", "D"),
                    "train": {
                        "steps": 240,
                        "batch_size": 16,
                        "learning_rate": 2e-3,
                        "warmup_steps": 20,
                        "weight_decay": 1e-2,
                        "ema_decay": 0.95,
                        "balance": "weights",
                        "validate_every": 80,
                        "checkpoint_every": 120,
                    },
                },
            },
        }
    )


def cohort_small(config: ConfigDict) -> None:
    """Your 30 to 100 patients; about two hours on two CPU cores (an estimate, not measured)."""
    package(config, "cohort", validation_fraction=0.0)  # the last weights are used: none to select
    regions, grades = config.stages.regions, config.stages.grades
    regions.update(spacing_mm=1.0, patch=(192, 192))
    regions.model.widths = (16, 32, 64, 96)
    regions.train.update(steps=600, warmup_steps=20, ema_decay=0.98, checkpoint_every=100)
    grades.crop = (96, 96)
    grades.model.update(hidden=128, pool=(3, 3), dropout=0.3)
    grades.train.update(steps=600, learning_rate=1e-3, ema_decay=0.98, checkpoint_every=100)


def cohort(config: ConfigDict) -> None:
    """Your files (tfds_builders/fatty_infiltration/README.md), published sizes; an accelerator."""
    package(config, "cohort")
    regions, grades = config.stages.regions, config.stages.grades
    regions.update(spacing_mm=0.7, patch=(256, 256))
    regions.model.update(widths=(64, 128, 256, 512, 1024), dtype="bfloat16")
    regions.train.update(steps=8_000, batch_size=16, learning_rate=1e-3)
    regions.train.update(warmup_steps=400, validate_every=400, checkpoint_every=400)
    grades.crop = (224, 224)
    grades.model.update(width=64, blocks=(2, 2, 4, 4, 4), hidden=4096, pool=(7, 7), dropout=0.5)
    grades.model.dtype = "bfloat16"
    grades.train.update(steps=6_000, batch_size=32, learning_rate=1e-4)
    grades.train.update(warmup_steps=300, validate_every=300, checkpoint_every=300)
    for stage in (regions, grades):
        stage.train.update(ema_decay=0.999, select="best")


get_config = Variants(phantom, cohort_small, cohort)
