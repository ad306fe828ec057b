"""Packaging a cohort: its shards side by side, then the account of all of them.

What is finished survives whatever ends the process, and the next one goes on from there.  Several
processes, on one machine or on several that share a folder, may package one cohort together: each
takes the shards that nobody else works on, and whoever comes last puts them together.
"""

import dataclasses
import hashlib
import inspect
import json
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import tensorflow_datasets as tfds

import mskjax
from mskjax.errors import BadCases, UserError
from mskjax.progress import Progress, say
from tfds_builders import audit, beam, crew, shards
from tfds_builders.claims import Claims
from tfds_builders.fingerprint import Trace, fingerprint
from tfds_builders.outlines import OUTLINES, outline_of
from tfds_builders.raw_files import RawFiles, Stamp
from tfds_builders.shards import SPLIT, Entry, Layout, Packer, Unfinished

AUDIT = "audit.json"
RAW = "raw.json"  # beside the audit: `RawFiles`
PARTIAL = ".partial-"  # in the name of what is not complete yet
_LAST = "publish"  # the claim of whoever puts the shards together
_READERS = 4  # threads that decode: four keep up with one that hashes
_WAIT_S = 1.0


class Builder(shards.Builder, audit.Builder, Protocol):
    """What packing asks of a cohort's builder (`common.CohortBuilder`)."""

    manual_dir: Path | None

    def raw_files(self, known: Mapping[str, Stamp]) -> RawFiles:
        """The raw files, hashed."""

    def arguments(self) -> Mapping[str, Any]:
        """What makes the same builder in another process."""


class Packing:
    """One packaging of a cohort.

    Args:
      builder: of the cohort.

    Attributes:
      key: names the content: options, raw files, and the code that reads them.

    Raises:
      UserError: there is nothing to package.
    """

    def __init__(self, builder: Builder):
        self._builder = builder
        self._packer = Packer(builder)
        self._studies, self._source = self._packer.studies, self._packer.source
        self._raw = builder.raw_files({})
        self._audit = audit.Audit(builder, self._studies, self._source.ledger, self._raw)
        self.key = self._key()
        if not self._studies:
            self._refuse()

    @property
    def _name(self) -> str:
        return f"{self._builder.name}/{self._builder.base_config}"

    def layout(self, place: Path) -> Layout:
        """Where the shards lie until the package is complete: beside its place."""
        folder = place.with_name(f"{place.name}{PARTIAL}{self.key}")
        return Layout(folder, self._builder.name, len(self._studies))

    def run(self, layout: Layout, claims: Claims) -> bool:
        """Packages what is not packaged yet, and completes ``layout.package``.

        Args:
          layout: where.
          claims: of this process, in the folder of the layout.

        Returns:
          Whether this process completed it, and not another one.

        Raises:
          BadCases: raw files are wrong; every one of them is listed.
          Unfinished: it has to be stopped, but what is finished is kept.
          OSError, RuntimeError: the disk refuses, or another process has removed the folder.
        """
        (layout.package / RAW).write_text(self._raw.to_json())
        self._run_shards(layout, claims)
        while not claims.take(_LAST):
            if not layout.folder.exists():
                return False
            time.sleep(_WAIT_S)
        self._add_up(layout)
        self._complete(layout)
        return True

    def _run_shards(self, layout: Layout, claims: Claims) -> None:
        left, bad = [], bool(self._source.ledger.bad)
        for shard in range(layout.shards):
            if account := layout.account(shard):
                bad = bad or account.is_bad
            else:
                left.append(shard)
        if done := layout.studies - sum(map(layout.size, left)):
            say(f"packaging {self._name}: {done} of {layout.studies} studies are there already")
        if beam.options():
            beam.package(self._spec(layout), left, bad)
            return
        progress = Progress(f"packaging {self._name}", layout.studies, done)
        count = min(crew.workers(), len(left))
        hands = (
            crew.Crew(self._spec(layout), count) if count > 1 else crew.Alone(self._packer, layout)
        )
        with hands:
            _share_out(hands, layout, claims, left, bad, progress)
        progress.close()

    def _spec(self, layout: Layout) -> crew.Spec:
        cls = type(self._builder)
        return crew.Spec(
            cls.__module__,
            cls.__qualname__,
            self._builder.arguments(),
            layout,
            [study.study_id for study in self._studies],
        )

    def _add_up(self, layout: Layout) -> None:
        """The accounts of all studies, in order; nothing of it is kept but the sums."""
        for study, (_, _, entry) in zip(self._studies, _entries(layout), strict=True):
            self._audit.add(study, entry)
        if self._source.ledger.bad:
            self._refuse()
        features = self._builder.info.features
        outlines = (outline_of(features, entry.outline) for _, _, entry in _entries(layout))
        self._source.ledger.notes += self._source.remarks(outlines)

    def _complete(self, layout: Layout) -> None:
        """Writes what lies beside the records."""
        progress = Progress(f"hashing {self._name}", layout.studies)
        digest = fingerprint(_traced(layout, self._builder.info.features, progress))
        progress.close()
        content = json.dumps(self._audit.content(digest), indent=2) + "\n"
        (layout.package / AUDIT).write_text(content)
        with (layout.package / OUTLINES).open("w") as file:
            file.writelines(f"{entry.outline}\n" for _, _, entry in _entries(layout))
        info = self._builder.info
        records = [layout.records(shard) for shard in range(layout.shards)]
        split = tfds.core.SplitInfo(
            name=SPLIT,
            shard_lengths=[layout.size(shard) for shard in range(layout.shards)],
            num_bytes=sum(path.stat().st_size for path in records),
            filename_template=layout.template,
        )
        info.set_splits(tfds.core.SplitDict([split]))
        info.write_to_directory(layout.package)

    def _key(self) -> str:
        """Whatever changes it makes finished shards worthless."""
        state = hashlib.sha256(mskjax.__version__.encode())
        options = dataclasses.asdict(self._builder.options)
        content = [str(self._builder.version), options, self._raw.digest]
        state.update(json.dumps(content, sort_keys=True, default=str).encode())
        for path in _code(type(self._builder)):
            state.update(path.read_bytes())
        return state.hexdigest()[:12]

    def _refuse(self) -> None:
        ledger = self._source.ledger
        if ledger.bad:
            raise BadCases(
                f"{self._name} cannot be packaged, {len(ledger.bad)} entries are wrong", ledger.bad
            )
        excluded = "; ".join(f"{n}: {why}" for n, why in ledger.excluded[:5])
        raise UserError(
            f"{self._builder.manual_dir} holds no study that can be packaged"
            f" ({excluded or 'none was found'}); check manual_dir and the config's options."
        )


