"""Vertebral fracture, benign or malignant, on paired T1 and T2: ResNet-50 on the abnormal segment.

After Yeh et al., PMC9764339 (mskjax/systems/vertebral_fracture.py says what is theirs and what is
open).

    python -m mskjax.main --config=experiments/vertebral_fracture.py --workdir=runs/fracture

Variants (a variant is the default plus the lines it changes):

  phantom   generated spines, small networks; minutes on two CPU cores (the default)
  cohort    your own files (tfds_builders/vertebral_fracture/README.md), published sizes:
            six channels, 1x1 convolution, ResNet-50 at 224 x 224, ten folds; an accelerator
              --config.data.manual_dir=FOLDER
              --config.stages.grades.model.pretrained=resnet50.pth   ImageNet weights (README.md)

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
            "system": "vertebral_fracture",
            "variant": "phantom",
            "seed": 0,
            "resamples": 10_000,
            "devices": placeholder(int),
            "data": {
                "cohort": "vertebral_fracture",
                "config": "phantom",
                "data_dir": "data",
                "manual_dir": placeholder(str),
                "options": {"patients": 200, "seed": 0},
                "split": "folds",
                "splits": placeholder(str),
                "folds": 2,
                "validation_fraction": 0.1,
                "shuffle_labels": False,
            },
            "options": {},
            "stages": {
                "segments": {
                    "spacing_mm": 2.0,
                    "patch": (112, 72),
                    "model": {"widths": (16, 32, 64, 96), "norm": "batch", "dtype": "float32"},
                    "augmentation": {},
                    "train": {
                        "steps": 600,
                        "batch_size": 8,
                        "learning_rate": 3e-3,
                        "warmup_steps": 10,
                        "weight_decay": 1e-4,
                        "clip_norm": 1.0,
                        "ema_decay": 0.98,
                        "balance": "none",
                        "validate_every": 300,
                        "checkpoint_every": 300,
                        "log_every": 10,
                        "select": "latest",
                    },
                },
                "grades": {
                    "crop": (48, 48),
                    "margin": 0.25,
                    "scored_slices": 3,
                    "model": {
                        "name": "resnet50",
                        "norm": "batch",
                        "width": 16,
                        "blocks": (1, 1, 1, 1),
                        "mix": True,  # 1x1 convolution from six channels to three, as published
                        "dtype": "float32",
                        "pretrained": placeholder(str),
                        "stride_in_first": False,
                    },
                    "heads": ("malignant",),
                    "emd_weight": 0.0,
                    "augmentation": {"translation": 0.1, "scale": 0.15},
                    "train": {
                        "steps": 240,
                        "batch_size": 16,
                        "learning_rate": 4e-3,
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
    """Full-size networks as published; ten folds by patient; one accelerator."""
    config.data.config = "cohort"
    config.data.options = ConfigDict({})
    config.data.folds = 10
    segments, grades = config.stages.segments, config.stages.grades
    segments.spacing_mm = 0.8
    segments.patch = (320, 224)
    segments.model.widths = (64, 128, 256, 512, 1024)
    segments.model.dtype = "bfloat16"
    segments.train.steps = 6_000
    segments.train.batch_size = 16
    segments.train.learning_rate = 1e-3
    segments.train.warmup_steps = 300
    segments.train.validate_every = 300
    segments.train.checkpoint_every = 300
    segments.train.ema_decay = 0.999
    segments.train.select = "best"
    grades.crop = (224, 224)
    grades.model.width = 64
    grades.model.blocks = (3, 4, 6, 3)
    grades.model.dtype = "bfloat16"
    grades.train.steps = 4_000
    grades.train.batch_size = 32
    grades.train.learning_rate = 1e-4
    grades.train.warmup_steps = 200
    grades.train.validate_every = 200
    grades.train.checkpoint_every = 200
    grades.train.ema_decay = 0.999
    grades.train.select = "best"
