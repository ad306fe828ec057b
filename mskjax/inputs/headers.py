"""What headers of DICOM images say that series are told apart and chosen by; no pixel is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import Dataset

from mskjax.errors import UserError
from mskjax.imaging.dicom_fields import whole, written
from mskjax.imaging.dicom_folder import look
from mskjax.imaging.dicom_frames import GROUPS, PLACE, TRAITS, frame_headers, place, traits
from mskjax.imaging.limits import reading

# What `sequence` and `choice` look at.
FACTS = (
    "SOPClassUID", "Modality", "ImageType", "FrameType", "ScanningSequence", "SequenceVariant",
    "ScanOptions", "SequenceName", "MRAcquisitionType", "EchoTime", "EffectiveEchoTime",
    "RepetitionTime", "InversionTime", "InversionTimes", "EchoPulseSequence", "AcquisitionContrast",
    "SpectrallySelectedSuppression", "ComplexImageComponent", "ContrastBolusAgent",
    "DiffusionBValue", "SamplesPerPixel", "SeriesDescription", "ProtocolName",
    "FrameOfReferenceUID", "SliceThickness", "SpacingBetweenSlices",
)  # fmt: skip
_IDS = (
    "StudyInstanceUID", "PatientID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber",
    "StudyDate", "NumberOfFrames",
)  # fmt: skip
_TAGS = (*_IDS, *FACTS, *GROUPS, *TRAITS, *(keyword for keyword, _ in PLACE))

_LONGEST = 256  # characters of a text; patterns are looked for in it

Numbers = tuple[float, ...]


class Plane(NamedTuple):
    """One frame.

    Attributes:
      file: its path.
      frame: number in a multi-frame file, from 0; None of a file of one image.
      where: position (3,), direction cosines of row and column (6,), pixel spacing (2,), in mm;
        None where the header does not place it.
      traits: as `dicom_frames.TRAITS`, empty where not said.
    """

    file: Path
    frame: int | None
    where: tuple[Numbers, Numbers, Numbers] | None
    traits: tuple[str, ...]


class Header(NamedTuple):
    """One image file.

    Attributes:
      file: its path.
      study: (StudyInstanceUID, PatientID), either empty where the header does not say.
      series: SeriesInstanceUID.
      instance: SOPInstanceUID.
      order: SeriesNumber; 0 where it is none.
      shape: rows, columns.
      facts: `FACTS` to their text, of the first frame; without what is empty.
      planes: its frames.
    """

    file: Path
    study: tuple[str, str]
    series: str
    instance: str
    order: int
    shape: tuple[int, int]
    facts: Mapping[str, str]
    planes: tuple[Plane, ...]


class Headers:
    """Reads headers; texts that repeat from file to file are kept once."""

    def __init__(self) -> None:
        self._texts: dict[object, object] = {}

    def read(self, file: Path) -> Header | str:
        """The header of an image, or what the file is instead.

        Raises:
          UserError: it may be an image and cannot be read.
        """
        with reading(file):
            found = look(file, _TAGS)
            if found.kind:
                return found.kind
            dataset = found.header
            count = whole(file, dataset, "NumberOfFrames", 1) or 1
            try:
                frames = frame_headers(file, dataset, count)
            except UserError:  # it is of its series all the same, and no other lacks it
                frames, count = [Dataset()], 1
            facts = tuple(
                (k, text[:_LONGEST])
                for k in FACTS
                if (text := written(frames[0], k) or written(dataset, k))
            )
            ids = {keyword: written(dataset, keyword) for keyword in _IDS}
            number = ids["SeriesNumber"]
            return Header(
                file=file,
                study=self._once((ids["StudyInstanceUID"], ids["PatientID"])),
                series=self._once(ids["SeriesInstanceUID"]),
                instance=ids["SOPInstanceUID"],
                order=int(number) if number.isdecimal() and len(number) < 10 else 0,
                shape=self._once((whole(file, dataset, "Rows"), whole(file, dataset, "Columns"))),
                facts=dict(self._once(facts)),
                planes=tuple(
                    self._plane(file, header, i if count > 1 else None)
                    for i, header in enumerate(frames)
                ),
            )

    def _plane(self, file: Path, header: Dataset, frame: int | None) -> Plane:
        try:
            position, orientation, spacing = place(file, header)
            where = (
                tuple(map(float, position)),
                self._once(tuple(map(float, orientation))),
                self._once(tuple(map(float, spacing))),
            )
        except UserError:  # said in full when it is read
            where = None
        said = traits(header)
        told = tuple(said.get(k, "")[:_LONGEST] for k in TRAITS)
        return Plane(file, frame, where, self._once(told))

    def _once(self, value):
        return self._texts.setdefault(value, value)
