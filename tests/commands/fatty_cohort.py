"""Raw files of a user's own Y-views: a dozen tiny images in every format."""

import numpy as np
from builders import mini_spine
from PIL import Image

# Patient -> Goutallier grade; two of each class of every task, for two folds.
GRADES = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 2, "f": 2, "g": 3, "h": 3, "i": 4, "j": 4}
SIZE = 24
AFFINE = np.array([[-4.0, 0, 0, 8], [0, 0, -2.0, 20], [0, -2.0, 0, 30], [0, 0, 0, 1]])
COLUMNS = ["patient_id", "study_id", "image", "mask", "grade", "side", "slice", "pixel_mm", "sex"]


def y_view(grade, number, slices=1):
    """(S, 24, 24) uint8: in the middle slice a fossa of 10 x 12 pixels, brighter with the grade."""
    rng = np.random.default_rng(number)
    mask = np.zeros((slices, SIZE, SIZE), np.uint8)
    top, left = rng.integers(4, 8, 2)
    mask[slices // 2, top : top + 10, left : left + 12] = 1
    return rng.integers(40, 60, mask.shape, np.uint8) + mask * np.uint8(100 + 20 * grade), mask


def own_cohort(root):
    """A stack (a), a PNG (b), single images; c has two, k has no grade and l has no mask."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (name, grade) in enumerate(GRADES.items()):
        files = {"a": [f"{name}.nii.gz", f"{name}_fossa.nii.gz"], "b": ["b.png", "b_fossa.png"]}
        files = files.get(name, [f"{name}.nii", f"{name}_fossa.nii"])
        for file, values in zip(files, y_view(grade, number, 3 if name == "a" else 1), strict=True):
            if name == "b":
                Image.fromarray(values[0]).save(root / file)
            else:
                mini_spine.write_nifti(root / file, values, AFFINE)
        side, sex = "left" if number % 2 else "right", "FM"[number // 5]
        stack, pixel = {"a": (1, ""), "b": ("", 2)}.get(name, ("", ""))
        rows.append([f"p{name}", name, *files, grade, side, stack, pixel, sex])
    for number, (name, grade) in enumerate({"c2": 1, "k": 2, "l": 2}.items(), len(GRADES)):
        for end, values in zip(("", "_fossa"), y_view(grade, number), strict=True):
            mini_spine.write_nifti(root / f"{name}{end}.nii", values, AFFINE)
    rows += [
        ["pc", "c2", "c2.nii", "c2_fossa.nii", "1", "left", "", "", "F"],
        ["pk", "k", "k.nii", "k_fossa.nii", "", "", "", "", ""],
        ["pl", "l", "l.nii", "", "2", "", "", "", ""],
    ]
    mini_spine.write_csv(root / "studies.csv", COLUMNS, rows)
    return root
