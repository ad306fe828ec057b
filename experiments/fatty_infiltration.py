"""Fatty infiltration of the supraspinatus: U-Net finds the fossa on the Y-view, VGG-19 grades it.

After Saavedra et al., Front Med 2024, 10.3389/fmed.2024.1416169
(mskjax/systems/fatty_infiltration.py says what is theirs and what is open).

    python -m mskjax.main --config=experiments/fatty_infiltration.py --workdir=runs/fatty

Variants (a variant is the default plus the lines it changes):

  phantom   generated shoulders, small networks; minutes on two CPU cores (the default)
  cohort    your own files (tfds_builders/fatty_infiltration/README.md), published sizes:
            VGG-19 at 224 x 224; an accelerator
              --config.data.manual_dir=FOLDER
              --config.stages.grades.model.pretrained=vgg19_bn.pth   ImageNet weights (README.md)

Results: README.md, "Measured".
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant: str = "phantom") -> ConfigDict:
    """The config of a variant; every field can be set on the command line."""
    config = _phantom()
    config.variant = variant or "phantom"
    variants = {"phantom": lambda c: None, "cohort": _cohort}
    if config.variant not in variants:
        raise ValueError(f"no variant {variant!r}; variants: {', '.join(variants)}")
    variants[config.variant](config)
    return config


def _phantom() -> ConfigDict:
    return ConfigDict(
        {
            "system": "fatty_infiltration",
            "variant": "phantom",
            "seed": 0,
            "resamples": 10_000,
            "devices": placeholder(int),
            "data": {
                "cohort": "fatty_infiltration",
                "config": "phantom",
                "data_dir": "data",
                "manual_dir": placeholder(str),
                "options": {"patients": 100, "seed": 0},
                "split": "folds",
                "splits": placeholder(str),
                "folds": 2,
                "validation_fraction": 0.1,
                "shuffle_labels": False,
            },
            "options": {},
            "stages": {
                "regions": {
                    "spacing_mm": 1.6,
                    "patch": (96, 96),
                    "model": {"widths": (16, 32, 64), "norm": "batch", "dtype": "float32"},
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
                    "crop": (48, 48),
                    "margin": 0.1,
                    "model": {
                        "name": "vgg19",
                        "norm": "batch",  # "none" is the plain VGG-19
                        "width": 16,
                        "blocks": (1, 1, 2, 2, 2),
                        "hidden": 64,
                        "pool": (1, 1),
                        "dropout": 0.2,
                        "dtype": "float32",
                        "pretrained": placeholder(str),
                    },
                    # Tasks A to E are heads of one network, the first is reported first; task D is
                    # always reported; "goutallier" adds the five grades as an ordinal head.
                    "heads": ("A", "D"),
                    "emd_weight": 0.0,
                    "augmentation": {},
                    "train": {
                        "steps": 240,
                        "batch_size": 16,
                        "learning_rate": 2e-3,
                        "warmup_steps": 20,
                        "weight_decay": 1e-2,
                        "clip_norm": 1.0,
                        "ema_decay": 0.95,
                        "balance": "weights",
                        "validate_every": 80,
                        "checkpoint_every": 120,
                        "log_every": 10,
                        "select": "latest",
                    },
                },
            },
        }
    )


def _cohort(config: ConfigDict) -> None:
    """Full-size networks as published; five folds by patient; one accelerator."""
    config.data.config = "cohort"
    config.data.options = ConfigDict({})
    config.data.folds = 5
    regions, grades = config.stages.regions, config.stages.grades
    regions.spacing_mm = 0.7
    regions.patch = (256, 256)
    regions.model.widths = (64, 128, 256, 512, 1024)
    regions.model.dtype = "bfloat16"
    regions.train.steps = 8_000
    regions.train.batch_size = 16
    regions.train.learning_rate = 1e-3
    regions.train.warmup_steps = 400
    regions.train.validate_every = 400
    regions.train.checkpoint_every = 400
    regions.train.ema_decay = 0.999
    regions.train.select = "best"
    grades.crop = (224, 224)
    grades.model.width = 64
    grades.model.blocks = (2, 2, 4, 4, 4)
    grades.model.hidden = 4096
    grades.model.pool = (7, 7)
    grades.model.dropout = 0.5
    grades.model.dtype = "bfloat16"
    grades.train.steps = 6_000
    grades.train.batch_size = 32
    grades.train.learning_rate = 1e-4
    grades.train.warmup_steps = 300
    grades.train.validate_every = 300
    grades.train.checkpoint_every = 300
    grades.train.ema_decay = 0.999
    grades.train.select = "best"
