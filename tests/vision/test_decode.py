# SPDX-License-Identifier: Apache-2.0
"""Decoding against `cv2.imread`, which is what the source framework reads with, and against damage."""

from __future__ import annotations

import contextlib
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.errors import ImageError, ImageFormatError, ImageTooLargeError, ImageUnreadableError
from shipsight.vision import decode_image

HEIGHT, WIDTH = 37, 53


def picture(channels=3, dtype=np.uint8):
    """A smooth picture with every level, odd-sided, without symmetry."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    planes = [np.sin(x / (3 + c)) + np.cos(y / (5 - c)) + x / WIDTH for c in range(channels)]
    stack = np.stack(planes, axis=-1)
    scaled = (stack - stack.min()) / (stack.max() - stack.min()) * np.iinfo(dtype).max
    return scaled.astype(dtype) if channels > 1 else scaled[..., 0].astype(dtype)


def encode(extension, image, *options):
    is_written, data = cv2.imencode(extension, image, list(options))
    assert is_written
    return data.tobytes()


def bmp(bits, compression, pixels, *, palette=b"", width=WIDTH, height=HEIGHT):
    offset = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset)
    body = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0)
    return head + body + palette + pixels


def png(colour_type, bits, rows, extra=b""):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pillow(mode, kind, **options):
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture()).convert(mode).save(file, kind, **options)
    return file.getvalue()


PALETTE = bytes(range(256)) * 3
GREY_ROWS = picture(1)

CASES = {
    "jpeg": encode(".jpg", picture()),
    "jpeg-progressive": encode(".jpg", picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg-grayscale": encode(".jpg", picture(1)),
    "jpeg-restart-markers": encode(".jpg", picture(), cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "jpeg-444": encode(".jpg", picture(), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "png": encode(".png", picture()),
    "png-grayscale": encode(".png", picture(1)),
    "png-alpha": encode(".png", picture(4)),
    "png-grayscale-16-bit": encode(".png", picture(1, np.uint16)),
    "png-16-bit": encode(".png", picture(3, np.uint16)),
    "png-alpha-16-bit": encode(".png", picture(4, np.uint16)),
    "png-palette": png(3, 8, GREY_ROWS, png_chunk(b"PLTE", PALETTE)),
    "png-palette-transparent": png(3, 8, GREY_ROWS, png_chunk(b"PLTE", PALETTE) + png_chunk(b"tRNS", bytes(range(99)))),
    "png-grayscale-alpha": png(4, 8, picture(2)),
    "webp": encode(".webp", picture(), cv2.IMWRITE_WEBP_QUALITY, 80),
    "webp-lossless": encode(".webp", picture(), cv2.IMWRITE_WEBP_QUALITY, 101),
    "webp-alpha": encode(".webp", picture(4), cv2.IMWRITE_WEBP_QUALITY, 80),
    "bmp": encode(".bmp", picture()),
    "bmp-palette": bmp(8, 0, np.pad(GREY_ROWS, ((0, 0), (0, 3))).tobytes(), palette=bytes(range(256)) * 4),
    "bmp-32-bit": bmp(32, 0, picture(4).tobytes()),
}


@pytest.mark.parametrize("name", CASES)
def test_pixels_equal_cv2_imread(name):
    expected = cv2.imdecode(np.frombuffer(CASES[name], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    image = decode_image(CASES[name])
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]
    assert np.array_equal(image, expected)


def test_alpha_is_dropped_and_the_colours_beneath_stay():
    image = picture(4)
    image[..., 3] = 0
    assert np.array_equal(decode_image(encode(".png", image)), image[..., 2::-1])


def test_high_byte_stays_when_an_image_has_16_bit():
    image = picture(3, np.uint16)
    assert np.array_equal(decode_image(encode(".png", image)), (image >> 8).astype(np.uint8)[..., ::-1])


@pytest.mark.torch
@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        pytest.param("CMYK", "JPEG", {}, id="cmyk"),
        pytest.param("CMYK", "JPEG", {"quality": 100, "subsampling": 0}, id="cmyk-fine"),
        pytest.param("1", "PNG", {}, id="png-1-bit"),
        pytest.param("1", "BMP", {}, id="bmp-1-bit"),
        pytest.param("RGB", "JPEG", {"keep_rgb": True}, id="jpeg-rgb-colour-space"),
    ],
)
def test_rare_flavours_equal_cv2_imread(mode, kind, options):
    data = pillow(mode, kind, **options)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(decode_image(data), expected)


def exif(orientation, order="<"):
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHHIHH", 1, 0x0112, 3, 1, orientation, 0)
    return head + struct.pack(f"{order}I", 8) + entries + struct.pack(f"{order}I", 0)


def with_exif(kind, tiff):
    if kind == "jpeg":
        body = b"Exif\0\0" + tiff
        return CASES["jpeg"][:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + CASES["jpeg"][2:]
    if kind == "png":
        return CASES["png"][:33] + png_chunk(b"eXIf", tiff) + CASES["png"][33:]
    frame = CASES["webp"][12:]
    size = struct.pack("<I", WIDTH - 1)[:3] + struct.pack("<I", HEIGHT - 1)[:3]
    extended = b"VP8X" + struct.pack("<II", 10, 0x08) + size
    tail = b"EXIF" + struct.pack("<I", len(tiff)) + tiff + b"\0" * (len(tiff) % 2)
    body = b"WEBP" + extended + frame + tail
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_exif_orientation_is_applied(kind, orientation, order):
    plain = decode_image(CASES[kind])
    turned = {
        1: plain,
        2: plain[:, ::-1],
        3: plain[::-1, ::-1],
        4: plain[::-1],
        5: plain.transpose(1, 0, 2),
        6: plain[::-1].transpose(1, 0, 2),
        7: plain[::-1, ::-1].transpose(1, 0, 2),
        8: plain[:, ::-1].transpose(1, 0, 2),
    }
    image = decode_image(with_exif(kind, exif(orientation, order)))
    assert np.array_equal(image, turned[orientation])
    assert image.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg_equals_cv2_imread(orientation):
    data = with_exif("jpeg", exif(orientation))
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize(
    "tiff",
    [exif(0), exif(9), b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"not a tiff at all"],
    ids=["zero", "nine", "empty", "cut", "far-offset", "many-entries", "noise"],
)
def test_exif_is_ignored_when_it_is_malformed(tiff):
    assert np.array_equal(decode_image(with_exif("jpeg", tiff)), decode_image(CASES["jpeg"]))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"", ImageUnreadableError, id="empty"),
        pytest.param(b"\xff", ImageUnreadableError, id="one-byte"),
        pytest.param(b"GIF89a" + bytes(99), ImageFormatError, id="gif"),
        pytest.param(b"II*\0" + bytes(99), ImageFormatError, id="tiff"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", ImageFormatError, id="svg"),
        pytest.param(b"\0\0\0\x20ftypavif" + bytes(99), ImageFormatError, id="avif"),
        pytest.param(b"v/1\x01" + bytes(99), ImageFormatError, id="openexr"),
        pytest.param(b"RIFF\x10\0\0\0WAVE" + bytes(99), ImageFormatError, id="riff-but-not-webp"),
        pytest.param(bytes(1000), ImageFormatError, id="zeros"),
        pytest.param(b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, 8, 9, 9, 3), ImageFormatError, id="lossless-jpeg"),
        pytest.param(b"\xff\xd8\xff\xc1" + struct.pack(">HBHHB", 11, 12, 9, 9, 3), ImageFormatError, id="12-bit-jpeg"),
        pytest.param(bmp(24, 4, bytes(99)), ImageFormatError, id="jpeg-in-bmp"),
        pytest.param(bmp(24, 0, b"", width=0), ImageUnreadableError, id="no-width"),
        pytest.param(b"\xff\xd8\xff\xd9", ImageUnreadableError, id="empty-jpeg"),
    ],
)
def test_file_is_refused_when_it_is_no_accepted_image(data, error):
    with pytest.raises(error):
        decode_image(data)


def huge(kind):
    if kind == "jpeg":
        return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 65535, 65535, 3) + bytes(9) + b"\xff\xd9"
    if kind == "png":
        header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
        body = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
        return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body + png_chunk(b"IEND", b"")
    if kind == "bmp":
        return bmp(8, 1, bytes(9), width=2**31 - 1, height=2**31 - 1)
    frame = b"VP8X" + struct.pack("<II", 10, 0) + b"\xff\xff\xff" * 2
    return b"RIFF" + struct.pack("<I", len(frame) + 4) + b"WEBP" + frame


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp"])
def test_image_is_refused_from_its_header_when_it_is_huge(kind):
    # Of the processor, since a busy machine takes its time.
    start = time.process_time()
    with pytest.raises(ImageTooLargeError):
        decode_image(huge(kind))
    assert time.process_time() - start < 0.5  # decoding would take seconds, or all memory


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "bmp"])
def test_pixel_limit_is_inclusive(name):
    assert decode_image(CASES[name], max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageTooLargeError, match=f"{WIDTH}x{HEIGHT}"):
        decode_image(CASES[name], max_pixels=HEIGHT * WIDTH - 1)


def test_format_is_told_by_content_when_the_name_says_otherwise(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(CASES["jpeg"])
    assert np.array_equal(decode_image(path), decode_image(CASES["jpeg"]))
    assert np.array_equal(decode_image(str(path)), decode_image(CASES["jpeg"]))


def test_path_is_refused_when_it_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent.jpg", tmp_path, f"{tmp_path}/\0"):
        with pytest.raises(ImageUnreadableError):
            decode_image(path)


@pytest.mark.parametrize("name", CASES)
def test_truncation_gives_a_named_error_wherever_it_falls(name):
    data = CASES[name]
    for length in range(0, len(data), 1 if len(data) < 3000 else 7):
        with pytest.raises(ImageUnreadableError):
            decode_image(data[:length])


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_bytes_after_the_image_do_no_harm(name):
    assert np.array_equal(decode_image(CASES[name] + b"trailing" * 100), decode_image(CASES[name]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(CASES)),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    near_start=st.booleans(),
)
def test_damage_gives_an_image_or_a_named_error(name, changes, near_start):
    data = bytearray(CASES[name])
    for place, value in changes:
        data[place % (min(64, len(data)) if near_start else len(data))] = value
    try:
        image = decode_image(bytes(data), max_pixels=10**6)
    except ImageError:
        return
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.size <= 3 * 10**6


def test_decoders_write_nothing_when_files_are_damaged(capfd):
    for data in CASES.values():
        broken = bytearray(data)
        for place in range(len(data) // 2, len(data), 97):
            broken[place] ^= 0x55
        with contextlib.suppress(ImageError):
            decode_image(bytes(broken))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def assert_equal_to_cv2(paths):
    for path in paths:
        assert np.array_equal(decode_image(path), cv2.imread(str(path))[..., ::-1]), path


@pytest.mark.shared
def test_some_shared_images_equal_cv2_imread(shared_data):
    assert_equal_to_cv2(sorted(shared_data.glob("*/images/*/*.jpg"))[::60])


@pytest.mark.slow
@pytest.mark.shared
def test_every_shared_image_equals_cv2_imread(shared_data):
    paths = sorted(shared_data.glob("**/*.jpg"))
    assert len(paths) > 500
    assert_equal_to_cv2(paths)
