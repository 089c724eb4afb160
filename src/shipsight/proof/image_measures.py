# SPDX-License-Identifier: Apache-2.0
"""Numbers that describe one image: light, colour, sharpness, noise, compression.

Leaves to others: distributions over many (`statistics`). Invariants: a function of the pixels (and, for compression,
of the file) alone; sharpness and noise are measured at full resolution, in the middle 512 x 512 pixels at most.
Stable. Sources: J. Immerkaer, "Fast Noise Variance Estimation", CVIU 64 (1996); D. Hasler and S. Suesstrunk, "Measuring
colourfulness in natural images", SPIE 5007 (2003); ITU-T T.81 annexes B.2.4.1 and K.1 (quantization tables).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEASURES", "estimate_jpeg_quality", "measure_image"]

_MIDDLE = 512
_PIXELS = 200_000  # light and colour are read from about so many, evenly spaced
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

MEASURES: dict[str, str] = {
    "width": "px",
    "height": "px",
    "aspect": "width / height",
    "brightness": "mean luma, 0 to 255",
    "contrast": "standard deviation of luma",
    "sharpness": "variance of the Laplacian of luma",
    "noise": "standard deviation, levels",
    "red": "mean, 0 to 255",
    "green": "mean, 0 to 255",
    "blue": "mean, 0 to 255",
    "saturation": "mean, 0 to 1",
    "colourfulness": "Hasler and Suesstrunk's M3",
}
"""Name -> unit of each number that `measure_image` gives."""

# Luminance table of T.81 annex K.1, in the zigzag order in which files store it.
_STANDARD = np.frombuffer(
    bytes.fromhex(
        "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c393338374048"
        "5c4e404457453738506d51575f626768673e4d71797064785c656763"
    ),
    dtype=np.uint8,
).astype(np.float64)


def measure_image(image_rgb: NDArray[np.uint8]) -> dict[str, float]:
    """Measures an image.

    Args:
        image_rgb: (H, W, 3) uint8 RGB.

    Returns:
        The numbers that `MEASURES` names.
    """
    height, width = image_rgb.shape[:2]
    step = max(1, int(np.ceil(np.sqrt(height * width / _PIXELS))))
    few = image_rgb[::step, ::step].astype(np.float32)
    luma = few @ _LUMA
    red, green, blue = (float(few[..., channel].mean(dtype=np.float64)) for channel in range(3))
    # Channel by channel: over an axis of three, NumPy's own maximum takes ten times as long.
    most = np.maximum(np.maximum(few[..., 0], few[..., 1]), few[..., 2])
    least = np.minimum(np.minimum(few[..., 0], few[..., 1]), few[..., 2])
    laplacian, noise = _fine_detail(_middle(image_rgb).astype(np.float32) @ _LUMA)
    return {
        "width": float(width),
        "height": float(height),
        "aspect": width / height,
        "brightness": float(luma.mean(dtype=np.float64)),
        "contrast": float(luma.std(dtype=np.float64)),
        "sharpness": laplacian,
        "noise": noise,
        "red": red,
        "green": green,
        "blue": blue,
        "saturation": float(((most - least) / np.maximum(most, 1)).mean(dtype=np.float64)),
        "colourfulness": _colourfulness(few),
    }


def _middle(image_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image_rgb.shape[:2]
    top, left = max(0, (height - _MIDDLE) // 2), max(0, (width - _MIDDLE) // 2)
    return image_rgb[top : top + _MIDDLE, left : left + _MIDDLE]


def _fine_detail(luma: NDArray[np.float32]) -> tuple[float, float]:
    """Returns the variance of the Laplacian and Immerkaer's noise; 0 where the image is smaller than 3 x 3."""
    height, width = luma.shape
    if min(height, width) < 3:
        return 0.0, 0.0
    centre = luma[1:-1, 1:-1]
    cross = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    corners = luma[:-2, :-2] + luma[:-2, 2:] + luma[2:, :-2] + luma[2:, 2:]
    laplacian = cross - 4 * centre
    mask = corners - 2 * cross + 4 * centre
    noise = float(np.abs(mask).sum(dtype=np.float64) * np.sqrt(np.pi / 2) / (6 * (height - 2) * (width - 2)))
    return float(laplacian.var(dtype=np.float64)), noise


def _colourfulness(image: NDArray[np.float32]) -> float:
    red_green = image[..., 0] - image[..., 1]
    yellow_blue = (image[..., 0] + image[..., 1]) / 2 - image[..., 2]
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def estimate_jpeg_quality(data: bytes) -> float | None:
    """Estimates the quality, 1 to 100, that a JPEG file was written with, as the IJG's encoder counts it.

    Args:
        data: the file, or its beginning up to the first scan.

    Returns:
        The quality, None where the file is not a JPEG or holds no luminance table.
    """
    table = _luminance_table(data)
    if table is None:
        return None
    scale = float(np.median(table * 100 / _STANDARD))  # entries are rounded and limited to 1 and more
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return float(np.clip(quality, 1, 100))


def _luminance_table(data: bytes) -> NDArray[np.float64] | None:
    if data[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA or size < 2:  # the scan starts
            return None
        if marker == 0xDB:
            found = _table_zero(data[position + 4 : position + 2 + size])
            if found is not None:
                return found
        position += 2 + size
    return None


def _table_zero(segment: bytes) -> NDArray[np.float64] | None:
    """Returns table 0 of a DQT segment, which may hold several of 8 or 16 bits."""
    position = 0
    while position < len(segment):
        wide, number = segment[position] >> 4, segment[position] & 15
        length = 128 if wide else 64
        body = segment[position + 1 : position + 1 + length]
        if len(body) < length:
            return None
        if number == 0:
            return np.frombuffer(body, dtype=">u2" if wide else "u1").astype(np.float64)
        position += 1 + length
    return None
