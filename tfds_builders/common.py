"""What all cohort builders share: raw files in, a packaged and audited TFDS data set out.

A builder is a package of this folder whose module of the same name defines one `CohortBuilder`:
its features, its graded structures and its configs.  A config names a `Source`, which knows one
layout of raw files.  Packaging is one pass over the studies.  Every fault of the pass is collected
and reported at once, the audit is written beside the records, and TFDS renames the complete folder
to its final name, so nothing half-written ever lies there.
"""

import abc
import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mskjax.config import parse
from mskjax.errors import BadCases, UserError
from mskjax.progress import Progress
from tfds_builders.raw import Example, NoOptions, Source, folder_of, manifest

SPLIT = "studies"  # the one TFDS split: folds are made later, by patient
AUDIT = "audit.json"
# TFDS keeps the examples of one shard in memory while it writes the shard.
STUDIES_PER_SHARD = 8


@dataclasses.dataclass(kw_only=True)
class CohortConfig(tfds.core.BuilderConfig):
    """One cohort that a builder can package.

    Attributes:
      kind: ``real`` or ``phantom``.
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
        options=NoOptions(),
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
        "sex": text,
        "age": real,
        "manufacturer": text,
        "field_strength_t": real,
        "subset": text,
    }


def volume_feature(dtype: type) -> tfds.features.Tensor:
    """An array of three axes of any length."""
    # zlib: an unencoded tensor may have one unknown dimension only.
    return tfds.features.Tensor(shape=(None, None, None), dtype=dtype, encoding="zlib")


class CohortBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of all cohort builders: one example is one study of one patient on its native grid.

    `ShardBasedBuilder` and not `GeneratorBasedBuilder`: the latter sorts examples through
    temporary files that need TensorFlow as soon as a cohort is larger than 1 GB.  Here examples
    lie in the order of their study ids, and two builds give the same bytes.

    Args:
      options: fields of the config's options to change.
      manual_dir: the raw files; None for generated cohorts.
      **kwargs: of `tfds.core.DatasetBuilder`: ``data_dir``, ``config``.

    Raises:
      UserError: an option is unknown or of a wrong type.
    """

    VERSION = tfds.core.Version("1.0.0")

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

    @abc.abstractmethod
    def features(self) -> Mapping[str, Any]:
        """Features of an example beside those that every cohort has.

        Those are ``patient_id``, ``study_id``, ``affine`` (index to RAS mm, float64) and the fields
        of `tables.Metadata`.
        """

    @abc.abstractmethod
    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """The graded structures (cases) of an example: name of the grade to grade, -1 missing."""

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

    def raw_manifest(self) -> str:
        """Hash of the raw files that would be packaged now; see `manifest`."""
        source = self.source()
        return manifest(source, source.studies(), self.manual_dir)

    def package(self) -> Mapping[str, Any]:
        """Packages the cohort unless it is there, and returns its audit.

        Raises:
          BadCases: raw files are wrong; every one of them is listed.
          UserError: there is nothing to package, or no space or right to write.
        """
        try:
            with tempfile.TemporaryDirectory() as unused:  # TFDS insists on a download folder
                self.download_and_prepare(file_format="array_record", download_dir=unused)
        except BaseException as error:
            if isinstance(error, OSError) and self.data_path.exists():
                return self.audit()  # another process packaged the same cohort meanwhile
            self._remove_leftovers()
            if reason := _unwritable(error):
                raise UserError(
                    f"{self.data_dir} cannot be written ({reason}); free space or give another"
                    " data_dir.  Nothing half-written was left there."
                ) from error
            raise
        return self.audit()

    def audit(self) -> Mapping[str, Any]:
        """The audit that was stored when the cohort was packaged."""
        return json.loads((self.data_path / AUDIT).read_text())

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
        del dl_manager  # nothing is downloaded
        self._packing = _Packing(self)
        count = len(self._packing.studies)
        return {
            SPLIT: [
                functools.partial(self._packing.examples, start)
                for start in range(0, count, STUDIES_PER_SHARD)
            ]
        }

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        text = json.dumps(self._packing.audit(), indent=2) + "\n"
        (self.data_path / AUDIT).write_text(text)  # TFDS's temporary folder, renamed afterwards

    def _remove_leftovers(self) -> None:
        """TFDS removes what it wrote; the folders above it and its note on configs stay."""
        config_folder, name_folder = self.data_path.parent, self.data_path.parent.parent
        with contextlib.suppress(OSError):  # not empty: another config or version lies there
            Path(config_folder).rmdir()
        if [p.name for p in Path(name_folder).glob("*")] == [".config"]:
            shutil.rmtree(name_folder)

    def _log_download_bytes(self) -> None:
        """TFDS would announce a download of unknown size."""

    _log_download_done = _log_download_bytes


