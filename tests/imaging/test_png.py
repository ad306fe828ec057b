"""PNG: images as a viewer shows them (Pillow's conversion is the oracle), masks as stored."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mskjax.errors import FileNote, UserError
from mskjax.imaging.files import read_mask, read_volume
from mskjax.imaging.volume import Volume

RNG = np.random.default_rng(0)


def write(path, numbers, bits, colour=0, chunks=()):
    """A PNG of numbers that are stored as they are."""
    height, width = numbers.shape[:2]
    values = numbers.reshape(height, -1)
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        planes = (values[..., None] >> np.arange(bits)[::-1]) & 1
        rows = [np.packbits(row).tobytes() for row in planes.reshape(height, -1)]
    ihdr = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    idat = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", ihdr), *chunks, (b"IDAT", idat), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c))
            for n, c in parts
        )
    )
    return path


def shown(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [7, 16])
def test_grey_of_few_bits(tmp_path, bits, width):
    numbers = RNG.integers(0, 1 << bits, (9, width)).astype(np.uint8)
    path = write(tmp_path / "v.png", numbers, bits)
    image = read_volume(path)
    np.testing.assert_array_equal(image.data[0], shown(path))
    assert image.data.dtype == np.uint8
    np.testing.assert_array_equal(read_volume(path, stored=True).data[0], numbers)
    reference = Volume(np.full((1, 9, width), 999), image.affine)
    np.testing.assert_array_equal(read_mask(path, reference).data[0], numbers)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_indexed_grey(tmp_path, bits):
    numbers = RNG.integers(0, 1 << bits, (9, 7)).astype(np.uint8)
    levels = np.linspace(0, 255, 1 << bits).astype(np.uint8)
    greys = RNG.permutation(levels)  # ordered by use, as web PNGs are
    path = write(tmp_path / "v.png", numbers, bits, 3, [(b"PLTE", np.repeat(greys, 3).tobytes())])
    np.testing.assert_array_equal(read_volume(path).data[0], shown(path))
    np.testing.assert_array_equal(read_volume(path).data[0], greys[numbers])
    if bits < 8:  # 256 greys are too close to each other to be meant for the eye
        np.testing.assert_array_equal(read_volume(path, stored=True).data[0], numbers)


def test_indexed_masks(tmp_path):
    numbers = RNG.integers(0, 4, (9, 7)).astype(np.uint8)
    coloured = bytes([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    path = write(tmp_path / "m.png", numbers, 8, 3, [(b"PLTE", coloured), (b"tRNS", b"\0")])
    reference = Volume(np.full((1, 9, 7), 999), read_volume(path, stored=True).affine)
    np.testing.assert_array_equal(read_mask(path, reference, (1, 2, 3)).data[0], numbers)
    with pytest.raises(UserError, match=r"m\.png: is a colour image"):
        read_volume(path)
    # What an optimiser makes of a grey mask: the palette holds the labels, in another order.
    labels = np.repeat(np.array([2, 0, 1, 3], np.uint8), 3).tobytes()
    write(path, numbers, 2, 3, [(b"PLTE", labels)])
    with pytest.raises(UserError, match="palette shows 2 where index 0 is stored"):
        read_mask(path, reference, (1, 2, 3))


def test_channels_that_are_equal_are_grey(tmp_path):
    grey = RNG.integers(0, 256, (9, 7)).astype(np.uint8)
    full = np.full_like(grey, 255)
    for mode, channels in (
        ("RGB", [grey] * 3),
        ("RGBA", [grey] * 3 + [full]),
        ("LA", [grey, full]),
    ):
        Image.fromarray(np.stack(channels, -1), mode).save(tmp_path / "v.png")
        for stored in (False, True):
            volume = read_volume(tmp_path / "v.png", stored=stored)
            np.testing.assert_array_equal(volume.data[0], grey)


@pytest.mark.parametrize(
    ("numbers", "bits", "colour", "chunks", "why"),
    [
        (RNG.integers(0, 256, (4, 4, 3)), 8, 2, [], "is a colour image"),
        (np.full((4, 4, 2), 9), 8, 4, [], "is transparent in places"),
        (np.full((4, 4, 4), 9), 8, 6, [], "is transparent in places"),
        (np.full((4, 4), 9), 8, 0, [(b"tRNS", b"\0\x09")], "is transparent in places"),
        (np.full((4, 4), 1), 2, 0, [(b"tRNS", b"\0\x01")], "is transparent in places"),
        (np.full((4, 4, 3), 9), 8, 2, [(b"tRNS", b"\0\x09" * 3)], "is transparent in places"),
        (np.full((4, 4), 0), 8, 3, [(b"PLTE", b"\1" * 3), (b"tRNS", b"\x09")], "transparent in"),
        (np.full((4, 4, 3), 9), 16, 2, [], "has 16-bit colours"),
        (np.full((4, 4), 9), 8, 0, [(b"acTL", bytes([0, 0, 0, 2] * 2))], "animated PNG"),
        (np.full((4, 4), 9), 8, 3, [(b"PLTE", b"\1" * 3)], "uses colour 9 of a palette of 1"),
        (np.full((4, 4), 9), 8, 5, [], r"cannot be read \(it declares colour type 5"),
    ],
)
def test_what_a_grey_image_is_not(tmp_path, numbers, bits, colour, chunks, why):
    write(tmp_path / "v.png", numbers, bits, colour, chunks)
    with pytest.raises(UserError, match=rf"v\.png: .*{why}"):
        read_volume(tmp_path / "v.png")


def test_a_colour_that_is_transparent_but_not_used_is_harmless(tmp_path):
    path = write(tmp_path / "v.png", np.full((4, 4), 9), 8, 0, [(b"tRNS", b"\0\x08")])
    assert (read_volume(path).data == 9).all()


def test_damage_that_pillow_would_read_as_another_picture(tmp_path):
    grey = RNG.integers(0, 256, (20, 20)).astype(np.uint8)
    whole = bytearray(write(tmp_path / "v.png", grey, 8).read_bytes())
    whole[-14] ^= 1  # in the checksum of the pixels
    (tmp_path / "v.png").write_bytes(whole)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "v.png")), grey)
    with pytest.raises(UserError, match="a checksum .IDAT. does not fit"):
        read_volume(tmp_path / "v.png")
    Image.fromarray(grey).save(tmp_path / "v.jpg")
    (tmp_path / "v.png").write_bytes((tmp_path / "v.jpg").read_bytes())
    with pytest.raises(UserError, match="it is not a PNG, whatever its name says"):
        read_volume(tmp_path / "v.png")


@pytest.mark.parametrize(
    ("size", "why"), [((200_000, 200_000), "more than the"), ((9000, 9000), "cannot hold them")]
)
def test_a_size_that_the_file_cannot_hold(tmp_path, size, why):
    path = write(tmp_path / "v.png", np.zeros((4, 4), np.uint8), 8)
    raw = path.read_bytes()
    ihdr = struct.pack(">II", *size) + raw[24:29]
    path.write_bytes(raw[:16] + ihdr + struct.pack(">I", zlib.crc32(b"IHDR" + ihdr)) + raw[33:])
    with pytest.raises(UserError, match=why):
        read_volume(path)


def test_the_pixel_size_is_known_only_where_it_was_given(tmp_path):
    path = write(tmp_path / "v.png", np.full((5, 7), 3), 8)
    assert read_volume(path).meta["pixel_size_known"] is False
    image = read_volume(path, spacing=(0.3, 0.4))
    assert image.meta.get("pixel_size_known", True)
    np.testing.assert_allclose(image.spacing, [1, 0.3, 0.4])
    mask = write(tmp_path / "m.png", np.full((5, 7), 1), 1)
    assert (read_mask(mask, image).data == 1).all()
    with pytest.raises(UserError, match="the pixel size of the table gives 300 mm per pixel"):
        read_volume(path, spacing=(300, 300))


def test_no_note_for_an_unknown_pixel_size(tmp_path, recwarn):
    read_volume(write(tmp_path / "v.png", np.full((5, 7), 3), 8))
    assert not [w for w in recwarn if isinstance(w.message, FileNote)]
