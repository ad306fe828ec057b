"""Packaged cohorts: made if missing, opened for random access.

A cohort lies in ``data_dir/NAME/CONFIG/VERSION/``: TFDS ArrayRecord shards, ``audit.json``, and
``outlines.jsonl``, the studies without the values of their volumes.
NAME is a package of `tfds_builders`, or of a folder of the user's own (`mskjax.extensions`); a new
cohort is a new package, nothing is registered here.
"""

import dataclasses
import difflib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

import tfds_builders
from mskjax import extensions
from mskjax.data import packages
from mskjax.errors import UserError
from tfds_builders.common import CohortBuilder
from tfds_builders.outlines import OUTLINES, Outlines
from tfds_builders.packing import AUDIT
from tfds_builders.records import decode
from tfds_builders.shards import SPLIT

Study = Mapping[str, Any]
Relabelled = Callable[[Study, Study], Study]


class Studies(Sequence):
    """Random access to the studies of a packaged cohort.

    ``studies[i]`` is a dict: strings as str, scalars as numbers, arrays as NumPy, and a sequence of
    records (such as the graded levels) as a dict of arrays, one entry a record.

    Args:
      builder: of a prepared data set.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder):
        self._features = builder.info.features
        self._records = builder.as_data_source(split=SPLIT)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: Any) -> Any:
        if not -len(self) <= i < len(self):
            raise IndexError(f"study {i} of {len(self)}")
        return decode(self._features, self._records[i % len(self)])


@dataclasses.dataclass(frozen=True)
class Cohort:
    """A packaged cohort.

    Attributes:
      audit: what was packaged and what was left out and why (`tfds_builders.common`).
      studies: random access to the studies, in the order of their ids.
      outlines: the same studies without the values of their volumes (`outlines.Unread`); nothing is
        decoded for them.
      index: (patient id, study id) of each study.
      folder: of the package.
    """

    audit: Mapping[str, Any]
    studies: Sequence[Study]
    outlines: Sequence[Study]
    index: Sequence[tuple[str, str]]
    folder: Path

    @functools.cached_property
    def patients(self) -> tuple[str, ...]:
        """The patients' ids, sorted."""
        return tuple(sorted({patient for patient, _ in self.index}))

    def part(self, numbers: Sequence[int]) -> "Cohort":
        """The studies of these numbers alone; the others are not opened."""
        index = tuple(self.index[i] for i in numbers)
        return dataclasses.replace(
            self,
            studies=_Some(self.studies, numbers),
            outlines=_Some(self.outlines, numbers),
            index=index,
        )


class _Some(Sequence):
    """Some of the studies of a cohort."""

    def __init__(self, studies: Sequence[Study], numbers: Sequence[int]):
        self._studies, self._numbers = studies, tuple(numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: Any) -> Any:
        return self._studies[self._numbers[i]]


class _Shuffled(Sequence):
    """Studies with the labels of others."""

    def __init__(self, studies: Sequence[Study], relabelled: Relabelled, seed: int):
        self._studies, self._relabelled = studies, relabelled
        self._donors = np.random.default_rng((seed, 5)).permutation(len(studies))

    def __len__(self) -> int:
        return len(self._studies)

    def __getitem__(self, i: Any) -> Any:
        return self._relabelled(self._studies[i], self._studies[int(self._donors[i])])


def with_shuffled(cohort: Cohort, relabelled: Relabelled, seed: int) -> Cohort:
    """The cohort as a control: each study has the labels of another one.

    Args:
      cohort: stays as it is.
      relabelled: makes, of a study and its donor, the study with the donor's labels.
      seed: of the permutation of studies.
    """
    return dataclasses.replace(
        cohort,
        studies=_Shuffled(cohort.studies, relabelled, seed),
        outlines=_Shuffled(cohort.outlines, relabelled, seed),
    )


