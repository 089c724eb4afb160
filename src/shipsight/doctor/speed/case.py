# SPDX-License-Identifier: Apache-2.0
"""What `doctor speed` is asked to look at: a bundle's variant on this machine, or a model of a running server.

Leaves to others: what is slow about it. Stable.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.case import Told
from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.errors import ImageUnreadableError
from shipsight.model import Card, Variant
from shipsight.model.bundle import Bundle
from shipsight.proof import GoldenFiles, make_scene

__all__ = ["Encoded", "ServerCase", "SpeedCase", "encode_jpeg"]

_MOST_IMAGES = 16
_QUALITY = 95
_SCENES = 4
_WHOLE_COST = 40.0
"""Seconds that all examinations of a bundle cost together at the default budget: each takes its share of what is given."""


@dataclass(frozen=True)
class Encoded:
    """An image as it arrives.

    Attributes:
        content: the file's bytes.
        path: of the file, None where the image was made here.
    """

    content: bytes = field(repr=False)
    path: Path | None = None


@dataclass(frozen=True)
class SpeedCase:
    """A variant on this machine.

    Attributes:
        bundle: holds it, with its proof.
        variant: that runs in production.
        images: of production; empty for the bundle's golden ones.
        threads: of the engine as production sets it; None for one a core.
        seconds: that all examinations together may take, roughly.
        seed: of what is drawn by chance: which images are looked at.
    """

    bundle: Bundle
    variant: Variant
    images: tuple[Path, ...] = ()
    threads: int | None = None
    seconds: float = _WHOLE_COST
    seed: int = 0

    @property
    def card(self) -> Card:
        """The model's card."""
        return self.bundle.card

    @cached_property
    def encoded(self) -> tuple[Encoded, ...]:
        """The images that are looked at, 16 at most; golden ones as JPEG of quality 95, as a camera would send them."""
        if self.images:
            return _read_some(self.images, self.seed)
        golden = GoldenFiles.of(self.bundle)
        pixels = [golden.image(key) for key in golden.keys()[:_MOST_IMAGES]]
        return tuple(Encoded(encode_jpeg(one)) for one in pixels)

    def open(self, options: EngineOptions, variant: Variant | None = None) -> EngineSession:
        """Opens a variant, None for the case's own; raises as `Engine.open`."""
        chosen = self.variant if variant is None else variant
        return get_engine(chosen.engine).open(self.bundle.variant_files(chosen.name), chosen, options)

    def share_s(self, cost: float) -> float:
        """Returns the seconds of an examination that costs so much of the whole."""
        return self.seconds * cost / _WHOLE_COST

    def told(self) -> Told:
        """Returns what a diagnosis says it is of."""
        names = tuple(self.card.class_names)
        return Told(self.card.name, self.card.version, self.bundle.digest, self.variant.name, len(self.encoded), names)


@dataclass(frozen=True)
class ServerCase:
    """A model of a running server.

    Attributes:
        url: `http(s)://HOST[:PORT]`, with the model's path behind it, as `docs/commands/doctor.md` has it.
        images: that it is asked about; empty for scenes that are drawn here.
        seconds: that asking may take, roughly.
        seed: of what is drawn by chance.
        key: text of an API key, None for none. Never shown.
        ca: file of certificates to trust, None for the system's.
    """

    url: str
    images: tuple[Path, ...] = ()
    seconds: float = _WHOLE_COST
    seed: int = 0
    key: str | None = field(default=None, repr=False)
    ca: Path | None = None

    @cached_property
    def encoded(self) -> tuple[Encoded, ...]:
        """The images that it is asked about, 16 at most."""
        if self.images:
            return _read_some(self.images, self.seed)
        scenes = [make_scene(self.seed + number) for number in range(_SCENES)]
        return tuple(Encoded(encode_jpeg(one)) for one in scenes)

    def told(self) -> Told:
        """Returns what a diagnosis says it is of."""
        from shipsight.doctor.suspect_server import read_address

        _, model, version = read_address(self.url, "server", where="URL")
        return Told(model, version or "served", "", "", len(self.encoded))


def encode_jpeg(image_rgb: NDArray[np.uint8]) -> bytes:
    """Returns pixels, (height, width, 3) uint8 RGB, as JPEG of quality 95."""
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image_rgb), quality=_QUALITY, colorspace="RGB"))


def _read_some(paths: Sequence[Path], seed: int) -> tuple[Encoded, ...]:
    chosen = sorted(random.Random(seed).sample(range(len(paths)), min(_MOST_IMAGES, len(paths))))  # noqa: S311 - guards nothing
    return tuple(Encoded(_read(paths[number]), paths[number]) for number in chosen)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageUnreadableError("the file cannot be read", where=path, got=error.strerror) from error
