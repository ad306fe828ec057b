"""A DICOM series as the list of its files, wherever these lie."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Series:
    """What `files.read_volume` takes for a series that is not a folder of its own.

    Attributes:
      files: of the series, one or more.
      frames: file to the numbers, from 0, of its frames that are meant, where these are not all:
        one stack of a multi-frame file.
    """

    files: tuple[Path, ...]
    frames: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("a series has a file")

    @property
    def where(self) -> Path:
        """The file, or the folder that holds all of them, for messages."""
        if len(self.files) == 1:
            return self.files[0]
        try:
            return Path(os.path.commonpath([file.parent for file in self.files]))
        except ValueError:  # absolute and relative paths, or two drives
            return self.files[0].parent

    def __str__(self) -> str:
        return str(self.where)


# Where the image of a study is: a file, the folder of a DICOM series, or a list of its files.
ImageFile = Path | Series
