# SPDX-License-Identifier: Apache-2.0
"""Preprocessing as a chain of steps, each with what else it might be, and what a chain makes of an image. Pure. Private to the room.

Leaves to others: which chain it was. Rules: levels are 0 to 255 and float32; the chain of a card gives what `vision.prepare` gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.model import Fit, InputContract
from shipsight.vision import Geometry, import_cv2
from shipsight.vision.antialias import resize_antialiased

__all__ = [
    "ALTERNATIVES",
    "Chain",
    "Photo",
    "Rendered",
    "Values",
    "expected_chain",
    "render",
    "to_levels",
    "to_values",
    "with_channels",
]

Image = NDArray[np.uint8]
FloatImage = NDArray[np.float32]
Three = tuple[float, float, float]

ALTERNATIVES: Mapping[str, tuple[Any, ...]] = {
    "turned": (True, False),
    "channels": ("rgb", "bgr", "grey"),
    "mirrored": (False, True),
    "fit": ("letterbox", "stretch", "crop"),
    "place": ("centre", "centre-late", "top-left", "bottom-right"),
    "rounding": ("nearest", "down", "up"),
    "interpolation": ("linear", "nearest", "area", "cubic", "lanczos", "antialiased", "corners", "offset"),
}
"""Steps with all that each may be. `centre-late`: the odd pixel of padding stands at the left and above. `corners`: linear, with the
corners of both images aligned; `offset`: linear, without the half pixel between an edge and a pixel's centre."""


@dataclass(frozen=True)
class Values:
    """What becomes of a level: `gain * level + offset`, in the order of the tensor's channels.

    Attributes:
        gain: never 0.
        offset: in units of the tensor.
    """

    gain: Three
    offset: Three

    @property
    def gains(self) -> FloatImage:
        """The gains as (3,) float32."""
        return np.array(self.gain, dtype=np.float32)

    @property
    def offsets(self) -> FloatImage:
        """The offsets as (3,) float32."""
        return np.array(self.offset, dtype=np.float32)


@dataclass(frozen=True)
class Chain:
    """One way from a file to a tensor. `ALTERNATIVES` has what the words may be.

    Attributes:
        size_hw: of the tensor in pixels.
        values: how levels are scaled.
        pad: levels of the padding in the order of the tensor's channels.
        turned: whether the image is turned as its file says.
        channels: which colours the tensor's channels hold.
        mirrored: left for right.
        gamma: `255 * (level / 255) ** gamma`, right after decoding.
        fit: how the size is met.
        place: where the image stands in the padding.
        rounding: of the sides of the resized image.
        interpolation: of pixels.
        layout: `nchw`, `nhwc`; `reshaped`: the memory of one read as the other; `transposed`: height and width exchanged.
    """

    size_hw: tuple[int, int]
    values: Values
    pad: Three = (114.0, 114.0, 114.0)
    turned: bool = True
    channels: str = "rgb"
    mirrored: bool = False
    gamma: float = 1.0
    fit: str = "letterbox"
    place: str = "centre"
    rounding: str = "nearest"
    interpolation: str = "linear"
    layout: str = "nchw"

    def with_step(self, step: str, value: object) -> Chain:
        """Returns it with one step changed."""
        changes: dict[str, Any] = {step: value}
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class Photo:
    """An image file, decoded.

    Attributes:
        upright: (H, W, 3) uint8 RGB, turned as the file says.
        stored: likewise, as the file holds it; the same array where it asks for no turn.
        shrunk: what was resized before, by how; filled by `render`.
    """

    upright: Image
    stored: Image
    shrunk: dict[tuple[Any, ...], Image] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class Rendered:
    """What a chain makes of an image, before colours and values.

    Attributes:
        content: (h, w, 3) uint8 RGB, the part of the tensor that is image.
        window: top, left, height and width of it in the tensor.
        geometry: where the original lies.
    """

    content: Image
    window: tuple[int, int, int, int]
    geometry: Geometry


def expected_chain(contract: InputContract) -> Chain:
    """Returns the chain that a card asks for, to float NCHW."""
    gain = tuple(contract.scale / std for std in contract.std)
    offset = tuple(-mean / std for mean, std in zip(contract.mean, contract.std, strict=True))
    pad = float(contract.pad_value)
    chain = Chain(contract.size_hw, Values(_three(gain), _three(offset)), (pad, pad, pad), channels=contract.colour)
    if contract.fit is Fit.LETTERBOX_TOP_LEFT:
        return replace(chain, place="top-left", rounding="down")
    if contract.fit is Fit.CENTRE_CROP:
        fit = "crop" if contract.size_hw[0] == contract.size_hw[1] else "stretch"
        return replace(chain, fit=fit, rounding="down", interpolation="antialiased")
    return chain


def _three(values: tuple[float, ...]) -> Three:
    first, second, third = values
    return first, second, third


