"""Shards: a few studies of a cohort, packaged by themselves, whole or not at all.

A shard has a file of records and an account: what reading its studies gave beside the records.
Whoever has all accounts has read the cohort; the raw files are not needed any more.
"""

import dataclasses
import json
import os
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mskjax.errors import UserError
from mskjax.locks import Holder
from tfds_builders import fingerprint, outlines
from tfds_builders.raw import Example, RawStudy, Source

STUDIES_PER_SHARD = 8  # what is lost at most, a worker, when packaging is stopped
# Of zlib, whose own default takes most of the time of packaging: four to five times faster, and
# images of 12 bits are 10 to 15 % larger.  Whoever reads need not know.
COMPRESSION = 4
SPLIT = "studies"  # the one TFDS split: folds are made later, by patient


class Unfinished(UserError):
    """Packaging has to stop, but what is finished is right and kept."""


class Builder(Protocol):
    """What a shard asks of a cohort's builder (`common.CohortBuilder`)."""

    name: str
    info: Any

    def source(self) -> Source:
        """A fresh source on the raw files."""

    def parts(self, example: Example) -> Mapping[str, bool]:
        """Which parts of a complete study an example has beside its image."""

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """Its graded structures: name of the grade to grade."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """What reading one study gave.

    Attributes:
      study_id: of the study.
      ledger: what the source came upon (`Ledger.to_json`).
      images: content hashes of its images.
      sized: whether the size of its pixels is known.
      parts: which parts it has beside its image.
      cases: its graded structures.
      trace: what goes into the fingerprint; empty where the study is bad.
      outline: its line of `outlines`.
    """

    study_id: str
    ledger: Mapping[str, Any]
    images: Sequence[str] = ()
    sized: bool = True
    parts: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    cases: Sequence[Mapping[str, int]] = ()
    trace: fingerprint.Trace = ()
    outline: str = ""


@dataclasses.dataclass(frozen=True)
class Account:
    """What packaging one shard gave.

    Attributes:
      entries: one a study, in their order.
      size: bytes of the records; -1 where none were written, since a study is bad.
    """

    entries: Sequence[Entry]
    size: int

    @property
    def is_bad(self) -> bool:
        """Whether a study of the shard has to be mended."""
        return any(entry.ledger["bad"] for entry in self.entries)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the shards of an unfinished package lie.

    Attributes:
      folder: of the unfinished package.
      name: of the cohort.
      studies: how many it has.
    """

    folder: Path
    name: str
    studies: int

    @property
    def package(self) -> Path:
        """What will be the package."""
        return self.folder / "package"

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.studies // STUDIES_PER_SHARD)

    def size(self, shard: int) -> int:
        """Number of studies of a shard."""
        return min(STUDIES_PER_SHARD, self.studies - shard * STUDIES_PER_SHARD)

    @property
    def template(self) -> tfds.core.ShardedFileTemplate:
        """How TFDS names the files of records."""
        return tfds.core.ShardedFileTemplate(
            data_dir=self.package,
            dataset_name=self.name,
            split=SPLIT,
            filetype_suffix="array_record",
        )

    def records(self, shard: int) -> Path:
        """The file of its records."""
        return Path(self.template.sharded_filepath(shard_index=shard, num_shards=self.shards))

    def account(self, shard: int) -> Account | None:
        """The account of a shard; None while the shard is not complete."""
        try:
            content = json.loads(self._account(shard).read_text())
            account = Account([Entry(**e) for e in content["entries"]], content["size"])
            if account.size >= 0 and self.records(shard).stat().st_size != account.size:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return account

    def store(self, shard: int, account: Account) -> None:
        """Writes the account of a shard, whose records are there."""
        path = self._account(shard)
        temporary = self.temporary(path)
        temporary.write_text(json.dumps(dataclasses.asdict(account)))
        os.replace(temporary, path)

    def forget(self, shard: int) -> None:
        """Has a shard packaged anew."""
        self._account(shard).unlink(missing_ok=True)

    def temporary(self, path: Path) -> Path:
        """Where this process writes what will be `path`."""
        return self.folder / "tmp" / f"{path.name}.{socket.gethostname()}.{os.getpid()}"

    def clear(self) -> None:
        """Removes what dead processes of this machine were writing."""
        here = f".{socket.gethostname()}."
        for left in (self.folder / "tmp").iterdir():
            _, found, pid = left.name.rpartition(here)
            if found and pid.isdecimal() and Holder(socket.gethostname(), int(pid), 0).is_dead:
                left.unlink(missing_ok=True)

    def make(self) -> None:
        """Makes the folders."""
        for folder in (self.package, self.folder / "tmp", self.folder / "accounts"):
            folder.mkdir(parents=True, exist_ok=True)

    def _account(self, shard: int) -> Path:
        return self.folder / "accounts" / f"{shard:05d}.json"


