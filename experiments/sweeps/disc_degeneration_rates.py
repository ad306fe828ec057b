"""Rates, decay and width of the disc system's two networks, on generated spines.

    python -m mskjax.sweep --config=disc_degeneration_rates --workdir=runs/sweep

Fold 0 of three: its 12 test patients are sealed, so that the best config is tested on patients whom
the search has never seen.  About 50 s a trial on two free CPU cores.

Measured once, kappa of Pfirrmann grades: .918 in the best trial and .868 with the study's own
values (56 discs of 10 validation patients); the best config on the sealed patients .878 (95 %
interval .760 to .948, 65 discs of 12 patients), an optimism of .040.
"""


def get_config() -> dict:
    """See `mskjax.sweeps.declared.SweepConfig`."""
    return {
        "study": "disc_degeneration:phantom",
        "overrides": {
            "data.options.patients": 36,
            "data.folds": 3,
            "data.validation_fraction": 0.4,
        },
        "folds": (0,),
        "trials": 12,
        "startup": 6,
        "space": {
            "stages.grades.train.learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
            "stages.grades.train.weight_decay": {"low": 1e-4, "high": 1e-1, "log": True},
            "stages.grades.model.width": {"choices": (8, 16)},
            "stages.regions.train.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
        },
    }
