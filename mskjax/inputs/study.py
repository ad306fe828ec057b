"""A new study, read or refused, and what may be said of it."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from mskjax.imaging.series import ImageFile
from mskjax.inputs.scrub import Scrubber
from tfds_builders.images import Images


@dataclasses.dataclass(frozen=True, eq=False)
class Identity:
    """What identifies a study; none of it is printed unless ids are kept.

    Attributes:
      key: what its name is made of.
      own_name: what the user calls it.
      study_uid: StudyInstanceUID; empty where there is none.
      patient_id: PatientID, likewise.
      sources: its files, those that are not read included.
      roots: the paths that were given.
    """

    key: str
    own_name: str
    study_uid: str = ""
    patient_id: str = ""
    sources: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class NewStudy:
    """A study that can be read.

    Attributes:
      name: usable as a file name; says nothing of the patient unless ids are kept.
      files: channel to its file, folder or series, as `CohortBuilder.read_images` takes them.
      chosen: channel to what was taken, in words: ``series 3 of 7: ...``, with SeriesDescription
        where ids are kept.
      remarks: what its reader should know of the choice.
      identity: what identifies it.
      pixel_mm: pixel size of a PNG; NaN where it is not given.
      slice_index: of the slice that is meant; None where it is not given.
    """

    name: str
    files: Mapping[str, ImageFile]
    chosen: Mapping[str, str]
    remarks: tuple[str, ...]
    identity: Identity
    pixel_mm: float = math.nan
    slice_index: int | None = None

    def read(self, read_images: Callable[..., Images]) -> Images:
        """Its images.

        Args:
          read_images: of the cohort's builder.

        Raises:
          UserError: they cannot be read; the sentence names files, so `scrub` it.
        """
        return read_images(self.files, pixel_mm=self.pixel_mm, slice_index=self.slice_index)


@dataclasses.dataclass(frozen=True, eq=False)
class Refused:
    """A study that cannot be used.

    Attributes:
      name: as of `NewStudy`.
      why: one sentence, which names nothing unless ids are kept.
      identity: what identifies it.
    """

    name: str
    why: str
    identity: Identity


def scrub(text: str, study: NewStudy | Refused, keep_ids: bool = False) -> str:
    """A message about a study without what identifies it: see `scrub.Scrubber`.

    Args:
      text: e.g. a `UserError` of its reader, or a `FileNote`.
      study: that it is about.
      keep_ids: escapes control characters alone.
    """
    return _scrubber(study.identity).scrub(text, keep_ids)


@functools.lru_cache(maxsize=64)
def _scrubber(identity: Identity) -> Scrubber:
    return Scrubber(identity.sources, identity.roots)
