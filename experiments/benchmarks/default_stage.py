"""A stage of a default study with the examples that it cuts, for benchmarks of its training."""

from typing import Any

import numpy as np


def cut(name: str) -> tuple[Any, dict[str, np.ndarray]]:
    """A stage, and training examples of the patients that a plan is made with.

    Args:
      name: EXPERIMENT[:VARIANT]/STAGE.

    Returns:
      The stage as its study declares it; N examples, without their ids.
    """
    # Late: a benchmark says first how jax is to run.
    from mskjax import experiment, fields, plan
    from mskjax.config import StudyConfig, parse
    from mskjax.data import pipeline

    study, _, chosen = name.rpartition("/")
    config = parse(StudyConfig, fields.completed(experiment.load(study)).to_dict())
    sample = plan.sample_of(config)
    stage = next(s for s in sample.system.stages if s.name == chosen)
    found = [stage.training_examples(s) for s in sample.studies]
    examples = pipeline.concatenate([e for e in found if e])
    examples.pop("case", None)
    return stage, examples
