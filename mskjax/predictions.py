"""What a reading leaves in files: label maps on the grid of the file that was read, a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from mskjax import roles
from mskjax.imaging.files import write_volume
from mskjax.imaging.geometry import resample_to
from mskjax.imaging.volume import Volume
from mskjax.training.stage import Study
from mskjax.two_stage.system import System
from mskjax.writers import write_bytes, write_json

FOLDER, PICTURES = "predictions", "pictures"  # of a fold
LABELS = "labels.json"


def on_stored_grid(study: Study, mask: np.ndarray) -> Volume:
    """A label map as a mask of the file.

    Axes are turned back and slices that the study left out are background; no label moves between
    voxels, for the axes of a study are those of its file in another order.

    Args:
      study: with ``affine``, ``stored_affine`` and ``stored_shape``.
      mask: (S, H, W) on the study's grid.
    """
    shape = tuple(int(n) for n in study["stored_shape"])
    data = resample_to(mask, study["affine"], shape, study["stored_affine"], order=0)
    return Volume(data, study["stored_affine"])


def leave(folder: Path, system: System, study: Study, reading: Any, phantom: bool) -> None:
    """Writes the picture and the label maps of a labelled study.

    ``pictures/<study>.png``; ``predictions/<study>.nii.gz``, further maps as
    ``<study>_<name>.nii.gz``, and `LABELS` beside them.

    Args:
      folder: ``fold_<k>``.
      system: that read the study.
      study: what was read.
      reading: what was said of it.
      phantom: whether it is a generated patient.
    """
    if not roles.is_first():
        return
    picture = system.picture(study, reading, study, phantom)
    write_bytes(folder / PICTURES / f"{study['study_id']}.png", picture)
    folder = folder / FOLDER
    for name, mask in system.masks(study, reading).items():
        file = f"{file_of(study['study_id'], name)}.nii.gz"
        write_volume(folder / file, on_stored_grid(study, mask))
    if not (folder / LABELS).exists():
        write_json(folder / LABELS, system.label_names)


def file_of(study: str, name: str) -> str:
    """Name of the file of a map, without its ending."""
    return f"{study}_{name}" if name else study
