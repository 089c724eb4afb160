# SPDX-License-Identifier: Apache-2.0
"""Attacks on the decoders: H4 images that are more than they seem, H5 malformed ones; each sent to a real server."""

from __future__ import annotations

import functools
import struct
import time
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from tests.serve.attacked import BODY_BYTES, PREDICT, Attacked
from tests.vision.test_decode import CASES, bmp, exif, png_chunk, with_exif

MOST_S = 10.0
"""Longest answer: a machine that does other things, too, decodes twenty megapixels in a second."""


def png_of(
    width: int, height: int, bits: int, colours: int, data: bytes, before: bytes = b"", behind: bytes = b""
) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + png_chunk(b"IDAT", data) + behind + png_chunk(b"IEND", b"")


@functools.cache
def zeros(size: int) -> bytes:
    """Deflated zeros, a thousandth of the size."""
    made = zlib.compressobj(9)
    return b"".join(made.compress(bytes(2**20)) for _ in range(size // 2**20)) + made.flush()


def bomb_1_bit() -> bytes:
    return png_of(30_000, 30_000, 1, 0, zeros(30_000 * 3751))


def small(before: bytes = b"", behind: bytes = b"") -> bytes:
    return png_of(8, 8, 8, 2, zlib.compress(bytes(8 * 25)), before, behind)


def text_bomb(kind: bytes) -> bytes:
    return small(png_chunk(kind, b"Comment\0\0" + zeros(128 * 2**20)))


def international_text_bomb() -> bytes:
    return small(png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros(128 * 2**20)))


def apng(frames: int) -> bytes:
    control = png_chunk(b"acTL", struct.pack(">II", frames, 0))
    first = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 1, 0, 0))
    body, others = zlib.compress(bytes(8 * 25)), []
    for number in range(1, 2 * frames - 1, 2):
        others.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 8, 8, 0, 0, 1, 1, 0, 0)))
        others.append(png_chunk(b"fdAT", struct.pack(">I", number + 1) + body))
    return small(control + first, b"".join(others))


def apng_that_lies(frames: int, side: int) -> bytes:
    control = png_chunk(b"acTL", struct.pack(">II", frames, 0))
    first = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, side, side, 0, 0, 1, 1, 0, 0))
    return small(control + first)


