"""Humerus and scapula: three U-Nets and a block-wise AlexNet vote, AlexNet refines the edge.

After Comput Methods Programs Biomed 2021;211:106325 and 2021;200:105862
(mskjax/systems/shoulder_bones.py says what is theirs and what is open).

    python -m mskjax.main --config=experiments/shoulder_bones.py --workdir=runs/bones

Variants (a variant is the default plus the lines it changes):

  phantom   generated shoulders, small networks; minutes on two CPU cores (the default)
  cohort    your own files (tfds_builders/shoulder_bones/README.md), published sizes: U-Nets of 64
            to 1024 channels, AlexNet at full width; an accelerator
              --config.data.manual_dir=FOLDER
              --config.data.split=folds_and_official   as published: folds of the patients that your
                table marks training (five in the papers), then all of them against the others

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
            "system": "shoulder_bones",
            "variant": "phantom",
            "seed": 0,
            "resamples": 10_000,
            "devices": placeholder(int),
            "data": {
                "cohort": "shoulder_bones",
                "config": "phantom",
                "data_dir": "data",
                "manual_dir": placeholder(str),
                # Of every eight patients five are for training, as in the papers.
                "options": {"patients": 16, "seed": 0},
                "split": "official",
                "splits": placeholder(str),
                "folds": 2,
                "validation_fraction": 0.0,
                "shuffle_labels": False,
            },
            "options": {},
            "stages": {
                "proposals": {
                    "spacing_mm": 1.6,
                    "patch": (80, 80),
                    "model": {"widths": (8, 16, 32, 64), "norm": "batch", "dtype": "float32"},
                    "blocks": {
                        "size": 25,  # pixels: 40 mm
                        "points": 24,
                        "at_once": 1024,
                        "width": 12,
                        "stem": (3, 1, 1),
                        "hidden": 64,
                        "dropout": 0.2,
                        "dtype": "float32",
                    },
                    "stride": 3,
                    "vote": "majority",  # or "any", "all"
                    "smallest_part": 0.05,
                    "augmentation": {"flip": 0.5},  # left shoulders look like mirrored right ones
                    "train": {
                        "steps": 400,
                        "batch_size": 8,
                        "learning_rate": 5e-3,
                        "warmup_steps": 10,
                        "weight_decay": 1e-4,
                        "clip_norm": 1.0,
                        "ema_decay": 0.95,
                        "balance": "none",
                        "validate_every": 100,
                        "checkpoint_every": 100,
                        "log_every": 10,
                        "select": "latest",
                    },
                },
                "edges": {
                    "spacing_mm": 0.8,  # finer than the slice: three poolings follow
                    "patch": (192, 192),
                    "blocks": {
                        "size": 25,
                        "points": 48,
                        "at_once": 1024,
                        "width": 16,
                        "stem": (3, 1, 1),
                        "hidden": 64,
                        "dropout": 0.2,
                        "dtype": "float32",
                    },
                    "band_mm": 3.0,
                    "augmentation": {"flip": 0.5},  # left shoulders look like mirrored right ones
                    "train": {
                        "steps": 500,
                        "batch_size": 8,
                        "learning_rate": 3e-3,
                        "warmup_steps": 20,
                        "weight_decay": 1e-4,
                        "clip_norm": 1.0,
                        "ema_decay": 0.95,
                        "balance": "none",
                        "validate_every": 100,
                        "checkpoint_every": 100,
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
    config.data.split = "folds"
    config.data.folds = 5
    proposals, edges = config.stages.proposals, config.stages.edges
    proposals.spacing_mm = 0.6
    proposals.patch = (256, 256)
    proposals.model.widths = (64, 128, 256, 512, 1024)
    proposals.model.dtype = "bfloat16"
    proposals.stride = 4
    proposals.train.steps = 8_000
    proposals.train.batch_size = 8
    proposals.train.learning_rate = 5e-4
    proposals.train.warmup_steps = 400
    edges.spacing_mm = 0.4
    edges.patch = (384, 384)
    edges.train.steps = 8_000
    edges.train.batch_size = 16
    edges.train.learning_rate = 3e-4
    edges.train.warmup_steps = 400
    for stage in (proposals, edges):
        stage.blocks.size = 33  # too small for AlexNet's own stem of 11 x 11 and stride 4
        stage.blocks.points = 128
        stage.blocks.width = 64
        stage.blocks.hidden = 4096
        stage.blocks.dropout = 0.5
        stage.blocks.dtype = "bfloat16"
        stage.train.validate_every = 400
        stage.train.checkpoint_every = 400
        stage.train.ema_decay = 0.999
