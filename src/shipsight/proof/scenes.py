# SPDX-License-Identifier: Apache-2.0
"""Synthetic scenes: pictures that hold no private pixel and yet make a model predict something.

Leaves to others: choosing those on which a given model predicts something (`golden`). Invariants: a scene is a function
of two numbers alone; only NumPy's frozen `RandomState` stream and plain arithmetic are used, so that it is the same
everywhere. `subject` decides what stands in it, `setting` the colours, light, background and grain. Stable: changing a
scene changes what old bundles can be rebuilt to, not how they are read (they carry the pixels).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["make_scene"]

Image = NDArray[np.float64]
Mask = NDArray[np.float64]
Random = np.random.RandomState
_SIZES = ((480, 640), (640, 480), (512, 512), (360, 640), (416, 416), (320, 480))


def make_scene(subject: int, setting: int = 0) -> NDArray[np.uint8]:
    """Makes a picture.

    Args:
        subject: seed of what stands in it, 0 to 2**31.
        setting: seed of how it looks, 0 to 2**31.

    Returns:
        (H, W, 3) uint8 RGB, H and W between 320 and 640.
    """
    things, look = Random(subject % 2**32), Random((setting * 7919 + subject * 104729 + 1) % 2**32)
    height, width = _SIZES[things.randint(len(_SIZES))]
    image = _BACKGROUNDS[look.randint(len(_BACKGROUNDS))](look, height, width)
    theme = _THEMES[subject % len(_THEMES)]
    for _ in range(things.randint(2, 13)):
        theme(things, look, image)
    contrast, level = look.uniform(0.75, 1.15), look.uniform(-12, 12)
    image = (image - 128) * contrast + 128 + level
    image += look.uniform(-1, 1, size=(height, width, 1)) * look.choice([0, 0, 2, 5])
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _colour(random: Random, low: int = 20, high: int = 235) -> NDArray[np.float64]:
    return random.randint(low, high, size=3).astype(np.float64)


def _flat(random: Random, height: int, width: int) -> Image:
    return np.full((height, width, 3), _colour(random, 60, 245))


def _gradient(random: Random, height: int, width: int) -> Image:
    y, x = np.mgrid[:height, :width]
    along = (x / width * random.uniform(-1, 1) + y / height)[..., None]
    along = (along - along.min()) / max(float(np.ptp(along)), 1e-9)
    image: Image = _colour(random) * (1 - along) + _colour(random) * along
    return image


def _noise(random: Random, height: int, width: int) -> Image:
    """Smooth noise of three octaves around one colour."""
    field = np.zeros((height, width))
    for step, weight in ((96, 1.0), (40, 0.5), (16, 0.25)):
        field += weight * _smooth(
            random.uniform(-1, 1, size=(height // step + 3, width // step + 3)), height, width, step
        )
    image: Image = _colour(random, 70, 200) + field[..., None] * random.uniform(10, 45)
    return image


def _smooth(grid: NDArray[np.float64], height: int, width: int, step: int) -> NDArray[np.float64]:
    y, x = np.arange(height) / step, np.arange(width) / step
    row, column = y.astype(int), x.astype(int)
    fy, fx = (y - row)[:, None], (x - column)[None, :]
    top = grid[row][:, column] * (1 - fx) + grid[row][:, column + 1] * fx
    bottom = grid[row + 1][:, column] * (1 - fx) + grid[row + 1][:, column + 1] * fx
    field: NDArray[np.float64] = top * (1 - fy) + bottom * fy
    return field


def _tiles(random: Random, height: int, width: int) -> Image:
    y, x = np.mgrid[:height, :width]
    side = random.randint(16, 90)
    odd = (((y // side) + (x // side)) % 2)[..., None]
    image: Image = _colour(random, 60, 220) + odd * random.uniform(-40, 40)
    return image


def _stripes(random: Random, height: int, width: int) -> Image:
    y, x = np.mgrid[:height, :width]
    period = random.randint(10, 70)
    slant = random.uniform(-1, 1)
    phase = (((x + slant * y) // period) % 2)[..., None]
    image: Image = _colour(random, 60, 220) + phase * random.uniform(-35, 35)
    return image


def _horizon(random: Random, height: int, width: int) -> Image:
    """Sky above, ground below: where things stand in photographs."""
    image = _gradient(random, height, width)
    line = int(height * random.uniform(0.35, 0.65))
    image[:line] = np.array([150.0, 185, 225]) + np.linspace(-25, 25, line)[:, None, None]
    ground = _noise(random, height - line, width)
    image[line:] = ground * 0.7 + 20
    return image


_BACKGROUNDS: tuple[Callable[[Random, int, int], Image], ...] = (_flat, _gradient, _noise, _tiles, _stripes, _horizon)


def _blend(image: Image, box: tuple[int, int, int, int], mask: Mask, colour: NDArray[np.float64]) -> None:
    """Lays a colour (3,) or (h, w, 3) over the window y0, x0, y1, x1, as far as it lies in the image."""
    y0, x0, y1, x1 = box
    top, left = max(y0, 0), max(x0, 0)
    bottom, right = min(y1, image.shape[0]), min(x1, image.shape[1])
    if top >= bottom or left >= right:
        return
    cut = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
    weight = mask[cut][..., None]
    paint = colour if colour.ndim == 1 else colour[cut]
    window = image[top:bottom, left:right]
    window[...] = window * (1 - weight) + paint * weight


def _ellipse(height: int, width: int, *, soft: float = 0.06) -> Mask:
    y = (np.arange(height)[:, None] + 0.5) / height * 2 - 1
    x = (np.arange(width)[None, :] + 0.5) / width * 2 - 1
    mask: Mask = np.clip((1 - np.sqrt(y * y + x * x)) / soft, 0, 1)
    return mask


def _round_box(height: int, width: int, *, corner: float = 0.25) -> Mask:
    y = np.abs((np.arange(height)[:, None] + 0.5) / height * 2 - 1)
    x = np.abs((np.arange(width)[None, :] + 0.5) / width * 2 - 1)
    across, down = np.clip((x - 1 + corner) / corner, 0, 1), np.clip((y - 1 + corner) / corner, 0, 1)
    mask: Mask = np.clip((1 - np.sqrt(across**2 + down**2)) * 8, 0, 1)
    return mask


def _place(things: Random, image: Image, low: float, high: float) -> tuple[int, int, int]:
    """Returns centre y, centre x and a size in pixels."""
    height, width = image.shape[:2]
    size = int(min(height, width) * things.uniform(low, high))
    return things.randint(0, height), things.randint(0, width), max(size, 8)


def _shaded(height: int, width: int, colour: NDArray[np.float64], light: float) -> Image:
    y = (np.arange(height)[:, None] / height - 0.35) * light
    x = (np.arange(width)[None, :] / width - 0.35) * light
    return np.clip(colour - (y * y + x * x)[..., None] * 120, 0, 255)


def _shape(things: Random, look: Random, image: Image) -> None:
    """Ball, fruit, box, plate: one shaded shape."""
    y, x, size = _place(things, image, 0.08, 0.45)
    height, width = size, max(int(size * things.uniform(0.5, 1.8)), 8)
    mask = _ellipse(height, width) if things.randint(2) else _round_box(height, width, corner=things.uniform(0.1, 0.6))
    box = (y - height // 2, x - width // 2, y - height // 2 + height, x - width // 2 + width)
    _blend(image, (box[0] + 4, box[1] + 4, box[2] + 4, box[3] + 4), mask * 0.3, np.zeros(3))
    _blend(image, box, mask, _shaded(height, width, _colour(look), look.uniform(0.4, 1.4)))


def _cell(things: Random, look: Random, image: Image) -> None:
    """A blood cell: a pale disc with a brighter middle, or a dark nucleus, or a small dot."""
    y, x, size = _place(things, image, 0.12, 0.26)
    kind = things.randint(6)
    tint = np.array([205.0, 150, 165]) + look.uniform(-18, 18, size=3)
    if kind == 0:
        size = int(size * 1.5)
        tint = np.array([190.0, 170, 205]) + look.uniform(-10, 10, size=3)
    elif kind == 1:
        size, tint = max(size // 4, 8), np.array([150.0, 95, 165])
    height, width = size, max(int(size * things.uniform(0.85, 1.15)), 8)
    box = (y - height // 2, x - width // 2, y - height // 2 + height, x - width // 2 + width)
    _blend(image, box, _ellipse(height, width) * 0.95, tint)
    inner = (
        box[0] + height // 4,
        box[1] + width // 4,
        box[0] + height // 4 + height // 2,
        box[1] + width // 4 + width // 2,
    )
    if kind == 0:
        for _ in range(3):
            dy, dx = things.randint(-height // 8, height // 8 + 1), things.randint(-width // 8, width // 8 + 1)
            lobe = (inner[0] + dy, inner[1] + dx, inner[2] + dy, inner[3] + dx)
            _blend(image, lobe, _ellipse(height // 2, width // 2), np.array([95.0, 60, 140]))
    elif kind > 1:
        _blend(image, inner, _ellipse(height // 2, width // 2, soft=0.9) * 0.6, np.array([232.0, 200, 205]))


_SEGMENTS = ("abcefg", "cf", "acdeg", "acdfg", "bcdf", "abdfg", "abdefg", "acf", "abcdefg", "abcdfg")


def _digit(things: Random, look: Random, image: Image) -> None:
    """A digit of seven strokes, softened like handwriting."""
    y, x, size = _place(things, image, 0.12, 0.4)
    height, width = size, max(int(size * things.uniform(0.55, 0.8)), 8)
    thick = max(int(size * things.uniform(0.1, 0.2)), 3)
    mask = np.zeros((height, width))
    bars = {
        "a": (0, 0, thick, width),
        "b": (0, 0, height // 2, thick),
        "c": (0, width - thick, height // 2, width),
        "d": (height // 2 - thick // 2, 0, height // 2 + thick - thick // 2, width),
        "e": (height // 2, 0, height, thick),
        "f": (height // 2, width - thick, height, width),
        "g": (height - thick, 0, height, width),
    }
    for name in _SEGMENTS[things.randint(10)]:
        y0, x0, y1, x1 = bars[name]
        mask[y0:y1, x0:x1] = np.maximum(mask[y0:y1, x0:x1], _round_box(y1 - y0, x1 - x0, corner=0.6))
    shift = np.round((np.arange(height) / height - 0.5) * things.uniform(-0.3, 0.3) * width).astype(int)
    columns = np.arange(width)[None, :] - shift[:, None]
    inside = (columns >= 0) & (columns < width)
    mask = np.where(inside, np.take_along_axis(mask, np.clip(columns, 0, width - 1), axis=1), 0)
    ink = _colour(look, 0, 70) if look.randint(2) else _colour(look, 200, 255)
    _blend(image, (y - height // 2, x - width // 2, y - height // 2 + height, x - width // 2 + width), mask, ink)


def _figure(things: Random, look: Random, image: Image) -> None:
    """A standing person of head, trunk, arms and legs."""
    height_all = image.shape[0]
    size = int(height_all * things.uniform(0.25, 0.8))
    x, y = things.randint(0, image.shape[1]), int(height_all * things.uniform(0.35, 0.7))
    skin = np.array([215.0, 170, 140]) * look.uniform(0.45, 1.1)
    shirt, trousers = _colour(look), _colour(look, 10, 120)
    top = y - size // 2

    def part(box: tuple[float, float, float, float], colour: NDArray[np.float64], *, is_round: bool = False) -> None:
        y0, x0, y1, x1 = (int(side * size) for side in box)
        height, width = max(y1 - y0, 2), max(x1 - x0, 2)
        mask = _ellipse(height, width) if is_round else _round_box(height, width, corner=0.5)
        paint = _shaded(height, width, colour, 0.8)
        _blend(image, (top + y0, x + x0, top + y0 + height, x + x0 + width), mask, paint)

    spread = things.uniform(0.02, 0.1)
    part((0.48, -0.10 - spread, 1.0, 0.0 - spread / 2), trousers)
    part((0.48, 0.0 + spread / 2, 1.0, 0.10 + spread), trousers)
    part((0.16, -0.2, 0.5, -0.12), shirt * 0.9)
    part((0.16, 0.12, 0.5, 0.2), shirt * 0.9)
    part((0.15, -0.14, 0.53, 0.14), shirt)
    part((0.0, -0.065, 0.16, 0.065), skin, is_round=True)
    part((0.0, -0.07, 0.06, 0.07), skin * 0.3, is_round=True)


def _vehicle(things: Random, look: Random, image: Image) -> None:
    """A car or lorry from the side: body, cabin with windows, wheels."""
    y, x, size = _place(things, image, 0.2, 0.7)
    paint, glass = _colour(look), np.array([70.0, 90, 105])
    tall = things.uniform(0.18, 0.4)

    def part(box: tuple[float, float, float, float], colour: NDArray[np.float64], *, is_round: bool = False) -> None:
        y0, x0, y1, x1 = (int(side * size) for side in box)
        height, width = max(y1 - y0, 2), max(x1 - x0, 2)
        mask = _ellipse(height, width) if is_round else _round_box(height, width, corner=0.3)
        _blend(image, (y + y0, x + x0, y + y0 + height, x + x0 + width), mask, _shaded(height, width, colour, 0.5))

    part((0.25, -0.5, 0.31, 0.5), np.full(3, 25.0), is_round=True)
    part((-tall, -0.28, 0.1, 0.3), paint * 0.95)
    part((-tall + 0.04, -0.24, 0.0, 0.0), glass)
    part((-tall + 0.04, 0.03, 0.0, 0.26), glass)
    part((0.0, -0.5, 0.22, 0.5), paint)
    for centre in (-0.3, 0.3):
        part((0.12, centre - 0.09, 0.3, centre + 0.09), np.full(3, 25.0), is_round=True)
        part((0.17, centre - 0.04, 0.25, centre + 0.04), np.full(3, 170.0), is_round=True)


def _furniture(things: Random, look: Random, image: Image) -> None:
    """A screen, a clock, a bottle or a table with a plate."""
    y, x, size = _place(things, image, 0.15, 0.5)
    kind = things.randint(4)

    def part(box: tuple[float, float, float, float], colour: NDArray[np.float64], *, is_round: bool = False) -> None:
        y0, x0, y1, x1 = (int(side * size) for side in box)
        height, width = max(y1 - y0, 2), max(x1 - x0, 2)
        mask = _ellipse(height, width) if is_round else _round_box(height, width, corner=0.12)
        _blend(image, (y + y0, x + x0, y + y0 + height, x + x0 + width), mask, colour)

    if kind == 0:
        part((-0.3, -0.5, 0.3, 0.5), np.full(3, 30.0))
        part((-0.27, -0.46, 0.24, 0.46), _colour(look, 60, 200))
        part((0.3, -0.06, 0.4, 0.06), np.full(3, 40.0))
        part((0.39, -0.2, 0.43, 0.2), np.full(3, 40.0))
    elif kind == 1:
        part((-0.4, -0.4, 0.4, 0.4), np.full(3, 40.0), is_round=True)
        part((-0.35, -0.35, 0.35, 0.35), np.full(3, 235.0), is_round=True)
        part((-0.26, -0.02, 0.02, 0.02), np.full(3, 20.0))
        part((-0.02, -0.02, 0.02, 0.2), np.full(3, 20.0))
    elif kind == 2:
        glass = _colour(look, 10, 160)
        part((-0.5, -0.05, -0.25, 0.05), glass)
        part((-0.3, -0.13, 0.5, 0.13), glass)
        part((-0.05, -0.13, 0.25, 0.13), _colour(look, 180, 250))
    else:
        part((0.0, -0.6, 0.12, 0.6), np.array([140.0, 95, 55]))
        part((-0.12, -0.3, 0.02, 0.3), np.full(3, 240.0), is_round=True)
        part((-0.2, -0.16, -0.02, 0.16), _colour(look, 80, 230), is_round=True)


def _mixture(things: Random, look: Random, image: Image) -> None:
    _ALL[things.randint(len(_ALL))](things, look, image)


Theme = Callable[[Random, Random, Image], None]
_ALL: tuple[Theme, ...] = (_shape, _cell, _digit, _figure, _vehicle, _furniture)
_THEMES: tuple[Theme, ...] = (_figure, _digit, _cell, _vehicle, _shape, _furniture, _mixture, _figure)
