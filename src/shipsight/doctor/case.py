# SPDX-License-Identifier: Apache-2.0
"""A case: what the doctor is asked to look at. Holds what was given, and opens of it what several examinations need, once.

Leaves to others: what is wrong with it. Stable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from shipsight.model import Card, Variant
from shipsight.model.bundle import Bundle

__all__ = ["Case", "Told"]


@dataclass(frozen=True)
class Told:
    """What a diagnosis says it is of.

    Attributes:
        model: name of the model.
        version: of it.
        bundle: digest of the bundle's manifest, in hexadecimal; empty where there is none.
        variant: that was examined; empty where that is not known.
        images: number of images that were looked at.
        class_names: of the model, in order of class ids: they let an archive for others speak of classes by id.
    """

    model: str
    version: str
    bundle: str
    variant: str
    images: int
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """What is examined.

    Attributes:
        bundle: the model with its proof: the truth that all else is compared with.
        variant: that runs in production.
        images: of production, in a stable order; empty for none.
        labels: folder of YOLO label files for these images, or a `data.yaml`; None for none.
        stages: folder of what another pipeline recorded for `images` at its stages (`stages.StageRecorder`); None for none.
        against: what stands in production in place of a variant: an exported model (`.onnx`, OpenVINO `.xml` or its folder), a
            checkpoint (`.pt`), or `http(s)://host/path` of a server; None for the bundle's own variant.
        tensor: `.npy` file of what another program fed its model for `images`, in their order; None for none.
        predictions: JSON file of what another program predicted for `images`; None for none.
        limit: images that are looked at, at most; chosen evenly over `images`.
        seed: of what is drawn by chance.
        threads: of the engine; None for one a core.
        key: text of an API key for a server that `against` names; None for none. Never shown.
    """

    bundle: Bundle
    variant: Variant
    images: tuple[Path, ...] = ()
    labels: Path | None = None
    stages: Path | None = None
    against: str | None = None
    tensor: Path | None = None
    predictions: Path | None = None
    limit: int = 64
    seed: int = 0
    threads: int | None = None
    key: str | None = field(default=None, repr=False)

    @property
    def card(self) -> Card:
        """The model's card."""
        return self.bundle.card

    @cached_property
    def looked_at(self) -> tuple[Path, ...]:
        """The images that are looked at: all, or as many as the limit allows, spread evenly."""
        if len(self.images) <= self.limit:
            return self.images
        step = len(self.images) / self.limit
        return tuple(self.images[int(number * step)] for number in range(self.limit))

    def told(self) -> Told:
        """Returns what a diagnosis says it is of."""
        names = tuple(self.card.class_names)
        return Told(
            self.card.name, self.card.version, self.bundle.digest, self.variant.name, len(self.looked_at), names
        )
