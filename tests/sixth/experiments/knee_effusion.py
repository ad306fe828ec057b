"""Knee effusion (a toy, mskjax.systems.knee_effusion): one variant, seconds on a CPU core.

    python -m mskjax.main --config=experiments/knee_effusion.py --workdir=runs/knee \
        --config.data.manual_dir=FOLDER
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant: str = "cohort") -> ConfigDict:
    """The config; every field can be set on the command line."""
    if variant != "cohort":
        raise ValueError(f"no variant {variant!r}; variants: cohort")
    train = {"batch_size": 8, "learning_rate": 0.02, "warmup_steps": 2, "select": "latest"}
    return ConfigDict(
        {
            "system": "knee_effusion",
            "variant": "cohort",
            "resamples": 50,
            "devices": 1,
            "data": {
                "cohort": "knee_effusion",
                "config": "cohort",
                "data_dir": "data",
                "manual_dir": placeholder(str),
                "folds": 2,
            },
            "stages": {
                "regions": {
                    "spacing_mm": 2.0,
                    "patch": (24, 24),
                    "model": {"widths": (4,)},
                    "train": {**train, "steps": 40},
                },
                "grades": {
                    "crop": (32, 32),
                    "model": {
                        "name": "vgg19",
                        "norm": "none",
                        "width": 2,
                        "blocks": (1, 1, 1, 1, 1),
                        "hidden": 4,
                        "pool": (1, 1),
                    },
                    "heads": ("effusion",),
                    "train": {**train, "steps": 4},
                },
            },
        }
    )
