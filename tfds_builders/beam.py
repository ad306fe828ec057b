"""Shards packaged by an Apache Beam runner, for clusters that have one.

All workers must see the raw files and the data folder under the paths of this process.  TFDS's own
Beam path writes under final names and keeps no account, so the pipeline is ours; it is one step.
"""

import os
import shlex
import threading
from collections.abc import Sequence

from mskjax.errors import UserError
from tfds_builders.crew import Spec
from tfds_builders.shards import Packer

VARIABLE = "MSKJAX_BEAM"


def options() -> list[str]:
    """Beam's options from ``MSKJAX_BEAM``, e.g. ``--runner=FlinkRunner``; none: no Beam."""
    return shlex.split(os.environ.get(VARIABLE, ""))


def package(spec: Spec, shards: Sequence[int], checking: bool) -> None:
    """Packages shards; returns when all are done.

    Args:
      spec: of the cohort.
      shards: their numbers.
      checking: studies are read only to be checked.

    Raises:
      UserError: Beam is not installed.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            f"{VARIABLE} is set, but Apache Beam cannot be imported ({error}); pip install"
            " 'mskjax[beam]', or unset it."
        ) from None
    with apache_beam.Pipeline(options=PipelineOptions(options())) as pipeline:
        (
            pipeline
            | apache_beam.Create(list(shards))
            | apache_beam.Reshuffle()
            | apache_beam.Map(_package, spec, checking)
        )


_packers: dict[str, Packer] = {}  # one cohort as a rule; its tables are read once a process
_using = threading.Lock()  # a runner may have several threads in a process; a source serves one


def _package(shard: int, spec: Spec, checking: bool) -> None:
    name = str(spec.layout.folder)
    with _using:
        if name not in _packers:
            _packers[name] = Packer(spec.builder())
        _packers[name].package(spec.layout, shard, checking, lambda study: None)
