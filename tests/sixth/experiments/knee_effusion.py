"""Knee effusion (a toy, mskjax.systems.knee_effusion): one variant, seconds on a CPU core.

python -m mskjax.main --config=knee_effusion --workdir=runs/knee --config.data.manual_dir=FOLDER
"""

from ml_collections import ConfigDict

from mskjax.experiment import Variants


def cohort() -> ConfigDict:
    """Your files; networks of no size."""
    train = {"learning_rate": 0.02, "warmup_steps": 2}
    return ConfigDict(
        {
            "system": "knee_effusion",
            "resamples": 50,
            "devices": 1,
            "data": {"cohort": "knee_effusion", "config": "cohort", "folds": 2},
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


get_config = Variants(cohort)
