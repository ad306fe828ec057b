"""Compressed DICOM pixel data, decoded by GDCM in a process of its own.

GDCM is C++ and reads what damaged files contain: it may crash, hang, or ask for memory without end.
So it runs beside the program, within limits of time and memory.  This file is that process's
program, too, which is why it imports nothing of the project.
"""

import contextlib
import faulthandler
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_SECONDS, _VOXELS_PER_SECOND = 2.0, 5e6  # of processor time
_PATIENCE = 5  # seconds by the clock for each of these: the machine may be busy
_BYTES, _BYTES_PER_VOXEL = 4 << 30, 32  # of address space, most of which is libraries


def decode_files(files: Sequence[Path], voxels: int) -> list[np.ndarray | str]:
    """Pixels of DICOM files that hold a pixel module alone.

    Args:
      files: DICOM with file meta information, in a folder that may be written to.
      voxels: of the largest file.

    Returns:
      For each file its pixels, (rows, columns) or (frames, rows, columns), or why it has none.
    """
    seconds = _SECONDS + voxels / _VOXELS_PER_SECOND
    size = _BYTES + _BYTES_PER_VOXEL * voxels
    command = [sys.executable, "-P", __file__, str(seconds), str(size), *map(str, files)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return [_result(file) for file in files]


def _result(file: Path) -> np.ndarray | str:
    pixels, reason = file.with_suffix(".npy"), file.with_suffix(".txt")
    if pixels.exists():
        return np.load(pixels, allow_pickle=False)
    if reason.exists():
        return reason.read_text()
    return "its compressed pixels stop the decoder"


def _limit(seconds: float, size: int) -> None:
    """Ends this process when it has used so many seconds more, or asks for more bytes."""
    if sys.platform == "win32":
        return  # it has the watchdog alone
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    end = math.ceil(used.ru_utime + used.ru_stime + seconds)
    for kind, most in (
        (resource.RLIMIT_CPU, end),
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # a limit that this system does not have
            resource.setrlimit(kind, (soft, hard))


def _main(seconds: float, size: int, files: Sequence[str]) -> None:
    import SimpleITK as sitk  # noqa: N813

    with open(os.devnull, "w") as nowhere:
        for file in files:
            # A watchdog that needs no interpreter: GDCM holds its lock.
            faulthandler.dump_traceback_later(_PATIENCE * seconds, exit=True, file=nowhere)
            _limit(seconds, size)
            try:
                image = sitk.ReadImage(file, imageIO="GDCMImageIO")
                with tempfile.NamedTemporaryFile(dir=Path(file).parent, delete=False) as part:
                    np.save(part, sitk.GetArrayViewFromImage(image))
                os.replace(part.name, Path(file).with_suffix(".npy"))
            except Exception as error:  # whatever it is, it is said of the file
                reason = str(error).rsplit("\n", 1)[-1] or type(error).__name__
                Path(file).with_suffix(".txt").write_text(reason)
            faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    _main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