class Packer:
    """Packages shards, one study in memory at a time.

    Args:
      builder: of the cohort.

    Attributes:
      source: of the studies.
      studies: what is packaged, in the order of the study ids.
    """

    def __init__(self, builder: Builder):
        self._builder = builder
        self.source = builder.source()
        self.studies: Sequence[RawStudy] = sorted(self.source.studies(), key=lambda s: s.study_id)

    def package(
        self, layout: Layout, shard: int, checking: bool, tell: Callable[[str], None]
    ) -> bool:
        """Packages one shard.

        Args:
          layout: where.
          shard: its number.
          checking: its studies are read only to be checked, and no records are written.
          tell: is called with the id of each study before it is read, and with an empty one after.

        Returns:
          Whether a study is bad, so that there are no records.

        Raises:
          OSError, RuntimeError: the disk refuses.
        """
        first = shard * STUDIES_PER_SHARD
        studies = self.studies[first : first + STUDIES_PER_SHARD]
        entries: list[Entry] = []
        examples = self._examples(studies, entries, tell)
        records = layout.records(shard)
        temporary = layout.temporary(records)
        try:
            if checking:
                for _ in examples:
                    pass
            else:
                self._write(temporary, examples)
            bad = any(entry.ledger["bad"] for entry in entries)
            whole = not (checking or bad)
            account = Account(entries, temporary.stat().st_size if whole else -1)
            if whole:
                os.replace(temporary, records)
            layout.store(shard, account)
        finally:
            temporary.unlink(missing_ok=True)
        return bad

    def _examples(
        self, studies: Sequence[RawStudy], entries: list[Entry], tell: Callable[[str], None]
    ) -> Iterator[Example]:
        """The examples of studies; from the first bad one on they are read only to be checked."""
        bad = False
        for study in studies:
            tell(study.study_id)
            entry, example = self._read(study)
            entries.append(entry)
            tell("")
            bad = bad or example is None
            if example is not None and not bad:
                yield example

    def _read(self, study: RawStudy) -> tuple[Entry, Example | None]:
        example = None
        ledger = self.source.ledger
        with ledger.apart() as found, ledger.collecting(study.study_id):
            example = self.source.read(study)
        if example is None or found.bad:
            return Entry(study.study_id, found.to_json()), None
        features = self._builder.info.features
        entry = Entry(
            study_id=study.study_id,
            ledger=found.to_json(),
            images=fingerprint.image_hashes(example),
            sized=bool(example["pixel_size_known"]),
            parts={k: bool(v) for k, v in self._builder.parts(example).items()},
            cases=[{k: int(v) for k, v in c.items()} for c in self._builder.graded(example)],
            trace=fingerprint.trace(features, example),
            outline=outlines.line(features, example),
        )
        return entry, example

    def _write(self, path: Path, examples: Iterator[Example]) -> None:
        features = self._builder.info.features
        serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
        encoded = _encoder(features)
        writer = ArrayRecordWriter(str(path), "group_size:1")  # as TFDS writes
        try:
            for example in examples:
                stored = serializer.get_tf_example(encoded(example))
                # Every process has an order of its own for the fields unless it is told not to.
                writer.write(stored.SerializeToString(deterministic=True))
        finally:
            writer.close()


def _encoder(
    features: tfds.features.FeaturesDict,
) -> Callable[[Example], Mapping[str, Any]]:
    """What makes of an example what ``features.encode_example`` does, but for zlib's effort."""
    packed = [
        name
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Tensor) and _is_packed(feature)
    ]
    plain = tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(shape=f.shape, dtype=f.np_dtype, encoding="bytes")
            if name in packed
            else f
            for name, f in features.items()
        }
    )

    def encoded(example: Example) -> Mapping[str, Any]:
        found = dict(plain.encode_example(example))
        for name in packed:
            volume = found[name]
            if isinstance(volume, Mapping):  # with its shape, which is not that of all studies
                found[name] = {**volume, "value": zlib.compress(volume["value"], COMPRESSION)}
            else:
                found[name] = zlib.compress(volume, COMPRESSION)
        return found

    return encoded


def _is_packed(feature: Any) -> bool:
    return getattr(feature.to_json_content(), "encoding", "") == "zlib"


def read(path: Path, i: int) -> bytes:
    """One record of a shard.

    Raises:
      RuntimeError: the file is damaged.
    """
    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
    try:
        (record,) = reader.read([i])
        return record
    finally:
        reader.close()
