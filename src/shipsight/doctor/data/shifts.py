# SPDX-License-Identifier: Apache-2.0
"""What can happen to images on their way: each kind of change with its strength, as a function of pixels. Pure.

Applied to golden images, a change shows what it does to every measure (`explaining`) and what it costs (`costing`). Rules: strength
0 is no change; a change tells where a point of the image went. Private.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.vision import import_cv2

__all__ = ["KINDS", "Kind", "Moved", "cast_kind"]

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
_UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True, eq=False)
class Moved:
    """A changed image.

    Attributes:
        image_rgb: (h, w, 3) uint8 RGB.
        affine: (2, 3) brings x, y of the original to x, y of this.
    """

    image_rgb: Image
    affine: FloatArray


Change = Callable[[Image, float], Image | Moved]


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of change.

    Attributes:
        name: stable.
        rules: ids of the rules that tell of it: where its strength is below 0, and above.
        ladder: rising strengths at which its effect is measured.
        needs: measures of which one must deviate clearly, and how: -1 less, 1 more, 0 either; at the strengths below 0 the other way.
        change: does it.
        tell: strength -> in words.
        parameters: how many numbers were fitted to the data for it.
        is_whole: whether there is nothing between the strengths of the ladder: it was done or not.
    """

    name: str
    rules: tuple[str, str]
    ladder: tuple[float, ...]
    needs: Mapping[str, int]
    change: Change
    tell: Callable[[float], str]
    parameters: int = 1
    is_whole: bool = False

    def apply(self, image_rgb: Image, strength: float) -> Moved:
        """Returns the image changed: (H, W, 3) uint8 RGB in, the same kind out, possibly of another size."""
        changed = self.change(image_rgb, strength)
        return changed if isinstance(changed, Moved) else Moved(changed, _UPRIGHT)


def _clip(values: NDArray[Any]) -> Image:
    result: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result


def _table(image_rgb: Image, levels: FloatArray) -> Image:
    result: Image = _clip(levels)[image_rgb]
    return result


_LEVELS = np.arange(256, dtype=np.float64)


def _gain(image_rgb: Image, strength: float) -> Image:
    return _table(image_rgb, _LEVELS * 2.0**strength)


def _gamma(image_rgb: Image, strength: float) -> Image:
    return _table(image_rgb, 255 * (_LEVELS / 255) ** (2.0**-strength))


def _offset(image_rgb: Image, strength: float) -> Image:
    return _table(image_rgb, _LEVELS + strength)


def _contrast(image_rgb: Image, strength: float) -> Image:
    middle = float(image_rgb.mean())
    return _table(image_rgb, middle + (_LEVELS - middle) * 2.0**strength)


def _contrast_grey(image_rgb: Image, strength: float) -> Image:
    return _table(image_rgb, 128 + (_LEVELS - 128) * 2.0**strength)


def _fog(image_rgb: Image, strength: float) -> Image:
    return _table(image_rgb, _LEVELS + (225 - _LEVELS) * strength)


def _blur(image_rgb: Image, strength: float) -> Image:
    cv2 = import_cv2()
    return image_rgb if strength <= 0 else np.asarray(cv2.GaussianBlur(image_rgb, (0, 0), strength), dtype=np.uint8)


def _motion(image_rgb: Image, strength: float) -> Image:
    """Smears along a line; between whole lengths the ends count in part."""
    cv2 = import_cv2()
    size = int(np.ceil(strength)) // 2 * 2 + 1
    weights = np.clip((strength + 1) / 2 - np.abs(np.arange(size) - size // 2) + 0.5, 0, 1)[None]
    return np.asarray(cv2.filter2D(image_rgb, -1, weights / weights.sum()), dtype=np.uint8)


def _soft(image_rgb: Image, strength: float) -> Image:
    cv2 = import_cv2()
    height, width = image_rgb.shape[:2]
    small = _resize(image_rgb, max(round(width * 2.0**-strength), 2), max(round(height * 2.0**-strength), 2))
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _draw(image_rgb: Image) -> np.random.Generator:
    return np.random.default_rng(image_rgb.shape[0] * 7919 + image_rgb.shape[1])


def _noise(image_rgb: Image, strength: float) -> Image:
    return _clip(image_rgb + strength * _draw(image_rgb).standard_normal(image_rgb.shape, dtype=np.float32))


def _grain(image_rgb: Image, strength: float) -> Image:
    grain = strength * _draw(image_rgb).standard_normal((*image_rgb.shape[:2], 1), dtype=np.float32)
    return _clip(image_rgb + grain)


def _specks(image_rgb: Image, strength: float) -> Image:
    drawn = _draw(image_rgb).random(image_rgb.shape[:2])
    result = image_rgb.copy()
    result[drawn < strength / 2] = 0
    result[drawn > 1 - strength / 2] = 255
    return result


def _grey(image_rgb: Image, strength: float) -> Image:
    luma = image_rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return _clip(image_rgb * (1 - strength) + luma[..., None] * strength)


def _jpeg(image_rgb: Image, strength: float) -> Image:
    import simplejpeg

    quality = round(100 - strength)
    encoded = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image_rgb), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    return np.asarray(simplejpeg.decode_jpeg(encoded, "RGB"), dtype=np.uint8)


def _resize(image_rgb: Image, width: int, height: int) -> Image:
    cv2 = import_cv2()
    is_smaller = width * height < image_rgb.shape[0] * image_rgb.shape[1]
    how = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image_rgb, (width, height), interpolation=how), dtype=np.uint8)


def _to_size(image_rgb: Image, width: int, height: int) -> Moved:
    scale_x, scale_y = width / image_rgb.shape[1], height / image_rgb.shape[0]
    return Moved(_resize(image_rgb, width, height), np.array([[scale_x, 0, 0], [0, scale_y, 0]]))