def _share_out(
    hands: crew.Crew | crew.Alone,
    layout: Layout,
    claims: Claims,
    left: list[int],
    bad: bool,
    progress: Progress,
) -> None:
    """Has all shards of `left` packaged, by these hands or by other processes."""

    def tell(study: str) -> None:
        if not study:
            progress.advance()

    def is_free(shard: int) -> bool:
        """Whether this process takes it; where another one was faster, it is left no longer."""
        if shard in running or not hands.idle or not claims.take(f"{shard:05d}"):
            return False
        if layout.account(shard) is None:
            return True
        finish(shard)
        for _ in range(layout.size(shard)):
            progress.advance()
        return False

    def finish(shard: int) -> None:
        left.remove(shard)
        claims.release(f"{shard:05d}")

    running: set[int] = set()
    is_said = False
    while left:
        for shard in filter(is_free, tuple(left)):
            hands.give(shard, bad)
            running.add(shard)
        if not running and left:
            if not is_said:
                holder = claims.holder(f"{left[0]:05d}") or "another process"
                say(f"waiting for {len(left)} shards that {holder} packages, or until it is silent")
                is_said = True
            time.sleep(_WAIT_S)
        elif running and (news := hands.hear(tell)):
            shard, is_bad = news
            bad = bad or is_bad
            running.remove(shard)
            finish(shard)


def _entries(layout: Layout) -> Iterator[tuple[int, int, Entry]]:
    """Shard, place in it, and entry of each study; one shard in memory at a time."""
    for shard in range(layout.shards):
        account = layout.account(shard)
        if account is None:
            raise Unfinished(f"{layout.records(shard)} was changed; run the same command again.")
        for i, entry in enumerate(account.entries):
            yield shard, i, entry


def _traced(
    layout: Layout, features: Any, progress: Progress
) -> Iterator[tuple[Trace, Mapping[str, Any]]]:
    """Trace and decoded features of each study, in order, decoded a few studies ahead."""
    ahead: deque[tuple[Trace, Future]] = deque()
    readers = min(crew.workers(), _READERS)
    with ThreadPoolExecutor(readers) as pool:
        for shard, i, entry in _entries(layout):
            ahead.append((entry.trace, pool.submit(_decoded, layout, features, shard, i)))
            if len(ahead) > readers:
                trace, study = ahead.popleft()
                yield trace, study.result()
                progress.advance()
        for trace, study in ahead:
            yield trace, study.result()
            progress.advance()


def _decoded(layout: Layout, features: Any, shard: int, i: int) -> Mapping[str, Any]:
    try:
        return features.deserialize_example_np(shards.read(layout.records(shard), i))
    except (RuntimeError, ValueError, zlib.error) as error:
        layout.forget(shard)
        raise Unfinished(
            f"{layout.records(shard)} is damaged ({error}); run the same command again, which"
            " packages its studies anew."
        ) from error


def _code(cls: type) -> list[Path]:
    """The files whose change may change what is packaged."""
    own = Path(inspect.getfile(cls)).parent
    shared = Path(__file__).parent
    return [
        *sorted(shared.glob("*.py")),
        *sorted((shared / "phantoms").glob("*.py")),
        *sorted(Path(mskjax.__file__).parent.glob("imaging/**/*.py")),
        *sorted(own.rglob("*.py")),
    ]