class _Packing:
    """One pass over a source: yields the examples and keeps the account."""

    def __init__(self, builder: CohortBuilder):
        self._builder = builder
        self._source = builder.source()
        self.studies = sorted(self._source.studies(), key=lambda s: s.study_id)
        self._ledger = self._source.ledger
        self._raw = manifest(self._source, self.studies, builder.manual_dir)
        self._progress = Progress(f"packaging {self._name}", len(self.studies))
        self._digest = hashlib.sha256()
        self._counts: dict[str, Counter[int]] = {}
        self._cases = 0
        if not self.studies:
            self._finish()

    @property
    def _name(self) -> str:
        return f"{self._builder.name}/{self._builder.builder_config.name}"

    def examples(self, start: int) -> Iterator[tuple[str, Example]]:
        """The examples of one shard; once a case is bad, the rest is read only to be checked."""
        for study in self.studies[start : start + STUDIES_PER_SHARD]:
            example = None
            with self._ledger.collecting(study.study_id):
                example = self._source.read(study)
            self._progress.advance()
            if example is not None and not self._ledger.bad:
                self._account(example)
                yield study.study_id, example
        if start + STUDIES_PER_SHARD >= len(self.studies):
            self._finish()

    def audit(self) -> dict[str, Any]:
        """The content of audit.json, in the order in which it is read."""
        builder, config = self._builder, self._builder.builder_config
        return {
            "name": builder.name,
            "config": config.name,
            "version": str(builder.version),
            "options": json.loads(json.dumps(_fields(builder.options))),
            "kind": config.kind,
            "licence": config.licence,
            "citation": config.citation,
            "patients": len({s.patient_id for s in self.studies}),
            "studies": len(self.studies),
            "cases": self._cases,
            "counts": {
                grade: {str(k): n for k, n in sorted(counts.items())}
                for grade, counts in self._counts.items()
            },
            "excluded": [{"id": name, "why": why} for name, why in self._ledger.excluded],
            "notes": list(self._ledger.notes),
            "fingerprint": self._digest.hexdigest(),
            "raw": self._raw,
            "index": [[s.patient_id, s.study_id] for s in self.studies],
        }

    def _account(self, example: Example) -> None:
        update_digest(self._digest, example)
        for case in self._builder.graded(example):
            self._cases += 1
            for grade, value in case.items():
                self._counts.setdefault(grade, Counter())[int(value)] += 1

    def _finish(self) -> None:
        self._progress.close()
        if self._ledger.bad:
            raise BadCases(
                f"{self._name} cannot be packaged, {len(self._ledger.bad)} entries are wrong",
                self._ledger.bad,
            )
        if not self.studies:
            excluded = "; ".join(f"{n}: {why}" for n, why in self._ledger.excluded[:5])
            raise UserError(
                f"{self._builder.manual_dir} holds no study that can be packaged"
                f" ({excluded or 'none was found'}); check manual_dir and the config's options."
            )


def update_digest(digest: Any, value: Any, name: str = "") -> None:
    """Feeds a nested example into a hash, keys in sorted order.

    Args:
      digest: a `hashlib` object.
      value: nested dicts and lists of arrays, strings and numbers.
      name: path of `value` in the example.
    """
    if isinstance(value, Mapping):
        for key in sorted(value):
            update_digest(digest, value[key], f"{name}/{key}")
        return
    if isinstance(value, list | tuple):
        digest.update(f"{name}#{len(value)}\n".encode())
        for i, item in enumerate(value):
            update_digest(digest, item, f"{name}/{i}")
        return
    array = np.asarray(value)
    if array.dtype.kind in "US":
        digest.update(f"{name}={array!s}\n".encode())
        return
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    digest.update(f"{name}:{array.dtype.str}{array.shape}\n".encode() + array.tobytes())


def _fields(options: Any) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}


def _unwritable(error: BaseException) -> str:
    """Why the disk refused, or empty; ArrayRecord reports a full disk as a RuntimeError."""
    if not isinstance(error, OSError | RuntimeError):
        return ""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM):
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return os.strerror(number)
    return ""