def builder_class(name: str) -> type[CohortBuilder]:
    """The builder of ``tfds_builders.<name>.<name>``.

    Raises:
      UserError: there is no such cohort, or the user's own cannot be imported or has no builder.
    """
    known = cohort_names()
    if name not in known:
        raise UserError(f"no cohort {name!r}; {_suggest(name, known)}")
    module = extensions.load(tfds_builders, f"{name}.{name}")
    declared = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, CohortBuilder)
        and value.__module__ == module.__name__
    ]
    if not declared:
        raise UserError(f"{module.__file__} has no builder; declare a subclass of CohortBuilder.")
    return declared[0]


def cohort_names() -> list[str]:
    """Names of all cohorts that can be packaged: packages with a module of their own name.

    Raises:
      UserError: two have the same name.
    """
    return sorted(extensions.found("tfds_builders", tfds_builders.__path__))


def prepare_cohort(
    name: str,
    config: str,
    data_dir: str | Path,
    manual_dir: str | Path | None = None,
    again: bool = False,
    **config_fields: Any,
) -> Cohort:
    """Opens a cohort, and packages it first if it is missing.

    Packages of other options or other raw files may lie beside it.

    Args:
      name: e.g. ``disc_degeneration``.
      config: e.g. ``phantom``.
      data_dir: folder of packaged cohorts.
      manual_dir: the raw files.  Where there is one package only, it may be left out; if given, the
        package is the one made of these very files, by content.
      again: packages anew, see `packages.provide`.
      **config_fields: options of the config to change.

    Raises:
      UserError: unknown name, config or option; raw files missing or wrong (all listed), or not
        what the package of their folder was made of.
    """
    builder = _builder(name, config, data_dir, config_fields, manual_dir)
    return _open(builder, packages.provide(builder, again))


def find_cohort(
    name: str, config: str, data_dir: str | Path, fingerprint: str, **config_fields: Any
) -> Cohort | None:
    """Opens the package of some content, wherever its raw files are; packages nothing.

    Args:
      name: e.g. ``disc_degeneration``.
      config: e.g. ``phantom``.
      data_dir: folder of packaged cohorts.
      fingerprint: of the content.
      **config_fields: options of the config to change.

    Returns:
      None where nothing of this config and these options is packaged.

    Raises:
      UserError: no such cohort or option; its package is damaged, or all that are there have other
        content.
    """
    builder = _builder(name, config, data_dir, config_fields, None)
    fitting = packages.of_options(builder)
    for package in fitting:
        if package.audit["fingerprint"] == fingerprint:
            return _open(builder, package.folder)
    if fitting:
        prints = ", ".join(f"{p.folder} ({p.audit['fingerprint'][:16]})" for p in fitting)
        raise UserError(
            f"no package of {name}/{config} in {data_dir} has the fingerprint {fingerprint[:16]};"
            f" there is {prints}: give the --data_dir of the cohort that the run is of."
        )
    return None


def _builder(
    name: str,
    config: str,
    data_dir: str | Path,
    options: Mapping[str, Any],
    manual_dir: str | Path | None,
) -> CohortBuilder:
    cls = builder_class(name)
    if config not in cls.builder_configs:
        known = list(cls.builder_configs)
        raise UserError(f"cohort {name} has no config {config!r}; {_suggest(config, known)}")
    return cls(
        config=config,
        data_dir=str(Path(data_dir).expanduser()),
        options=options,
        manual_dir=manual_dir,
    )


def _open(builder: CohortBuilder, folder: Path) -> Cohort:
    try:
        # Read with the features that were stored, not with those of today's code.
        packaged = tfds.builder_from_directory(folder)
        split = packaged.info.splits[SPLIT]
        size = sum(path.stat().length for path in split.filepaths)
        if size != split.num_bytes:
            raise ValueError(f"{size} bytes of records, not {int(split.num_bytes)}")
        studies = Studies(packaged)
        audit = json.loads((folder / AUDIT).read_text())
        index = tuple((patient, study) for patient, study in audit["index"])
        outlines = Outlines(folder / OUTLINES, packaged.info.features)
        if not len(studies) == len(outlines) == len(index):
            raise ValueError(
                f"{len(studies)} records and {len(outlines)} outlines for {len(index)} studies"
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(packages.about_damage(builder, folder, error)) from error
    return Cohort(audit, studies, outlines, index, folder)


def _suggest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
