"""MetaImage: the same voxels at the same places as ITK, and headers that leave things out."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mskjax.errors import FileNote, UserError
from mskjax.imaging.files import read_volume

HEADER = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "0 1 0 0 0 -1 -1 0 0", "Offset": "10 -50 60",
    "ElementSpacing": "0.8 0.8 4", "DimSize": "4 3 2", "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}  # fmt: skip
VOXELS = np.arange(24, dtype="<i2")


def write(path, changes=None, voxels=VOXELS):
    fields = {**HEADER, **(changes or {})}
    last = fields.pop("ElementDataFile")
    lines = [f"{k} = {v}" for k, v in fields.items() if v is not None]
    path.write_bytes("\n".join([*lines, f"ElementDataFile = {last}", ""]).encode())
    with path.open("ab") as file:
        file.write(voxels.tobytes())


def assert_as_itk(path):
    image = sitk.ReadImage(str(path))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, sitk.GetArrayFromImage(image).T)
    assert volume.data.dtype == sitk.GetArrayFromImage(image).dtype
    for index in [(0, 0, 0), tuple(n - 1 for n in image.GetSize())]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], lps * [-1, -1, 1], atol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_what_itk_writes_is_read_as_itk_reads_it(tmp_path, dtype, suffix, packed):
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.integers(0, 99, (3, 4, 5)).astype(dtype))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    image.SetDirection((rotation * np.sign(np.linalg.det(rotation))).ravel())
    image.SetSpacing((0.4, 0.7, 3))
    image.SetOrigin((1, -2, 3))
    path = tmp_path / f"v{suffix}"
    sitk.WriteImage(image, str(path), useCompression=packed)
    assert_as_itk(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ElementSpacing": None, "ElementSize": "0.8 0.8 4"},
        {"Offset": None, "Position": "10 -50 60"},
        {"TransformMatrix": None, "Rotation": HEADER["TransformMatrix"]},
        {"TransformMatrix": None, "Orientation": HEADER["TransformMatrix"]},
        {"BinaryDataByteOrderMSB": "True"},
        {"ElementType": "MET_LONG", "DimSize": "4 3 1"},
        {"HeaderSize": "-1"},
        {"HeaderSize": "3", "DimSize": "2 2 2"},
        {
            "NDims": "4", "DimSize": "4 3 2 1", "Offset": "1 2 3 0", "ElementSpacing": "1 1 2 1",
            "TransformMatrix": "0 1 0 0 0 0 -1 0 -1 0 0 0 0 0 0 1",
        },
    ],
)  # fmt: skip
def test_synonyms_and_orders_are_read_as_itk_reads_them(tmp_path, changes):
    path = tmp_path / "v.mha"
    write(path, changes)
    if changes.get("NDims") == "4":
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.data.ravel("F"), VOXELS)
        np.testing.assert_allclose(volume.spacing, [1, 1, 2])
    else:
        assert_as_itk(path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ElementSpacing": None}, "has no ElementSpacing, so"),
        ({"Offset": None, "TransformMatrix": None}, "has no Offset and no TransformMatrix, so"),
        ({"NDims": "2", "DimSize": "4 6"}, "a 2-D MetaImage does not say where it lies"),
        ({"ElementNumberOfChannels": "3", "DimSize": "4 2 1"}, "3 values a voxel"),
        ({"NDims": "4", "DimSize": "2 3 2 2"}, "one 3-D scalar volume is needed"),
        ({"DimSize": "4 3"}, "DimSize is '4 3'; it must be 3 whole numbers"),
        ({"DimSize": "4 -3 2"}, "DimSize is '4 -3 2'"),
        ({"ElementSpacing": "0,8 0,8 4"}, "ElementSpacing is '0,8 0,8 4'; it must be 3 numbers"),
        ({"ElementSpacing": "0.8 0 4"}, "ElementSpacing is 0.8 0 4; it must be above 0"),
        ({"TransformMatrix": "1 0 0 0 1 0 1 0 0"}, "TransformMatrix is no rotation"),
        ({"TransformMatrix": "nan 0 0 0 1 0 1 0 0"}, "TransformMatrix is 'nan 0 0"),
        ({"ElementType": "MET_STRING"}, "holds MET_STRING voxels"),
        ({"BinaryData": "False"}, "holds its voxels as text"),
        ({"ElementDataFile": "LIST"}, "spreads its slices over several files"),
        ({"ElementDataFile": "i%03d.raw 1 9 1"}, "spreads its slices over several files"),
        ({"ElementDataFile": "gone.raw"}, r"its data file .*gone\.raw is missing"),
        ({"DimSize": "4 3 9"}, "declares 216 bytes of voxels, but 48 are there"),
        ({"DimSize": "60000 60000 60000"}, "more than the"),
        ({"CompressedData": "True"}, r"v\.mha: cannot be read"),
        ({"CompressedData": "True", "DimSize": "9999 999 9"}, "cannot hold them even unpacked"),
        ({"HeaderSize": "x"}, "HeaderSize is 'x'"),
    ],
)
def test_headers_that_do_not_say_what_is_needed(tmp_path, changes, why, capfd):
    path = tmp_path / "v.mha"
    write(path, changes)
    with pytest.raises(UserError, match=why) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")  # no lines of a library


def test_a_direction_that_may_not_have_been_written_is_noted(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = sitk.GetImageFromArray(array)  # as users do who stack slices with NumPy
    image.SetSpacing((0.8, 0.8, 4))
    sitk.WriteImage(image, str(tmp_path / "v.mha"))
    with pytest.warns(FileNote, match="its direction is the identity, as of arrays") as caught:
        volume = read_volume(tmp_path / "v.mha")
    assert len(caught) == 1
    assert volume.meta["orientation_doubt"].startswith("its direction is the identity")
    write(tmp_path / "v.mha")
    assert "orientation_doubt" not in read_volume(tmp_path / "v.mha").meta


def test_a_damaged_compressed_stream_is_noticed(tmp_path):
    path = tmp_path / "v.mha"
    image = sitk.GetImageFromArray(np.zeros((9, 9, 9), np.int16))
    image.SetDirection([0, 0, -1, 1, 0, 0, 0, -1, 0])
    sitk.WriteImage(image, str(path), useCompression=True)
    whole = path.read_bytes()
    read_volume(path)
    for raw in (whole[:-1], whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:]):  # the checksum
        path.write_bytes(raw)
        with pytest.raises(UserError, match=r"v\.mha: cannot be read"):
            read_volume(path)
