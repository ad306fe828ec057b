"""Modic changes on paired T1 and T2: Faster R-CNN finds discs, a 3-D CNN grades them.

After Cina et al., Brain & Spine 2024;4:102738 (mskjax/systems/modic_changes.py says what is theirs
and what is open).  All normalisations of `options.normalisations` are compared in one run.

    python -m mskjax.main --config=experiments/modic_changes.py --workdir=runs/modic

Variants (a variant is the default plus the lines it changes):

  phantom             generated spines, small networks; minutes on two CPU cores (the default)
  spider_midsagittal  171 real patients, one slice of T1 and T2 each; an hour on two CPU cores
                        --config.data.manual_dir=FOLDER
  spider              SPIDER as downloaded (Zenodo 10159290), 3-D; an accelerator
  cohort              your own files (tfds_builders/modic_changes/README.md); an accelerator

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
        "spider_midsagittal": _spider_midsagittal,
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
            "system": "modic_changes",
            "variant": "phantom",
            "seed": 0,
            "resamples": 10_000,
            "devices": placeholder(int),
            "data": {
                "cohort": "modic_changes",
                "config": "phantom",
                "data_dir": "data",
                "manual_dir": placeholder(str),
                "options": {"patients": 60, "seed": 0},
                "split": "folds",
                "splits": placeholder(str),
                "folds": 2,
                "validation_fraction": 0.1,
                "shuffle_labels": False,
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
                    "most_boxes": 16,
                    "model": {
                        "widths": (16, 32, 32),
                        "channels": 32,
                        "hidden": 64,
                        "norm": "group",
                        "dtype": "float32",
                        "anchor_sizes": ((10.0,), (16.0,)),
                        "anchor_ratios": (0.3, 0.5, 0.8),
                    },
                    "augmentation": {"rotation": 15.0, "flip": 0.0},
                    "train": {
                        "steps": 500,
                        "batch_size": 8,
                        "learning_rate": 2e-3,
                        "warmup_steps": 20,
                        "weight_decay": 1e-4,
                        "clip_norm": 5.0,
                        "ema_decay": 0.95,
                        "balance": "none",
                        "validate_every": 100,
                        "checkpoint_every": 100,
                        "log_every": 10,
                        "select": "latest",
                    },
                },
                "grades": {
                    "crop": (3, 24, 32),
                    "extent": 1.3,
                    "model": {
                        "width": 8,
                        "blocks": (1, 1, 1, 1),
                        "norm": "group",
                        "dtype": "float32",
                        "dropout": 0.0,
                    },
                    "heads": ("modic", "pfirrmann"),
                    "emd_weight": 0.0,
                    "augmentation": {"flip_slices": 0.0, "slice_shift": 0},
                    "train": {
                        "steps": 150,
                        "batch_size": 16,
                        "learning_rate": 3e-3,
                        "warmup_steps": 10,
                        "weight_decay": 1e-2,
                        "clip_norm": 1.0,
                        "ema_decay": 0.95,
                        "balance": "weights",
                        "validate_every": 150,
                        "checkpoint_every": 150,
                        "log_every": 10,
                        "select": "latest",
                    },
                },
            },
        }
    )


def _spider_midsagittal(config: ConfigDict) -> None:
    config.data.config = "spider_midsagittal"
    config.data.options = ConfigDict({})
    config.data.folds = 5
    config.data.validation_fraction = 0.0  # the last checkpoint is used; nothing is selected
    boxes, grades = config.stages.boxes, config.stages.grades
    boxes.spacing_mm = 1.3
    boxes.model.widths = (16, 32, 64, 64)
    boxes.model.hidden = 128
    boxes.model.anchor_sizes = ((16.0,), (26.0,))
    boxes.model.anchor_ratios = (0.3, 0.55, 1.0)  # the lowest disc is steep
    boxes.train.steps = 1500
    boxes.train.learning_rate = 1e-3
    boxes.train.validate_every = 300
    boxes.train.checkpoint_every = 300
    boxes.train.ema_decay = 0.99
    # Graders are chosen on inner folds of the first fold's training patients (README, "Measured").
    grades.crop = (1, 40, 80)
    grades.extent = 2.0
    grades.model.width = 16
    grades.model.norm = "batch"
    grades.model.dropout = 0.3
    # Type 1 has four discs, type 3 six: only presence can be trained.  Narrowing and bulging are
    # learnt beside the two that are reported.
    grades.heads = ("presence", "pfirrmann", "narrowing", "bulging")
    grades.emd_weight = 1.0
    grades.train.balance = "none"
    grades.train.steps = 600
    grades.train.batch_size = 12
    grades.train.learning_rate = 2e-3
    grades.train.weight_decay = 0.1
    grades.train.warmup_steps = 20
    grades.train.validate_every = 300
    grades.train.checkpoint_every = 300
    grades.train.ema_decay = 0.98


def _published_size(config: ConfigDict) -> None:
    """Large networks, five folds; one accelerator.  The paper leaves the sizes open."""
    config.data.options = ConfigDict({})
    config.data.folds = 5
    boxes, grades = config.stages.boxes, config.stages.grades
    boxes.spacing_mm = 0.8
    boxes.model.widths = (64, 128, 256, 512)
    boxes.model.channels = 256
    boxes.model.hidden = 1024
    boxes.model.anchor_sizes = ((26.0,), (42.0,))
    boxes.model.dtype = "bfloat16"
    boxes.train.steps = 8_000
    boxes.train.batch_size = 16
    boxes.train.learning_rate = 5e-4
    boxes.train.warmup_steps = 400
    boxes.train.validate_every = 400
    boxes.train.checkpoint_every = 400
    boxes.train.ema_decay = 0.999
    boxes.train.select = "best"
    grades.crop = (9, 112, 144)
    grades.extent = 2.2
    grades.model.width = 64
    grades.model.blocks = (3, 4, 6, 3)
    grades.model.dtype = "bfloat16"
    grades.train.steps = 8_000
    grades.train.batch_size = 32
    grades.train.learning_rate = 5e-4
    grades.train.warmup_steps = 400
    grades.train.validate_every = 400
    grades.train.checkpoint_every = 400
    grades.train.ema_decay = 0.999
    grades.train.select = "best"


def _spider(config: ConfigDict) -> None:
    _published_size(config)
    config.data.config = "spider"
    config.stages.grades.heads = ("presence", "pfirrmann")


def _cohort(config: ConfigDict) -> None:
    _published_size(config)
    config.data.config = "cohort"