def _scale(image_rgb: Image, strength: float) -> Moved:
    height, width = image_rgb.shape[:2]
    return _to_size(image_rgb, max(round(width * 2.0**strength), 4), max(round(height * 2.0**strength), 4))


def _stretch(image_rgb: Image, strength: float) -> Moved:
    height, width = image_rgb.shape[:2]
    return _to_size(image_rgb, max(round(width * 2.0**strength), 4), height)


def _flatten(image_rgb: Image, strength: float) -> Moved:
    height, width = image_rgb.shape[:2]
    return _to_size(image_rgb, width, max(round(height * 2.0**-strength), 4))


def _times(strength: float) -> str:
    return f"{2.0**strength:.2f} times"


def cast_kind(gains_log: FloatArray) -> Kind:
    """Returns the change of colour that was measured.

    Args:
        gains_log: (3,) natural logarithms of what red, green and blue were multiplied by.
    """

    def change(image_rgb: Image, strength: float) -> Image:
        return _clip(image_rgb * np.exp(gains_log * strength))

    def tell(strength: float) -> str:
        red, green, blue = np.exp(gains_log * strength)
        return f"red times {red:.2f}, green times {green:.2f}, blue times {blue:.2f}"

    needs = {"red": 0, "green": 0, "blue": 0}
    # Three numbers were fitted, of which a plain change of light needs one.
    return Kind("cast", ("colour-cast", "colour-cast"), (0.4, 0.8, 1.0, 1.3), needs, change, tell, parameters=3)


_DARK = ("images-darker", "images-brighter")
_LOW = ("contrast-lower", "contrast-higher")
_BLUR = ("images-blurred", "images-blurred")
_NOISY = ("images-noisier", "images-noisier")
_SIZE = ("images-smaller", "images-larger")
_ASPECT = ("aspect-changed", "aspect-changed")

KINDS: tuple[Kind, ...] = (
    Kind("gain", _DARK, (-3.0, -1.8, -1.0, -0.5, -0.2, 0.2, 0.35, 0.5, 0.75, 1.1), {"brightness": 1}, _gain, _times),
    Kind(
        "gamma",
        _DARK,
        (-2.0, -1.2, -0.6, -0.25, 0.25, 0.6, 1.2),
        {"brightness": 1},
        _gamma,
        lambda s: f"a gamma of {2.0**-s:.2f}",
    ),
    Kind(
        "offset",
        _DARK,
        (-110, -60, -30, -12, 12, 30, 60, 110),
        {"brightness": 1},
        _offset,
        lambda s: f"{s:+.0f} levels",
    ),
    Kind("contrast", _LOW, (-2.5, -1.5, -0.8, -0.3, 0.3, 0.8), {"contrast": 1}, _contrast, _times),
    Kind("contrast-grey", _LOW, (-2.5, -1.5, -0.8, -0.3, 0.3, 0.8), {"contrast": 1}, _contrast_grey, _times),
    Kind(
        "fog",
        ("contrast-lower",) * 2,
        (0.1, 0.25, 0.45, 0.65, 0.85),
        {"contrast": -1},
        _fog,
        lambda s: f"{s:.0%} of a bright veil",
    ),
    Kind("blur", _BLUR, (0.5, 0.8, 1.3, 2.2, 4.0), {"sharpness": -1}, _blur, lambda s: f"a blur of {s:.1f} px"),
    Kind("motion", _BLUR, (2.0, 4.0, 8.0, 16.0), {"sharpness": -1}, _motion, lambda s: f"smeared over {s:.0f} px"),
    Kind(
        "soft",
        _BLUR,
        (0.4, 0.8, 1.4, 2.2),
        {"sharpness": -1},
        _soft,
        lambda s: f"detail of an image {2.0**s:.1f} times smaller",
    ),
    Kind("noise", _NOISY, (2.0, 5.0, 12.0, 25.0, 50.0), {"noise": 1}, _noise, lambda s: f"{s:.0f} levels of noise"),
    Kind("grain", _NOISY, (2.0, 5.0, 12.0, 25.0, 50.0), {"noise": 1}, _grain, lambda s: f"{s:.0f} levels of grain"),
    Kind(
        "specks", _NOISY, (0.002, 0.01, 0.03, 0.1), {"noise": 1}, _specks, lambda s: f"{s:.1%} of pixels black or white"
    ),
    Kind(
        "grey",
        ("colour-lost",) * 2,
        (0.25, 0.5, 0.8, 1.0),
        {"saturation": -1, "colourfulness": -1},
        _grey,
        lambda s: f"{s:.0%} of the colour",
    ),
    Kind(
        "jpeg",
        ("compression-stronger",) * 2,
        (10, 25, 45, 65, 80, 92),
        {"jpeg_quality": -1, "blockiness": 1},
        _jpeg,
        lambda s: f"JPEG quality {100 - s:.0f}",
    ),
    Kind("scale", _SIZE, (-3.5, -2.2, -1.2, -0.6, -0.25, 0.3, 0.8, 1.6), {"width": 1, "height": 1}, _scale, _times),
    Kind(
        "stretch",
        _ASPECT,
        (-1.0, -0.5, -0.2, 0.2, 0.5, 1.0),
        {"aspect": 1},
        _stretch,
        lambda s: f"width {2.0**s:.2f} times",
    ),
    Kind(
        "flatten",
        _ASPECT,
        (-1.0, -0.5, -0.2, 0.2, 0.5, 1.0),
        {"aspect": 1},
        _flatten,
        lambda s: f"height {2.0**-s:.2f} times",
    ),
)
"""Every kind but a colour cast, whose direction is measured (`cast_kind`), and a quarter turn (`correcting.QUARTER`)."""
