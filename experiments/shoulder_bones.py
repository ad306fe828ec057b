"""Humerus and scapula: three U-Nets and a block-wise AlexNet vote, AlexNet refines the edge.

After Comput Methods Programs Biomed 2021;211:106325 and 2021;200:105862
(mskjax/systems/shoulder_bones says what is theirs and what is open).

    python -m mskjax.main --config=shoulder_bones --workdir=runs/bones
    python -m mskjax.main --config=shoulder_bones:cohort --workdir=runs/mine \
        --config.data.manual_dir=FOLDER --config.data.split=folds_and_official

The last flag divides as published: folds of the patients that your table marks training (five in
the papers), then all of them against the others.

Each function is a variant: the default, or what differs from it.  `main --config=shoulder_bones
--help` lists every field.  Results: README.md, "Measured".
"""

from ml_collections import ConfigDict

from mskjax.experiment import Variants, package


def phantom() -> ConfigDict:
    """Generated shoulders, small networks; minutes on two CPU cores."""
    mirrored = {"flip": 0.5}  # left shoulders look like mirrored right ones
    return ConfigDict(
        {
            "system": "shoulder_bones",
            "data": {
                "cohort": "shoulder_bones",
                "config": "phantom",
                # Of every eight patients five are for training, as in the papers.
                "options": {"patients": 16, "seed": 0},
                "split": "official",
                "folds": 2,
                "validation_fraction": 0.0,
            },
            "stages": {
                "proposals": {
                    "spacing_mm": 1.6,
                    "patch": (80, 80),
                    "model": {"widths": (8, 16, 32, 64)},
                    # 25 pixels are 40 mm.
                    "blocks": {"size": 25, "points": 24, "width": 12, "hidden": 64, "dropout": 0.2},
                    "stride": 3,
                    "vote": "mean",  # AlexNet is unsure of thin bone: it must not outvote a U-Net
                    "augmentation": mirrored,
                    "train": {"steps": 400, "learning_rate": 5e-3, "ema_decay": 0.95},
                },
                "edges": {
                    "spacing_mm": 0.8,  # finer than the slice: three poolings follow
                    "patch": (192, 192),
                    "judge": "mean",
                    "blocks": {"size": 25, "points": 48, "width": 16, "hidden": 64, "dropout": 0.2},
                    "augmentation": mirrored,
                    "train": {
                        "steps": 500,
                        "learning_rate": 3e-3,
                        "warmup_steps": 20,
                        "ema_decay": 0.95,
                    },
                },
            },
        }
    )


def cohort_small(config: ConfigDict) -> None:
    """Your 30 to 100 patients; about two hours on two CPU cores (an estimate, not measured)."""
    package(config, "cohort", split="folds")
    proposals, edges = config.stages.proposals, config.stages.edges
    proposals.update(spacing_mm=1.2, patch=(128, 128))
    proposals.model.widths = (16, 32, 64, 96)
    proposals.blocks.update(size=33, points=32)  # 40 mm still
    proposals.train.update(learning_rate=2e-3, warmup_steps=20)
    for stage in (proposals, edges):
        stage.train.ema_decay = 0.98


def cohort(config: ConfigDict) -> None:
    """Your files (tfds_builders/shoulder_bones/README.md), published sizes; an accelerator."""
    package(config, "cohort", split="folds")
    proposals, edges = config.stages.proposals, config.stages.edges
    proposals.update(spacing_mm=0.6, patch=(256, 256), stride=4, vote="majority")
    proposals.model.update(widths=(64, 128, 256, 512, 1024), dtype="bfloat16")
    proposals.train.update(steps=8_000, learning_rate=5e-4)
    edges.update(spacing_mm=0.4, patch=(384, 384), judge="alexnet")
    edges.train.update(steps=8_000, batch_size=16, learning_rate=3e-4)
    for stage in (proposals, edges):
        # 33 pixels are too few for AlexNet's own stem of 11 x 11 and stride 4.
        stage.blocks.update(size=33, points=128, width=64, hidden=4096, dropout=0.5)
        stage.blocks.dtype = "bfloat16"
        stage.train.update(warmup_steps=400, validate_every=400, checkpoint_every=400)
        stage.train.ema_decay = 0.999


get_config = Variants(phantom, cohort_small, cohort)
