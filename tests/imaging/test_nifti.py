"""NIfTI: units, the two forms, compression told by content, and headers that promise too much."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from mskjax.errors import FileNote, UserError
from mskjax.imaging.files import read_mask, read_volume, write_volume
from mskjax.imaging.limits import MOST_VOXELS
from mskjax.imaging.volume import Volume

AFFINE = np.array([[-4.0, 0, 0, 10], [0, 0, -0.8, 50], [0, -0.8, 0, 60], [0, 0, 0, 1]])
BAD = np.diag([1.0, 1, 0, 1])  # singular


def write(path, sform=None, qform=None, scale=1.0, unit="mm", dtype=np.int16, kind=nib.Nifti1Image):
    data = np.random.default_rng(0).integers(0, 99, (3, 6, 5)).astype(dtype)
    image = kind(data, None)
    image.header.set_zooms((4 * scale, 0.8 * scale, 0.8 * scale))
    for name, affine in (("sform", sform), ("qform", qform)):
        if affine is not None:
            getattr(image, f"set_{name}")(np.diag([scale] * 3 + [1]) @ affine, 1)
    image.header.set_xyzt_units(unit)
    path.write_bytes(patched(image.to_bytes(), {}))
    return data


def patched(raw: bytes, fields: dict[int, tuple[str, float]]) -> bytes:
    blob = bytearray(raw)
    for offset, (code, value) in fields.items():
        struct.pack_into(f"<{code}", blob, offset, value)
    return bytes(blob)


@pytest.mark.parametrize(
    ("unit", "scale", "said"),
    [("mm", 1, ""), ("unknown", 1, ""), ("micron", 1000, "micron"), ("meter", 1e-3, "metre")],
)
def test_lengths_are_brought_to_mm(tmp_path, unit, scale, said, recwarn):
    path = tmp_path / "v.nii"
    data = write(path, AFFINE, AFFINE, scale, unit)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(volume.data, data)
    notes = [w.message.what for w in recwarn if isinstance(w.message, FileNote)]
    assert notes == ([f"gives lengths in {said}; they are brought to mm"] if said else [])


def test_a_wrong_unit_is_named(tmp_path):
    path = tmp_path / "v.nii"
    write(path, AFFINE, unit="micron")
    with pytest.raises(UserError, match="sform with xyzt_units micron gives 0.004 mm between"):
        read_volume(path)
    path.write_bytes(patched(path.read_bytes(), {123: ("b", 7)}))
    with pytest.warns(FileNote, match=r"no valid unit of length; mm is taken .xyzt_units 7"):
        np.testing.assert_allclose(read_volume(path).affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_compression_is_told_by_content(tmp_path, name):
    data = write(tmp_path / "plain", AFFINE)
    raw = (tmp_path / "plain").read_bytes()
    (tmp_path / name).write_bytes(raw if name.endswith("gz") else gzip.compress(raw))
    with pytest.warns(FileNote, match="compressed, whatever its name says"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, data)


@pytest.mark.parametrize(
    ("sform", "qform", "note"),
    [
        (AFFINE, None, None),
        (None, AFFINE, None),
        (AFFINE, AFFINE, None),
        (BAD, AFFINE, "its sform is singular or not finite; the qform is used"),
        (BAD * 0, AFFINE, "its sform is singular or not finite; the qform is used"),
    ],
)
def test_the_form_that_is_usable_is_used(tmp_path, sform, qform, note, recwarn):
    write(tmp_path / "v.nii", sform, qform)
    np.testing.assert_allclose(read_volume(tmp_path / "v.nii").affine, AFFINE, atol=1e-5)
    assert [w.message.what for w in recwarn] == ([note] if note else [])


def test_a_voxel_size_that_is_not_that_of_the_form_is_noted(tmp_path):
    write(tmp_path / "v.nii", AFFINE)
    path = tmp_path / "v.nii"
    path.write_bytes(patched(path.read_bytes(), {80: ("f", 3.0)}))
    with pytest.warns(FileNote, match=r"the sform is used .3 x 0.8 x 0.8 and 4 x 0.8 x 0.8 mm"):
        np.testing.assert_allclose(read_volume(path).spacing, [4, 0.8, 0.8], rtol=1e-6)


def test_forms_that_are_missing_or_unusable_are_named(tmp_path):
    path = tmp_path / "v.nii"
    write(path)
    with pytest.raises(UserError, match=r"sform_code and qform_code are 0.*left and right"):
        read_volume(path)
    write(path, BAD)
    with pytest.raises(UserError, match="its sform does not place the voxels"):
        read_volume(path)
    write(path, BAD, AFFINE)  # then a quaternion that is no rotation
    path.write_bytes(patched(path.read_bytes(), {256: ("f", 3.0), 260: ("f", 3.0)}))
    with pytest.raises(UserError, match="its sform and its qform do not place the voxels"):
        read_volume(path)


MOVED = np.array([[1, 0, 0, 0], [0, 1, 0, 8.0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.filterwarnings("ignore::mskjax.errors.FileNote")
@pytest.mark.parametrize(
    ("image", "mask", "why"),
    [
        ((MOVED @ AFFINE, AFFINE), (AFFINE, AFFINE), "the mask fits the qform of the image"),
        ((AFFINE, AFFINE), (MOVED @ AFFINE, AFFINE), "the qform of the mask fits the image"),
        (
            (MOVED @ AFFINE, AFFINE),
            (AFFINE, MOVED @ AFFINE),
            "the sform of the mask fits the qform of the image",
        ),
        ((MOVED @ AFFINE, AFFINE), (MOVED @ MOVED @ AFFINE, None), "the mask fits neither"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_which_form_a_mask_fits(tmp_path, image, mask, why, turned):
    from mskjax.imaging.geometry import reorient

    write(tmp_path / "i.nii", *image)
    labels = write(tmp_path / "m.nii", *mask, dtype=np.uint8)
    reference = read_volume(tmp_path / "i.nii")
    if turned:  # as builders do before they read the mask
        reference = reorient(reference, ("S", "R", "A"))
    with pytest.raises(UserError, match=f"disagree by 8 mm; {why}; decide which") as caught:
        read_mask(tmp_path / "m.nii", reference)
    assert "esampl" not in str(caught.value)
    assert labels.any()


def test_forms_that_disagree_are_noted_and_a_mask_of_the_used_one_fits(tmp_path):
    write(tmp_path / "i.nii", MOVED @ AFFINE, AFFINE)
    labels = write(tmp_path / "m.nii", MOVED @ AFFINE, dtype=np.uint8) + 1
    nib.save(nib.Nifti1Image(labels, MOVED @ AFFINE), tmp_path / "m.nii")
    with pytest.warns(FileNote, match=r"the sform is used .by up to 8 mm") as caught:
        image = read_volume(tmp_path / "i.nii")
    assert len(caught) == 1
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii", image).data, labels)
    rounded = AFFINE + 1e-4
    rounded[3] = AFFINE[3]
    write(tmp_path / "r.nii", AFFINE, rounded)
    assert "sform_to_qform" not in read_volume(tmp_path / "r.nii").meta


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_header_that_promises_too_much_is_refused_at_once(tmp_path, packed, kind):
    path = tmp_path / ("v.nii.gz" if packed else "v.nii")
    write(tmp_path / "v", AFFINE, kind=kind)
    dims, code = (42, "h") if kind is nib.Nifti1Image else (24, "q")
    width = struct.calcsize(code)
    for shape, why in (((30000, 30000, 30), "more than the"), ((3000, 3000, 30), "cannot hold")):
        fields = {dims + width * i: (code, n) for i, n in enumerate(shape)}
        raw = patched((tmp_path / "v").read_bytes(), fields)
        path.write_bytes(gzip.compress(raw) if packed else raw)
        assert (np.prod(shape) > MOST_VOXELS) == (why == "more than the")
        with pytest.raises(UserError, match=why):
            read_volume(path)


def test_a_damaged_gzip_stream_is_noticed_though_it_unpacks(tmp_path):
    path = tmp_path / "v.nii.gz"
    write_volume(path, Volume(np.zeros((4, 5, 6), np.uint8), np.eye(4)))
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1  # the checksum
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"v.nii.gz: cannot be read .CRC check failed"):
        read_volume(path)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({344: ("4s", b"ni1\0")}, r"header of a NIfTI pair .*convert the pair"),
        ({344: ("4s", b"\0\0\0\0")}, "Analyze header or damaged"),
        ({70: ("h", 128), 72: ("h", 24)}, "a scalar image is needed"),
        ({70: ("h", 32), 72: ("h", 64)}, "holds complex64 voxels"),
        ({42: ("h", 0)}, "holds no voxels"),
        ({40: ("h", 5), 48: ("h", 1), 50: ("h", 3)}, r"has 5 dimensions \(3, 6, 5, 1, 3\)"),
        ({112: ("f", 2), 116: ("f", np.nan)}, "Valid slope but invalid intercept"),
    ],
)
def test_what_is_no_scalar_volume_is_said(tmp_path, fields, why):
    path = tmp_path / "v.nii"
    write(path, AFFINE)
    path.write_bytes(patched(path.read_bytes(), fields))
    with pytest.raises(UserError, match=rf"v\.nii: .*{why}"):
        read_volume(path)


def test_scale_factors_of_a_mask_define_its_labels(tmp_path):
    write(tmp_path / "m.nii", AFFINE, dtype=np.uint8)
    raw = patched((tmp_path / "m.nii").read_bytes(), {112: ("f", 0.5)})
    stored = np.frombuffer(raw, np.uint8, 90, 352).reshape((3, 6, 5), order="F")
    even = bytearray(raw)
    even[352:442] = (stored // 10 * 2).tobytes("F")
    (tmp_path / "m.nii").write_bytes(even)
    image = Volume(np.zeros((3, 6, 5)), AFFINE)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii", image).data, stored // 10)
