"""Studies read from small DICOM series, with what was found in them."""

from pathlib import Path

import numpy as np
from imaging.dicom_writer import CLASSIC_MR, ENHANCED_MR, header, numbers, oblique
from pydicom.dataset import Dataset

from mskjax.imaging.files import read_volume
from mskjax.imaging.levels import CAVEAT, level_name
from mskjax.imaging.volume import Volume
from mskjax.results.result import Box, Flag, Grade, Mask, Region, Result

ORIGIN = np.array([12.5, -40.25, 7.75])
ROWS, COLUMNS, SLICES = 10, 12, 5
PITCH = 3.0


def identified(rows: int, columns: int, sop_class: str) -> Dataset:
    """An image header with all that its modules require."""
    dataset = header(rows, columns, sop_class)
    dataset.PatientName, dataset.PatientID = "Rossi^Maria", "HOSPITAL-4711"
    dataset.PatientBirthDate, dataset.PatientSex = "19610203", "F"
    dataset.StudyInstanceUID, dataset.StudyID = "1.2.826.0.1.3680043.2.1.77", "ST-9"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.2.1.78"
    dataset.FrameOfReferenceUID = "1.2.826.0.1.3680043.2.1.79"
    dataset.StudyDate, dataset.StudyTime = "20240506", "112233"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "ACC-55512", "Bianchi^Carla"
    return dataset


def classic(folder: Path, sop_class: str = CLASSIC_MR) -> list[Path]:
    """Writes a series, one file per slice, in shuffled order of names."""
    folder.mkdir(parents=True, exist_ok=True)
    frame, files = oblique(), []
    for index in range(SLICES):
        dataset = identified(ROWS, COLUMNS, sop_class)
        dataset.Modality = "CT" if sop_class.endswith("1.1.2") else "MR"
        dataset.ImagePositionPatient = numbers(ORIGIN + frame[:, 2] * PITCH * index)
        dataset.ImageOrientationPatient = numbers(frame[:, :2].T.ravel())
        dataset.PixelSpacing, dataset.SliceThickness = ["0.5", "0.8"], "2.5"
        dataset.PixelData = pixels(index)
        files.append(folder / f"{(index * 7 + 3) % 11:02d}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return sorted(files)


def pixels(index: int) -> bytes:
    rng = np.random.default_rng(index)
    return rng.integers(0, 4000, (ROWS, COLUMNS)).astype(np.uint16).tobytes()


def enhanced(file: Path, echoes: int = 1) -> list[Path]:
    """Writes a multi-frame file whose frames are in no order; all of an echo before the next."""
    file.parent.mkdir(parents=True, exist_ok=True)
    frame, order = oblique(), [3, 0, 4, 2, 1] * echoes
    dataset = identified(ROWS, COLUMNS, ENHANCED_MR)
    dataset.NumberOfFrames = len(order)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ["0.5", "0.8"], "2.5"
    orientation.ImageOrientationPatient = numbers(frame[:, :2].T.ravel())
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index in order:
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = numbers(ORIGIN + frame[:, 2] * PITCH * index)
        group.PlanePositionSequence = [place]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.PixelData = b"".join(map(pixels, order))
    dataset.save_as(file, enforce_file_format=True)
    return [file]


def label_maps(grid: Volume) -> tuple[Mask, Mask]:
    """Vertebrae and two discs, and the discs by level: labels differ from slice to slice."""
    rng = np.random.default_rng(5)
    structures = np.zeros(grid.data.shape, np.uint8)
    inside = (slice(1, -1), slice(1, -1), slice(1, None))  # nothing in the first slice
    structures[inside] = rng.integers(0, 3, structures[inside].shape)
    levels = np.where(structures == 2, 1 + (np.arange(grid.data.shape[1])[:, None] < 5), 0)
    return (
        Mask("", grid.with_data(structures), {1: "vertebra", 2: "disc", 3: "canal"}),
        Mask(
            "levels",
            grid.with_data(levels.astype(np.uint8)),
            {level: level_name(level) for level in (1, 2)},
        ),
    )


def pfirrmann(call: str, *set_: str) -> Grade:
    """A grading with probability .6 for the call and .1 for the rest."""
    classes = ("i", "ii", "iii", "iv", "v")
    shares = {name: 0.6 if name == call else 0.1 for name in classes}
    return Grade("pfirrmann", call, shares, True, set_, 0.8)


def result_of(files: list[Path], *, masks: bool = True, study: str = "a1b2c3d4") -> Result:
    """What was found in a series."""
    path = files[0] if len(files) == 1 else files[0].parent
    grid = read_volume(path)
    found = label_maps(grid) if masks else ()
    box = Box.on(grid.affine, (2, 3, 1), (7, 6, 3))
    return Result(
        study=study,
        system="disc_degeneration",
        title="Disc degeneration: find discs, grade them",
        run={"fingerprint": "0123abcd", "members": ["fold 0", "fold 1"]},
        series={"image": "MR, T2 sagittal, 5 images"},
        regions=(
            Region("L5/S1", CAVEAT, 1, None, box, (pfirrmann("iii", "iii", "iv"),)),
            Region("L4/L5", CAVEAT, 2, 0.75, box, (pfirrmann("ii"),)),
            Region("L3/L4", CAVEAT, 3, 0.5, box, (pfirrmann("ii", "ii"),)),
            Region("L2/L3", CAVEAT, 4, note="not found"),
        ),
        masks=found,
        flags=(Flag("region_missed", "L2/L3 was not found."),),
        volumes_ml={"vertebra": 1.25, "disc": 0.3333333, "L5/S1": 0.125},
        notes=("one note",),
        picture=b"\x89PNG\r\n\x1a\n",
        coverage=0.9,
        sources={"image": files},
    )
