"""What all cohort builders share: raw files in, a packaged and audited TFDS data set out.

A builder is a package of this folder whose module of the same name defines one `CohortBuilder`:
its features, its graded structures and its configs.  A config names a `Source`, which knows one
layout of raw files.  Packaging (`packing`) reads every study once.  All faults are collected and
reported at once, the audit is written beside the records, and the complete folder is renamed to its
final name (`unfinished`), so nothing half-written ever lies there.
"""

import abc
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mskjax.config import parse
from mskjax.errors import UserError
from mskjax.imaging.series import ImageFile
from tfds_builders import unfinished
from tfds_builders.images import Images, Wanted
from tfds_builders.packing import AUDIT
from tfds_builders.raw import Example, OwnOptions, Source, folder_of
from tfds_builders.raw_files import RawFiles, Stamp, raw_files


@dataclasses.dataclass(kw_only=True)
class CohortConfig(tfds.core.BuilderConfig):
    """One cohort that a builder can package.

    Attributes:
      kind: ``real``, ``derived`` or ``phantom``; options that have a ``kind`` say it themselves.
      licence: of the raw data.
      citation: whom to cite.
      options: frozen dataclass instance; the fields a user may change.
      source: makes the source from the options and the raw folder.
      obtain: how to get the raw files; empty for what is generated.
    """

    kind: str
    licence: str
    citation: str
    options: Any
    source: Callable[[Any, Path | None], Source]
    obtain: str = ""


def phantom_config(
    description: str, options: Any, source: Callable[[Any, Path | None], Source]
) -> CohortConfig:
    """The config of generated patients; every builder has one, and it comes first."""
    return CohortConfig(
        name="phantom",
        description=description,
        kind="phantom",
        licence="Apache-2.0",
        citation="mskjax (generated)",
        options=options,
        source=source,
    )


def own_config(source: Callable[[Any, Path | None], Source], obtain: str) -> CohortConfig:
    """The config of the user's own studies."""
    return CohortConfig(
        name="cohort",
        description="The user's own studies",
        kind="real",
        licence="the user's own",
        citation="the user's own",
        options=OwnOptions(),
        source=source,
        obtain=obtain,
    )


def _shared_features() -> dict[str, Any]:
    text, real = tfds.features.Text(), tfds.features.Scalar(np.float32)
    return {
        "patient_id": text,
        "study_id": text,
        # Unencoded, float64 would be stored in the float32 list of a `tf.train.Example`.  As bytes
        # it comes back bit for bit, and like an encoded volume it is read-only.
        "affine": tfds.features.Tensor(shape=(4, 4), dtype=np.float64, encoding="bytes"),
        # The grid of the file, on which predictions are left: the study's axes are turned.
        "stored_affine": tfds.features.Tensor(shape=(4, 4), dtype=np.float64, encoding="bytes"),
        "stored_shape": tfds.features.Tensor(shape=(3,), dtype=np.int32),
        "sex": text,
        "age": real,
        "manufacturer": text,
        "field_strength_t": real,
        "subset": text,
        # False where the file says nothing of it (PNG): lengths are then in pixels, not in mm.
        "pixel_size_known": tfds.features.Scalar(np.bool_),
    }


def volume_feature(dtype: type) -> tfds.features.Tensor:
    """An array of three axes of any length."""
    # zlib: an unencoded tensor may have one unknown dimension only.
    return tfds.features.Tensor(shape=(None, None, None), dtype=dtype, encoding="zlib")


class CohortBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of all cohort builders: one example is one study of one patient on its native grid.

    TFDS reads what is packaged; it does not package: that is one process, starts from zero, and for
    more than 1 GB needs TensorFlow.  Examples lie in the order of their study ids, and two builds
    give the same bytes, whoever packaged which shard.

    Args:
      options: fields of the config's options to change.
      manual_dir: the raw files; None for generated cohorts.
      **kwargs: of `tfds.core.DatasetBuilder`: ``data_dir``, ``config``.

    Attributes:
      channels: names of the volumes of a complete study; the first gives the grid.
      wanted: what each of them must show, to be found among the series of a new study.

    Raises:
      UserError: an option is unknown or of a wrong type.
    """

    VERSION = tfds.core.Version("1.3.0")
    channels: tuple[str, ...]
    wanted: Mapping[str, Wanted]

    def __init__(
        self,
        *,
        options: Mapping[str, Any] | None = None,
        manual_dir: str | Path | None = None,
        **kwargs: Any,
    ):
        super().__init__(file_format="array_record", **kwargs)
        default = self.builder_config.options
        self.options = parse(
            type(default), {**_fields(default), **(options or {})}, "config.data.options"
        )
        self.manual_dir = None if manual_dir is None else Path(manual_dir)
        self._raw: RawFiles | None = None

    @staticmethod
    @abc.abstractmethod
    def read_images(
        files: Mapping[str, ImageFile],
        *,
        pixel_mm: float = math.nan,
        slice_index: int | None = None,
    ) -> Images:
        """The images of one study, as packaging a user's own studies reads them.

        Args:
          files: one of `channels` to its file, or the folder or files of a DICOM series.
          pixel_mm: pixel size of images whose format stores none (PNG); NaN where it is not known.
          slice_index: which slice of a series is meant, 0 being the first as stored; None where
            there is one, or all are read.

        Raises:
          UserError: a file is missing, cannot be read, or is not what the cohort is made of.
        """

    @abc.abstractmethod
    def features(self) -> Mapping[str, Any]:
        """Features of an example beside those that every cohort has.

        Those are ``patient_id``, ``study_id``, what `images.grid_part` says of the grid, and the
        fields of `tables.Metadata`.
        """

    @abc.abstractmethod
    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """The graded structures (cases) of an example: name of the grade to grade, -1 missing."""

    @abc.abstractmethod
    def parts(self, example: Example) -> Mapping[str, bool]:
        """Which parts of a complete study an example has beside its image, e.g. mask and grade."""

    def source(self) -> Source:
        """A fresh source on the raw files.

        Raises:
          UserError: raw files are needed and ``manual_dir`` is not given, or not a folder.
        """
        config = self.builder_config
        if config.obtain:
            if self.manual_dir is None:
                raise UserError(
                    f"{self.name}/{config.name} is not packaged in {self.data_dir_root} yet and"
                    f" needs its raw files: {config.obtain} Then give their folder as manual_dir."
                )
            folder_of(self.manual_dir)
        return config.source(self.options, self.manual_dir)

    @property
    def base_config(self) -> str:
        """Name of the config as declared; a package beside another one has a key behind it."""
        return self.builder_config.name.partition("-")[0]

    def elsewhere(self, *, key: str = "", data_dir: str | Path = "") -> "CohortBuilder":
        """The same builder for another place.

        Args:
          key: for a package beside the first one, in the folder ``CONFIG-<key>``.
          data_dir: for a package in another folder of packaged cohorts.
        """
        declared = self.builder_configs[self.base_config]
        name = f"{declared.name}-{key}"
        other = type(self)(
            options=_fields(self.options),
            manual_dir=self.manual_dir,
            config=dataclasses.replace(declared, name=name) if key else declared.name,
            data_dir=str(data_dir or self.data_dir_root),
        )
        other._raw = self._raw
        return other

    def raw_files(self, known: Mapping[str, Stamp]) -> RawFiles:
        """The raw files that would be packaged now, hashed.

        Args:
          known: stamps of a package of theirs, which save reading files that did not change.

        Raises:
          UserError: as `source`.
        """
        if not self.builder_config.obtain:
            return RawFiles("", {})
        if self._raw is None:
            source = self.source()
            self._raw = raw_files(source, source.studies(), self.manual_dir, known)
        return self._raw

    def arguments(self) -> Mapping[str, Any]:
        """What makes a builder that reads the same, in another process."""
        return {
            "options": _fields(self.options),
            "manual_dir": None if self.manual_dir is None else str(self.manual_dir.absolute()),
            "config": self.base_config,
            "data_dir": str(self.data_dir_root),
        }

    def package(self, place: Path | None = None) -> Mapping[str, Any]:
        """Packages the cohort, or what of it is not packaged yet, and returns its audit.

        Args:
          place: the folder of the package; what lies there is replaced once the new package is
            complete.  None: the builder's own, where nothing lies yet.

        Raises:
          BadCases: raw files are wrong; every one of them is listed.
          UserError: there is nothing to package, or no space or right to write.
        """
        folder = place or Path(self.data_path)
        unfinished.package(self, folder, replace=place is not None)
        return json.loads((folder / AUDIT).read_text())

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{config.description} ({config.kind})",
            features=tfds.features.FeaturesDict({**self.features(), **_shared_features()}),
            citation=config.citation,
            license=config.licence,
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list]:
        raise NotImplementedError("cohorts are packaged by `package`, not by TFDS")


def _fields(options: Any) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