def render(photo: Photo, chain: Chain) -> Rendered:
    """Brings an image to the chain's size. Colours stay RGB: `with_channels` changes them."""
    source = photo.upright if chain.turned else photo.stored
    original_hw: tuple[int, int] = source.shape[:2]
    size = _resized_hw(original_hw, chain)
    # The colour order of the tensor has no part in it.
    key = (chain.turned, chain.gamma, chain.mirrored, size, chain.interpolation)
    if key not in photo.shrunk:
        if len(photo.shrunk) > 24:  # a megabyte each; a search comes back to the last ones only
            photo.shrunk.pop(next(iter(photo.shrunk)))
        levels = source
        if chain.gamma != 1.0:
            table = np.rint(255 * (np.arange(256) / 255) ** chain.gamma).astype(np.uint8)
            levels = table[source]
        resized = _resize(levels, size, chain.interpolation)
        photo.shrunk[key] = np.ascontiguousarray(resized[:, ::-1]) if chain.mirrored else resized
    whole = photo.shrunk[key]
    top, left = (_offset(room, chain) for room in (chain.size_hw[0] - size[0], chain.size_hw[1] - size[1]))
    cut_top, cut_left = max(-top, 0), max(-left, 0)
    height, width = min(chain.size_hw[0], size[0]), min(chain.size_hw[1], size[1])
    content = whole[cut_top : cut_top + height, cut_left : cut_left + width]
    scale_xy = size[1] / original_hw[1], size[0] / original_hw[0]
    geometry = Geometry(original_hw, chain.size_hw, scale_xy, pad_left=left, pad_top=top)
    return Rendered(content, (max(top, 0), max(left, 0), height, width), geometry)


def _resized_hw(original_hw: tuple[int, int], chain: Chain) -> tuple[int, int]:
    if chain.fit == "stretch":
        return chain.size_hw
    ratios = [to / side for to, side in zip(chain.size_hw, original_hw, strict=True)]
    ratio = min(ratios) if chain.fit == "letterbox" else max(ratios)
    # 1e-9: what is a whole number but for the last bit of a quotient is one
    sides = [side * ratio for side in original_hw]
    if chain.rounding == "nearest":
        wholes = [round(side) for side in sides]
    else:
        wholes = [math.floor(side + 1e-9) if chain.rounding == "down" else math.ceil(side - 1e-9) for side in sides]
    height, width = (max(side, 1) for side in wholes)
    if chain.fit == "crop":
        return max(height, chain.size_hw[0]), max(width, chain.size_hw[1])
    return min(height, chain.size_hw[0]), min(width, chain.size_hw[1])


def _offset(room: int, chain: Chain) -> int:
    if chain.place in ("top-left", "bottom-right"):
        return 0 if chain.place == "top-left" else room
    early = round(room / 2 - 0.1) if room >= 0 else -round(-room / 2)
    return early if chain.place == "centre" else room - early


def _resize(image: Image, size_hw: tuple[int, int], how: str) -> Image:
    cv2 = import_cv2()
    (height, width), (old_height, old_width) = size_hw, image.shape[:2]
    if size_hw == image.shape[:2]:
        return image
    if how == "antialiased":
        return resize_antialiased(image, size_hw, window=(0, 0, *size_hw))
    if how in ("corners", "offset"):
        less = 1 if how == "corners" else 0
        columns, rows = (
            np.arange(new, dtype=np.float32) * np.float32((old - less) / max(new - less, 1))
            for new, old in ((width, old_width), (height, old_height))
        )
        grid = np.meshgrid(columns, rows)
        return np.asarray(
            cv2.remap(image, grid[0], grid[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8
        )
    flags = {
        "linear": cv2.INTER_LINEAR,
        "nearest": cv2.INTER_NEAREST,
        "area": cv2.INTER_AREA,
        "cubic": cv2.INTER_CUBIC,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    return np.asarray(cv2.resize(image, (width, height), interpolation=flags[how]), dtype=np.uint8)


def with_channels(content: Image, channels: str) -> FloatImage:
    """Returns the levels that a tensor's channels hold: (h, w, 3) float32."""
    if channels == "grey":
        grey = import_cv2().cvtColor(np.ascontiguousarray(content), import_cv2().COLOR_RGB2GRAY)
        return np.repeat(np.asarray(grey, dtype=np.float32)[..., None], 3, axis=2)
    return (content if channels == "rgb" else content[..., ::-1]).astype(np.float32)


def to_levels(rendered: Rendered, chain: Chain) -> FloatImage:
    """Returns the whole input in levels, padding included: (h, w, 3) float32 in the order of the tensor's channels."""
    canvas = np.empty((*chain.size_hw, 3), dtype=np.float32)
    canvas[...] = chain.pad
    top, left, height, width = rendered.window
    canvas[top : top + height, left : left + width] = with_channels(rendered.content, chain.channels)
    return canvas


def to_values(levels: FloatImage, values: Values) -> FloatImage:
    """Returns what a model is fed for levels: (h, w, 3) float32."""
    return levels * values.gains + values.offsets