def gif(frames: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame * frames + b"\x3b"


def tiff(pages: int) -> bytes:
    found = [b"II*\0" + struct.pack("<I", 8)]
    for page in range(pages):
        here = 8 + page * 18
        found.append(struct.pack("<HHHII", 1, 256, 3, 1, 1) + struct.pack("<I", here + 18))
    return b"".join(found)


@functools.cache
def progressive(side: int, scans: int, subsampled: bool = False) -> bytes:
    """A progressive JPEG whose last scan is repeated: a few bytes each, and a pass over all pixels."""
    data = cv2.imencode(".jpg", np.full((side, side), 128, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    place = data.rindex(b"\xff\xda")
    return data[:place] + data[place:-2] * scans + b"\xff\xd9"


def sequential(side: int, scans: int) -> bytes:
    """A JPEG of several channels, one a scan, the last repeated."""
    data = progressive(side, 1)
    return data.replace(b"\xff\xc2", b"\xff\xc0", 1)[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0\0" * scans + b"\xff\xd9"


def webp(chunks: bytes, flags: int = 0, width: int = 8, height: int = 8) -> bytes:
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<II", 10, flags) + size + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_frames(count: int) -> bytes:
    picture = cv2.imencode(".webp", np.zeros((8, 8, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()[12:]
    frame = bytes(6) + (7).to_bytes(3, "little") * 2 + (10).to_bytes(3, "little") + b"\0" + picture
    one = b"ANMF" + struct.pack("<I", len(frame)) + frame
    return webp(b"ANIM" + struct.pack("<II", 6, 0) + b"\0\0" + one * count, 0x02)


def webp_that_lies() -> bytes:
    picture = cv2.imencode(".webp", np.zeros((4000, 4000, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()
    return webp(picture[12:])


BOMBS: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "1-bit-png": (bomb_1_bit, (413,)),
    "png-zTXt": (lambda: text_bomb(b"zTXt"), (200, 400)),
    "png-iCCP": (lambda: text_bomb(b"iCCP"), (200, 400)),
    "png-iTXt": (international_text_bomb, (200, 400)),
    "png-more-data-than-pixels": (lambda: png_of(8, 8, 8, 2, zeros(128 * 2**20)), (200, 400)),
    "png-a-million-chunks": (lambda: small(png_chunk(b"teSt", b"") * 600_000), (415,)),
    "png-many-exif": (lambda: small(png_chunk(b"eXIf", exif(1)) * 90_000), (200,)),
    "apng-1e5-frames": (lambda: apng(40_000), (200, 400, 413, 415)),
    "apng-that-promises-frames": (lambda: apng_that_lies(2**31 - 1, 8), (200, 400)),
    "apng-with-a-huge-frame": (lambda: apng_that_lies(2, 2**30), (200, 400)),
    "gif-1e5-frames": (lambda: gif(100_000), (415,)),
    "tiff-1e5-pages": (lambda: tiff(100_000), (415,)),
    "jpeg-progressive-scans": (lambda: progressive(4400, 3000), (415,)),
    "jpeg-progressive-scans-within-the-limit": (lambda: progressive(4400, 40), (200, 400, 413)),
    "jpeg-sequential-scans": (lambda: sequential(4400, 3000), (400, 415)),
    "jpeg-end-in-a-comment-then-scans": (
        lambda: progressive(4400, 3000).replace(b"\xff\xda", b"\xff\xfe\0\x04\xff\xd9\xff\xda", 1),
        (415,),
    ),
    "jpeg-fill-bytes": (lambda: b"\xff\xd8" + b"\xff" * (BODY_BYTES - 100), (400,)),
    "jpeg-empty-segments": (lambda: b"\xff\xd8" + b"\xff\xe5\0\x02" * (BODY_BYTES // 4 - 10), (415,)),
    "jpeg-standalone-markers": (lambda: b"\xff\xd8\xff\x01" + b"\xff\x01" * (BODY_BYTES // 2 - 10), (415,)),
    "jpeg-many-exif": (lambda: with_many_exif(), (200, 415)),
    "webp-animation": (lambda: webp_frames(40_000), (200, 400)),
    "webp-a-million-chunks": (lambda: webp(CASES["webp"][12:] + b"teSt\0\0\0\0" * 900_000, 0, 53, 37), (415,)),
    "webp-larger-within": (webp_that_lies, (400,)),
    "avif": (lambda: b"\0\0\0\x20ftypavis" + bytes(1000), (415,)),
    "svg": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', (415,)),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n", (415,)),
    "psd": (lambda: b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + bytes(100), (415,)),
    "fits": (lambda: b"SIMPLE  =                    T".ljust(2880), (415,)),
    "pdf": (lambda: b"%PDF-1.7\n", (415,)),
    "hdr": (lambda: b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 99999 +X 99999\n", (415,)),
    "pnm": (lambda: b"P6 99999 99999 255\n", (415,)),
    "bmp-run-length": (lambda: bmp(8, 1, b"\0\1", width=4400, height=4400), (200, 400)),
    "bmp-that-begins-an-avif": (lambda: b"BM\0\x20ftypavif" + bytes(1000), (400, 415)),
}  # fmt: skip


def test_h4_bytes_behind_a_jpeg_are_no_scans(attacked: Attacked) -> None:
    behind = np.random.default_rng(0).bytes(10_000) + b"\xff\xda" * 1000
    with attacked.served.client as client:
        for image in (CASES["jpeg"], CASES["jpeg-progressive"], CASES["jpeg-restart-markers"]):
            alone, together = (client.post(PREDICT, content=one).json()["images"] for one in (image, image + behind))
            assert together == alone


def with_many_exif() -> bytes:
    body = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(60_000)
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return CASES["jpeg"][:2] + segment * 120 + CASES["jpeg"][2:]


@pytest.mark.parametrize("name", BOMBS, ids=[f"H4-{name}" for name in BOMBS])
def test_bomb_is_defused(attacked: Attacked, name: str) -> None:
    make, statuses = BOMBS[name]
    data = make()
    assert len(data) <= BODY_BYTES
    before = time.monotonic()
    answer = attacked.ask("POST", PREDICT, content=data, headers={"content-type": "image/png"})
    took_s = time.monotonic() - before
    assert answer.status_code in statuses, answer.text
    assert took_s < MOST_S
    if answer.status_code != 200:
        assert answer.json()["error"]["code"] in ("image-too-large", "image-unreadable", "image-format")


MALFORMED: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "0x0-png": (png_of(0, 0, 8, 2, b""), (400,)),
    "0x0-jpeg": (CASES["jpeg"].replace(b"\0\x25\0\x35", bytes(4), 1), (400,)),
    "0x9-bmp": (bmp(24, 0, b"", width=0, height=9), (400,)),
    "negative-bmp": (bmp(24, 0, bytes(99), width=-3, height=9), (400,)),
    "least-height-bmp": (bmp(24, 0, bytes(99), width=3, height=-(2**31)), (400,)),
    "1x1-png": (png_of(1, 1, 8, 2, zlib.compress(bytes(4))), (200,)),
    "1x20000-png": (png_of(1, 20_000, 8, 2, zlib.compress(bytes(4 * 20_000))), (200,)),
    "20000x1-png": (png_of(20_000, 1, 8, 2, zlib.compress(bytes(60_001))), (200,)),
    "1000000x1-png": (png_of(1_000_000, 1, 1, 0, zlib.compress(bytes(125_001))), (200, 400)),
    "16-bit": (CASES["png-16-bit"], (200,)),
    "palette": (CASES["png-palette"], (200,)),
    "alpha": (CASES["png-alpha"], (200,)),
    "palette-without-one": (png_of(8, 8, 8, 3, zlib.compress(bytes(72))), (400,)),
    "3-bit": (png_of(8, 8, 3, 0, zlib.compress(bytes(72))), (400,)),
    "colour-type-5": (png_of(8, 8, 8, 5, zlib.compress(bytes(72))), (400,)),
    "wrong-checksum": (CASES["png"][:40] + bytes([CASES["png"][40] ^ 1]) + CASES["png"][41:], (400,)),
    "4-gb-chunk": (CASES["png"][:33] + b"\xff\xff\xff\xffIDAT" + CASES["png"][41:], (400,)),
    "4-gb-webp-chunk": (CASES["webp"][:16] + b"\xff\xff\xff\xff" + CASES["webp"][20:], (400,)),
    "4-gb-riff": (CASES["webp"][:4] + b"\xff\xff\xff\xff" + CASES["webp"][8:], (400,)),
    "4-gb-bmp-offset": (CASES["bmp"][:10] + b"\xff\xff\xff\xff" + CASES["bmp"][14:], (400,)),
    "4-gb-bmp-header": (CASES["bmp"][:14] + b"\xff\xff\xff\xff" + CASES["bmp"][18:], (200, 400)),
    "4-gb-palette": (CASES["bmp-palette"][:46] + b"\xff\xff\xff\xff" + CASES["bmp-palette"][50:], (200, 400)),
    "segment-of-0-bytes": (CASES["jpeg"][:4] + b"\0\0" + CASES["jpeg"][6:], (200, 400)),
    "segment-past-the-end": (CASES["jpeg"][:4] + b"\xff\xff" + CASES["jpeg"][6:], (400,)),
    "two-frames": (CASES["jpeg"].replace(b"\xff\xda", CASES["jpeg"][158:177] + b"\xff\xda", 1), (200, 400)),
    "exif-lies": (with_exif("jpeg", exif(9)), (200,)),
    "exif-loops": (with_exif("jpeg", b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"), (200,)),
    "exif-turned-png": (with_exif("png", exif(6)), (200,)),
}


@pytest.mark.parametrize("name", MALFORMED, ids=[f"H5-{name}" for name in MALFORMED])
def test_malformed_image_gets_a_named_error_or_an_answer(attacked: Attacked, name: str) -> None:
    data, statuses = MALFORMED[name]
    answer = attacked.ask("POST", PREDICT, content=data)
    assert answer.status_code in statuses, answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["code"] in ("image-unreadable", "image-format", "image-too-large")


@pytest.mark.parametrize("name", ["jpeg", "png-palette", "webp", "bmp-palette"])
def test_h5_image_cut_off_anywhere_gets_a_named_error(attacked: Attacked, name: str) -> None:
    data = CASES[name]
    with attacked.served.client as client:
        for length in range(0, len(data), max(len(data) // 150, 1)):
            answer = client.post(PREDICT, content=data[:length])
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "image-unreadable"), length
