"""Vertebral fracture, benign or malignant, on paired T1 and T2: ResNet-50 on the abnormal segment.

After Yeh et al., PMC9764339 (mskjax/systems/vertebral_fracture says what is theirs and what is
open).

    python -m mskjax.main --config=vertebral_fracture --workdir=runs/fracture
    python -m mskjax.main --config=vertebral_fracture:cohort --workdir=runs/mine \
        --config.data.manual_dir=FOLDER \
        --config.stages.grades.model.pretrained=resnet50.pth   # ImageNet weights (README.md)

Each function is a variant: the default, or what differs from it.  `main
--config=vertebral_fracture --help` lists every field.  Results: README.md, "Measured".
"""

from ml_collections import ConfigDict

from mskjax.experiment import Variants, package


def phantom() -> ConfigDict:
    """Generated spines, small networks; minutes on two CPU cores."""
    return ConfigDict(
        {
            "system": "vertebral_fracture",
            "data": {
                "cohort": "vertebral_fracture",
                "config": "phantom",
                "options": {"patients": 200, "seed": 0},
                "folds": 2,
            },
            "stages": {
                "segments": {
                    "spacing_mm": 2.0,
                    "patch": (112, 80),
                    # Blocks of 2 x 2 pixels as channels: twice as fast, boxes as good.
                    "model": {"widths": (16, 32, 64, 96), "stem": 2},
                    "train": {
                        "steps": 600,
                        "learning_rate": 3e-3,
                        "ema_decay": 0.98,
                        "validate_every": 300,
                        "checkpoint_every": 300,
                    },
                },
                "grades": {
                    "crop": (48, 48),
                    "margin": 0.25,
                    "model": {
                        "name": "resnet50",
                        "width": 16,
                        "blocks": (1, 1, 1, 1),
                        "mix": True,  # 1x1 convolution from six channels to three, as published
                    },
                    "heads": ("malignant",),
                    "augmentation": {"translation": 0.1},
                    "train": {
                        "steps": 240,
                        "batch_size": 16,
                        "learning_rate": 4e-3,
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
    segments, grades = config.stages.segments, config.stages.grades
    segments.update(spacing_mm=1.2, patch=(224, 144))
    segments.model.stem = 1
    segments.train.update(learning_rate=2e-3, warmup_steps=20, checkpoint_every=100)
    grades.crop = (96, 96)
    grades.train.update(steps=500, learning_rate=1e-3, ema_decay=0.98, checkpoint_every=100)


def cohort(config: ConfigDict) -> None:
    """Your files (tfds_builders/vertebral_fracture/README.md), published sizes; an accelerator."""
    package(config, "cohort", folds=10)
    segments, grades = config.stages.segments, config.stages.grades
    segments.update(spacing_mm=0.8, patch=(320, 224))
    segments.model.update(widths=(64, 128, 256, 512, 1024), stem=1, dtype="bfloat16")
    segments.train.update(steps=6_000, batch_size=16, learning_rate=1e-3)
    segments.train.update(warmup_steps=300, validate_every=300, checkpoint_every=300)
    grades.crop = (224, 224)
    grades.model.update(width=64, blocks=(3, 4, 6, 3), dtype="bfloat16")
    grades.train.update(steps=4_000, batch_size=32, learning_rate=1e-4)
    grades.train.update(warmup_steps=200, validate_every=200, checkpoint_every=200)
    for stage in (segments, grades):
        stage.train.update(ema_decay=0.999, select="best")


get_config = Variants(phantom, cohort_small, cohort)
