"""Lumbar disc degeneration: U-Net finds discs on sagittal T2, SpineNet's grader grades them.

After Ding et al., Chin J Clin Res 2024;37(5):709-713 (mskjax/systems/disc_degeneration.py says
what is theirs and what is open).

    python -m mskjax.main --config=experiments/disc_degeneration.py --workdir=runs/first

Variants (a variant is the default plus the lines it changes):

  phantom        generated spines, small networks; minutes on two CPU cores (the default)
  spider_t2space 30 real patients; about an hour on two CPU cores
                   --config.data.manual_dir=FOLDER
  spider         SPIDER as downloaded (Zenodo 10159290), published network sizes; an accelerator
  cohort         your own files (tfds_builders/disc_degeneration/README.md), published sizes

Results: README.md, "Measured".
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant: str = "phantom") -> ConfigDict:
    """The config of a variant; every field can be set on the command line."""
    config = _phantom()
    config.variant = variant or "phantom"
    variants = {
        "phantom": lambda c: None,
        "spider_t2space": _spider_t2space,
        "spider": _spider,
        "cohort": _cohort,
    }
    if config.variant not in variants:
        raise ValueError(f"no variant {variant!r}; variants: {', '.join(variants)}")
    variants[config.variant](config)
    return config


def _phantom() -> ConfigDict:
    return ConfigDict(
        {
            "system": "disc_degeneration",
            "variant": "phantom",
            "seed": 0,
            "resamples": 10_000,
            "devices": placeholder(int),
            "data": {
                "cohort": "disc_degeneration",
                "config": "phantom",
                "data_dir": "data",
                "manual_dir": placeholder(str),
                "options": {"patients": 24, "seed": 0},
                "split": "folds",
                "splits": placeholder(str),
                "folds": 2,
                "validation_fraction": 0.1,
                "shuffle_labels": False,
            },
            "options": {
                "severity": ((1, 2), (3,), (4, 5)),  # mild, moderate, severe; alternative
                # reading of the paper: ((1, 2), (3, 4), (5,))
            },
            "stages": {
                "regions": {
                    "spacing_mm": 2.0,
                    "patch": (96, 64),
                    "model": {
                        "widths": (16, 32, 64),
                        "norm": "batch",
                        "dtype": "float32",
                    },
                    "augmentation": {},
                    "train": {
                        "steps": 120,
                        "batch_size": 8,
                        "learning_rate": 3e-3,
                        "warmup_steps": 10,
                        "weight_decay": 1e-4,
                        "clip_norm": 1.0,
                        "ema_decay": 0.95,
                        "balance": "none",
                        "validate_every": 40,
                        "checkpoint_every": 60,
                        "log_every": 10,
                        "select": "latest",
                    },
                },
                "grades": {
                    "crop": (5, 16, 32),
                    "extent": 2.0,
                    "model": {
                        "width": 8,
                        "blocks": (1, 1, 1, 1),
                        "norm": "group",
                        "dtype": "float32",
                        "dropout": 0.0,
                    },
                    "heads": ("pfirrmann", "narrowing", "bulging"),
                    "emd_weight": 1.0,
                    "augmentation": {"flip_slices": 0.0},
                    "train": {
                        "steps": 400,
                        "batch_size": 16,
                        "learning_rate": 2e-3,
                        "warmup_steps": 10,
                        "weight_decay": 1e-2,
                        "clip_norm": 1.0,
                        "ema_decay": 0.95,
                        "balance": "none",
                        "validate_every": 100,
                        "checkpoint_every": 200,
                        "log_every": 10,
                        "select": "latest",
                    },
                },
            },
        }
    )


def _spider_t2space(config: ConfigDict) -> None:
    config.data.config = "spider_t2space"
    config.data.options = ConfigDict({})
    config.data.folds = 5
    config.data.validation_fraction = 0.1
    regions, grades = config.stages.regions, config.stages.grades
    regions.spacing_mm = 1.0
    regions.patch = (224, 128)
    regions.model.widths = (16, 32, 64, 96, 128)
    regions.train.steps = 600
    regions.train.batch_size = 6
    regions.train.warmup_steps = 20
    regions.train.validate_every = 150
    regions.train.checkpoint_every = 100
    regions.train.ema_decay = 0.98
    grades.crop = (7, 40, 80)
    grades.model.width = 16
    # Of four recipes (batch or group norm, rate 1e-3 or 2e-3, three or five heads) the one that
    # graded best on SPIDER patients who are not in this cohort (mid-sagittal slices).
    grades.model.norm = "group"
    grades.heads = ("pfirrmann", "narrowing", "bulging")
    grades.augmentation.flip_slices = 0.5
    grades.train.steps = 300
    grades.train.batch_size = 12
    grades.train.learning_rate = 1e-3
    grades.train.warmup_steps = 20
    grades.train.weight_decay = 5e-2
    grades.train.validate_every = 100
    grades.train.checkpoint_every = 100
    grades.train.ema_decay = 0.98


def _published_size(config: ConfigDict) -> None:
    """Full-size networks: U-Net of Ronneberger 2015, SpineNet's grader; one accelerator."""
    config.data.options = ConfigDict({})
    config.data.folds = 5
    regions, grades = config.stages.regions, config.stages.grades
    regions.spacing_mm = 0.6
    regions.patch = (448, 320)
    regions.model.widths = (64, 128, 256, 512, 1024)
    regions.model.dtype = "bfloat16"
    regions.train.steps = 12_000
    regions.train.batch_size = 16
    regions.train.learning_rate = 1e-3
    regions.train.warmup_steps = 500
    regions.train.validate_every = 500
    regions.train.checkpoint_every = 500
    regions.train.ema_decay = 0.999
    regions.train.select = "best"
    grades.crop = (9, 112, 224)
    grades.model.width = 64
    grades.model.blocks = (3, 4, 6, 3)
    grades.model.dtype = "bfloat16"
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
    grades.train.steps = 10_000
    grades.train.batch_size = 32
    grades.train.learning_rate = 5e-4
    grades.train.warmup_steps = 500
    grades.train.validate_every = 500
    grades.train.checkpoint_every = 500
    grades.train.ema_decay = 0.999
    grades.train.select = "best"


def _spider(config: ConfigDict) -> None:
    _published_size(config)
    config.data.config = "spider"


def _cohort(config: ConfigDict) -> None:
    _published_size(config)
    config.data.config = "cohort"
