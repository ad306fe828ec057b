"""Raw files of a user's own fractures: two series on two grids, readers, findings."""

import numpy as np
from builders import mini_spine

# Study -> label; u has none.
LABELS = {name: "malignant" if name in "bdfh" else "benign" for name in "abcdefgh"} | {"u": ""}
T1_SHAPE, T2_SHAPE = (5, 24, 20), (6, 32, 28)
COLUMNS = ["patient_id", "study_id", "t1", "t2", "label", "slice", "row0", "col0", "row1", "col1"]
COLUMNS += ["level", "sex"]
# Calls of two readers in the order of LABELS: m, b, or a hole; the resident read again with aid.
SENIOR, RESIDENT, AIDED = "bmbmbmbbb", "mmb bm bb", "bmb b  b "
WORDS = {"m": "malignant", "b": "benign", " ": ""}


def canonical(steps, origin):
    """Affine of axes L, I, P with the given steps and first voxel, RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]]) * steps
    affine[:3, 3] = origin
    return affine


T1_AFFINE = canonical((4.0, 2.0, 2.0), (10.0, 20.0, 30.0))
T2_AFFINE = canonical((4.2, 1.7, 1.6), (11.0, 22.0, 31.0))


def box_of(number):
    """Row0, col0, row1, col1 on T1's grid."""
    row, col = np.random.default_rng((number, 1)).integers((5, 4), (11, 8)).tolist()
    return row, col, row + 8, col + 8


def sequence(number, shape, affine, bright):
    """Noise, and the segment in slices 1 to 3 of T1, on the grid of either sequence."""
    noise = np.random.default_rng((number, shape[0])).normal(100, 10, shape)
    world = affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:]
    at = np.linalg.solve(T1_AFFINE[:3, :3], world - T1_AFFINE[:3, 3:])
    row0, col0, row1, col1 = box_of(number)
    low, high = np.array([[0.5, row0 - 0.5, col0 - 0.5], [3.5, row1 - 0.5, col1 - 0.5]])[..., None]
    inside = ((at > low) & (at < high)).all(0).reshape(shape)
    return (noise + bright * inside).astype(np.int16)


def own_cohort(root):
    """NIfTI and MetaImage, readers with holes, findings that are not recorded of all."""
    rows = []
    for number, (name, label) in enumerate(LABELS.items()):
        t1 = sequence(number, T1_SHAPE, T1_AFFINE, 300)
        t2 = sequence(number, T2_SHAPE, T2_AFFINE, 600 if label == "malignant" else 400)
        mini_spine.write_nifti(root / f"{name}_t1.nii", t1, T1_AFFINE)
        mini_spine.write_mha(root / f"{name}_t2.mha", t2, T2_AFFINE)
        row = [f"p{name}", name, f"{name}_t1.nii", f"{name}_t2.mha", label, 2, *box_of(number)]
        rows.append([*row, "L1", "FM"[number % 2]])
    mini_spine.write_csv(root / "studies.csv", COLUMNS, rows)
    readings = [[name, "senior", WORDS[c], ""] for name, c in zip(LABELS, SENIOR, strict=True)]
    readings += [
        [name, "resident", WORDS[c], WORDS[aided]]
        for name, c, aided in zip(LABELS, RESIDENT, AIDED, strict=True)
        if c != " "
    ]
    mini_spine.write_csv(
        root / "readers.csv", ["study_id", "reader", "call", "aided_call"], readings
    )
    findings = [[name, int(name in "bdf"), ("", 1)[k % 2]] for k, name in enumerate(LABELS)]
    header = ["study_id", "epidural_mass", "fracture_line"]
    mini_spine.write_csv(root / "findings.csv", header, findings)
    return root
