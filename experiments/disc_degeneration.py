"""Lumbar disc degeneration: U-Net finds discs on sagittal T2, SpineNet's grader grades them.

After Ding et al., Chin J Clin Res 2024;37(5):709-713 (mskjax/systems/disc_degeneration says
what is theirs and what is open).

    python -m mskjax.main --config=disc_degeneration --workdir=runs/first
    python -m mskjax.main --config=disc_degeneration:cohort_small --workdir=runs/mine \
        --config.data.manual_dir=FOLDER

Each function is a variant: the default, or what differs from it.  `main --config=disc_degeneration
--help` lists every field.  Results: README.md, "Measured".
"""

from ml_collections import ConfigDict

from mskjax.experiment import Variants, package


def phantom() -> ConfigDict:
    """Generated spines, small networks; minutes on two CPU cores."""
    return ConfigDict(
        {
            "system": "disc_degeneration",
            "data": {
                "cohort": "disc_degeneration",
                "config": "phantom",
                "options": {"patients": 24, "seed": 0},
                "folds": 2,
            },
            "options": {
                # Mild, moderate, severe; another reading of the paper: ((1, 2), (3, 4), (5,)).
                "severity": ((1, 2), (3,), (4, 5)),
            },
            "stages": {
                "regions": {
                    "spacing_mm": 2.0,
                    "patch": (96, 64),
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
                    "crop": (5, 16, 32),
                    "model": {"width": 8, "blocks": (1, 1, 1, 1), "norm": "group"},
                    "heads": ("pfirrmann", "narrowing", "bulging"),
                    "emd_weight": 1.0,
                    "train": {
                        "steps": 400,
                        "batch_size": 16,
                        "learning_rate": 2e-3,
                        "weight_decay": 1e-2,
                        "ema_decay": 0.95,
                        "checkpoint_every": 200,
                    },
                },
            },
        }
    )


def spider_t2space(config: ConfigDict) -> None:
    """30 real patients of SPIDER, T2-SPACE, three seeds; about two hours on two cores."""
    package(config, "spider_t2space")
    _two_cores(config)
    config.stages.regions.volume = {"slices": 8, "pitch_mm": 1.8}  # read by dimensions=3 alone


def cohort_small(config: ConfigDict) -> None:
    """Your 30 to 100 patients; about two hours on two CPU cores (an estimate)."""
    package(config, "cohort")
    _two_cores(config)


def spider(config: ConfigDict) -> None:
    """SPIDER as downloaded (Zenodo 10159290), networks of published size; an accelerator."""
    package(config, "spider")
    _published(config)


def cohort(config: ConfigDict) -> None:
    """Your files (tfds_builders/disc_degeneration/README.md), published sizes; an accelerator."""
    package(config, "cohort")
    _published(config)


def spider_volumes(config: ConfigDict) -> None:
    """As `spider`, with a 3-D U-Net over whole volumes; an accelerator."""
    spider(config)
    _volumes(config)


def cohort_volumes(config: ConfigDict) -> None:
    """As `cohort`, with a 3-D U-Net over whole volumes; an accelerator."""
    cohort(config)
    _volumes(config)


def _two_cores(config: ConfigDict) -> None:
    """What two cores can train in two hours on thirty patients."""
    config.population = ConfigDict({"seeds": 3})
    config.data.validation_fraction = 0.0  # the last checkpoint is used; nothing is selected
    regions, grades = config.stages.regions, config.stages.grades
    # Chosen on inner folds of SPIDER's first fold's training patients (docs/results.md).
    regions.update(spacing_mm=0.7, patch=(320, 192), neighbours=1, views=5)
    regions.model.update(widths=(16, 32, 64, 96, 128), stem=2)
    regions.train.update(steps=1_400, batch_size=4, warmup_steps=20, ema_decay=0.99)
    regions.train.checkpoint_every = 100
    _recipe(grades)
    grades.crop = (7, 40, 80)
    grades.model.width = 16
    grades.train.update(steps=450, batch_size=12, learning_rate=1e-3, warmup_steps=20)
    grades.train.update(ema_decay=0.98, checkpoint_every=150)


def _recipe(grades: ConfigDict) -> None:
    """Of graders of real discs, whatever their size (docs/results.md says how it was chosen)."""
    grades.update(emd_weight=1.0, views=8, augmentation={"slice_shift": 1, "flip_slices": 0.5})
    grades.model.update(norm="batch", dropout=0.3)
    grades.train.update(weight_decay=0.1, balance="none")


def _published(config: ConfigDict) -> None:
    """U-Net of Ronneberger 2015, SpineNet's grader."""
    _recipe(config.stages.grades)
    regions, grades = config.stages.regions, config.stages.grades
    regions.update(spacing_mm=0.6, patch=(448, 320), neighbours=1, views=5)
    regions.model.update(widths=(64, 128, 256, 512, 1024), dtype="bfloat16")
    regions.train.update(steps=12_000, batch_size=16, learning_rate=1e-3)
    grades.crop = (9, 112, 224)
    grades.model.update(width=64, blocks=(3, 4, 6, 3), dtype="bfloat16")
    grades.heads = (
        "pfirrmann",
        "modic",
        "narrowing",
        "bulging",
        "herniation",
        "spondylolisthesis",
        "upper_endplate",
        "lower_endplate",
    )
    grades.train.update(steps=10_000, batch_size=32, learning_rate=5e-4)
    for stage in (regions, grades):
        stage.train.update(warmup_steps=500, validate_every=500, checkpoint_every=500)
        stage.train.update(ema_decay=0.999, select="best")


def _volumes(config: ConfigDict) -> None:
    """Residual encoder of nnU-Net's size (Isensee et al. 2024), thin through plane."""
    regions = config.stages.regions
    regions.update(dimensions=3, patch=(384, 256), flip_slices=0.5)
    regions.update(volume={"slices": 16, "pitch_mm": 4.0, "residual_blocks": (1, 3, 4, 6, 6, 6)})
    regions.model.update(widths=(32, 64, 128, 256, 320, 320), norm="instance")
    regions.train.batch_size = 2


get_config = Variants(
    phantom, cohort_small, spider_t2space, spider, spider_volumes, cohort, cohort_volumes
)
