"""Masks: on the grid of their image up to rounding, and labels that are what was drawn."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mskjax.errors import FileNote, UserError
from mskjax.imaging.files import read_mask, read_volume, write_volume
from mskjax.imaging.geometry import reorient
from mskjax.imaging.grids import aligned
from mskjax.imaging.volume import Volume


def oblique(shape=(4, 60, 50), pitch=(3.3, 0.5, 0.7)) -> Volume:
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * pitch
    affine[:3, 3] = [-31.2, 50.5, 7.25]
    return Volume(rng.integers(0, 200, shape).astype(np.int16), affine)


def save(path, image: Volume, labels, affine=None) -> None:
    write_volume(path, Volume(labels, image.affine if affine is None else affine))


def checker(image: Volume) -> np.ndarray:
    return (np.indices(image.data.shape).sum(0) % 4).astype(np.uint8)


def test_a_mask_stored_with_other_axes_is_turned(tmp_path):
    image = oblique()
    labels = image.with_data(checker(image).astype(np.int16))
    write_volume(tmp_path / "m.nii.gz", reorient(labels, ("S", "L", "A")))
    mask = read_mask(tmp_path / "m.nii.gz", image, {1, 2, 3})
    np.testing.assert_array_equal(mask.data, labels.data)
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert mask.data.dtype == np.uint8


@settings(max_examples=40)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([1, -1])] * 3), st.integers(0, 10**6))
def test_any_storage_order_is_undone_however_oblique(axes, signs, seed):
    """45 degrees are as good as any: no axis is given a letter."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.4, 4, 3)
    data = rng.integers(0, 9, (2, 3, 4))
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for new, (old, sign) in enumerate(zip(axes, signs, strict=True)):
        step[old, new] = sign
        step[old, 3] = 0 if sign > 0 else data.shape[old] - 1
    stored = data.transpose(axes)[tuple(slice(None, None, s) for s in signs)]
    turned = aligned(Volume(stored, affine @ step), affine)
    np.testing.assert_array_equal(turned.data, data)
    np.testing.assert_allclose(turned.affine, affine, atol=1e-9)


@pytest.mark.parametrize(
    ("voxels", "outcome"), [(0.001, "silent"), (0.05, "note"), (0.099, "note"), (0.11, "refused")]
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_tenth_of_a_voxel_is_rounding(tmp_path, voxels, outcome, axis, recwarn):
    image = oblique()
    affine = image.affine.copy()
    affine[:3, 3] += voxels * affine[:3, axis]
    save(tmp_path / "m.nii", image, checker(image), affine)
    if outcome == "refused":
        with pytest.raises(UserError, match=r"m\.nii: the mask is not on the grid of its image"):
            read_mask(tmp_path / "m.nii", image)
        return
    mask = read_mask(tmp_path / "m.nii", image)
    np.testing.assert_array_equal(mask.affine, image.affine)
    notes = [w.message for w in recwarn if isinstance(w.message, FileNote)]
    assert len(notes) == (outcome == "note" and voxels * image.spacing[axis] >= 0.01)
    for note in notes:
        assert "less than a tenth of a voxel" in note.what
        assert f"corners up to {voxels * image.spacing[axis]:.2g} mm apart" in note.detail


def test_the_numbers_that_differ_are_shown(tmp_path):
    image = oblique(shape=(4, 600, 50), pitch=(4, 0.46875, 0.5))
    affine = image.affine.copy()
    affine[:3, 1] *= 0.4688 / 0.46875
    save(tmp_path / "m.nii", image, checker(image), affine)
    with pytest.warns(FileNote, match=r"0\.4688 x 0\.5 mm.*0\.46875 x 0\.5 mm"):
        read_mask(tmp_path / "m.nii", image)
    affine[:3, 1] *= 1.001
    save(tmp_path / "m.nii", image, checker(image), affine)
    with pytest.raises(UserError) as caught:
        read_mask(tmp_path / "m.nii", image)
    text = str(caught.value)
    ours, theirs = text.split(": mask ")[1].split("; corners")[0].split("; image ")
    assert ours != theirs
    assert "give it the image's header" in text  # equal size: the header may be what is wrong


@pytest.mark.parametrize("change", ["shift", "shape", "turn"])
def test_a_mask_on_another_grid(tmp_path, change):
    image = oblique()
    affine, labels = image.affine.copy(), checker(image)
    if change == "shift":
        affine[0, 3] += 3
    elif change == "shape":
        labels = labels[:, :-1]
    else:
        affine[:3, :3] = np.diag(image.spacing)
    save(tmp_path / "m.mha", image, labels, affine)
    with pytest.raises(
        UserError,
        match=r"m\.mha: .*mask \(4, .*image \(4, 60, 50\), 3\.3 x 0\.5.*[rR]esample the mask onto",
    ):
        read_mask(tmp_path / "m.mha", image)


def test_a_mask_without_direction_is_not_sent_to_resampling_first(tmp_path):
    image = oblique()
    plain = np.diag([-3.3, -0.5, 0.7, 1])  # the identity of LPS
    save(tmp_path / "m.mha", image, checker(image), plain)
    with (
        pytest.warns(FileNote),
        pytest.raises(UserError, match="its direction is the identity, as of arrays.* drawn on"),
    ):
        read_mask(tmp_path / "m.mha", image)


def test_labels_that_are_allowed_and_others(tmp_path):
    image = oblique()
    path = tmp_path / "m.nii.gz"
    save(path, image, np.where(image.data > 150, 201, 7).astype(np.uint16))
    with pytest.raises(UserError, match="unknown label 201; this mask may hold 0, 1, 7"):
        read_mask(path, image, [1, 7])
    assert set(np.unique(read_mask(path, image).data)) == {7, 201}


@pytest.mark.parametrize("off", [1e-7, -1e-7, 9e-4, -9e-4])
def test_labels_that_were_stored_as_floats(tmp_path, off):
    image = oblique()
    labels = checker(image)
    save(tmp_path / "m.nii", image, (labels * (1 + off / 3)).astype(np.float32))
    mask = read_mask(tmp_path / "m.nii", image, (1, 2, 3))
    np.testing.assert_array_equal(mask.data, labels)
    assert mask.data.dtype == np.uint8


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.25, "0.25"), (0.998, "0.998"), (1000.002, "1000.002"), (3e9, "3000000000")],
)
def test_values_that_are_no_labels_are_shown(tmp_path, value, shown):
    image = oblique()
    labels = np.zeros(image.data.shape, np.float64)
    labels[0, 0, 0] = value
    save(tmp_path / "m.nii", image, labels)
    with pytest.raises(UserError, match=rf"m\.nii: .*(has|holds) {shown}"):
        read_mask(tmp_path / "m.nii", image)


def test_a_painted_mask(tmp_path):
    pixels = np.zeros((9, 7), np.uint8)
    pixels[2:5, 3:5] = 255
    Image.fromarray(pixels).save(tmp_path / "m.png")
    Image.fromarray(pixels // 3).save(tmp_path / "i.png")
    image = read_volume(tmp_path / "i.png")
    with pytest.warns(FileNote, match="is a mask of 0 and 255; 255 is taken as label 4"):
        mask = read_mask(tmp_path / "m.png", image, (4,))
    np.testing.assert_array_equal(mask.data[0], pixels // 255 * 4)
    with pytest.raises(UserError, match=r"m\.png: holds 0 and 255 only, .*labels, 1, 2, 3\."):
        read_mask(tmp_path / "m.png", image, (1, 2, 3))
    assert read_mask(tmp_path / "m.png", image).data.max() == 255
    assert read_mask(tmp_path / "m.png", image, (255,)).data.max() == 255
    pixels[0, 0] = 254  # then it is not painted, but something else
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="unknown label 254, 255"):
        read_mask(tmp_path / "m.png", image, (4,))


def test_an_image_is_no_mask_of_itself(tmp_path):
    image = oblique()
    write_volume(tmp_path / "i.nii", image)
    write_volume(tmp_path / "again.mha", reorient(image, ("S", "L", "A")))
    shutil.copy(tmp_path / "i.nii", tmp_path / "copy.nii")
    (tmp_path / "link.nii").symlink_to("i.nii")
    reference = reorient(read_volume(tmp_path / "i.nii"))
    for name in ("i.nii", "copy.nii", "link.nii", "again.mha"):
        with pytest.raises(UserError, match=rf"{name}: image and mask are the same"):
            read_mask(tmp_path / name, reference)
    # Read as an image and as a mask, a PNG of two bits has different numbers.
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1").save(tmp_path / "i.png")
    shutil.copy(tmp_path / "i.png", tmp_path / "m.png")
    with pytest.raises(UserError, match=r"m\.png: image and mask are the same .*i\.png"):
        read_mask(tmp_path / "m.png", read_volume(tmp_path / "i.png"), (1,))
