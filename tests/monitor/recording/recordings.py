# SPDX-License-Identifier: Apache-2.0
"""Stores of recordings, and what is put into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from tests.access.conftest import Clock, KeptEvents

from shipsight.access import Action, Grant, Principal, PrincipalKind, Rights
from shipsight.model import ImagePredictions
from shipsight.monitor.recording import Label, Policy, Recording, Store
from shipsight.monitor.recording.policy import Mode, SamplingRules
from shipsight.monitor.recording.record import new_id, read_time, write_time
from shipsight.monitor.recording.store import NewRecording

__all__ = ["NAMES", "OFFICER", "Place", "answer", "jpeg", "new_recording", "principal", "relabelled", "sampling"]

NAMES = ("face", "plate", "car")
BEGIN = datetime(2026, 11, 23, 12, tzinfo=UTC)


def principal(*actions: Action, models: Sequence[str] = ("*",), name: str = "ada") -> Principal:
    """A key's principal: nothing has to be proved anew."""
    rights = Rights(((frozenset(actions), Grant("tests", tuple(models))),))
    return Principal(PrincipalKind.KEY, name, rights=rights)


OFFICER = principal(Action.RECORDINGS_READ, Action.RECORDINGS_CHANGE, Action.DATA_EXPORT, name="officer")


def sampling(**rules: object) -> Policy:
    """A policy that records every image."""
    return Policy(
        mode=Mode.SAMPLES,
        purposes=("to test",),
        samples=SamplingRules(**{"rate": 1.0, **rules}),  # type: ignore[arg-type]
    )


def answer(
    *boxes: tuple[str, float, tuple[float, float, float, float]], size_hw: tuple[int, int] = (48, 64)
) -> ImagePredictions:
    """Predictions of given class names, scores and boxes."""
    return ImagePredictions(
        source="ada-lovelace.jpg",
        width=size_hw[1],
        height=size_hw[0],
        class_names=NAMES,
        class_ids=np.array([NAMES.index(one[0]) for one in boxes], np.int64),
        scores=np.array([one[1] for one in boxes], np.float32),
        boxes_xyxy=np.array([one[2] for one in boxes], np.float32).reshape(-1, 4),
    )


def pixels(seed: int = 0, size_hw: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)


def jpeg(seed: int = 0, size_hw: tuple[int, int] = (48, 64)) -> bytes:
    return bytes(simplejpeg.encode_jpeg(pixels(seed, size_hw), quality=95, colorspace="RGB"))


def new_recording(
    at: datetime, policy: Policy, *, subject: str | None = None, model: str = "gate", image: bytes = b"", seed: int = 0
) -> NewRecording:
    label = Label(
        id=new_id(),
        at=read_time(write_time(at)),
        model=model,
        version="1",
        variant="onnxruntime-fp32-64",
        reasons=("chance",),
        redacted=policy.redaction.classes,
        policy=policy.digest,
        media_type="image/jpeg",
    )
    told = {"source": None, "width": 64, "height": 48, "predictions": [{"class_name": "car", "score": 0.5}]}
    return NewRecording(Recording(label, told, image or jpeg(seed)), subject, frozenset({"car"}))


@dataclass
class Place:
    """A store in a folder of a test's, with a clock that is set."""

    folder: Path
    policy: Policy = field(default_factory=sampling)
    clock: Clock = field(default_factory=lambda: Clock(BEGIN))
    events: KeptEvents = field(default_factory=KeptEvents)

    @property
    def path(self) -> Path:
        return self.folder / "recordings"

    @property
    def key(self) -> Path:
        return self.folder / "recordings.key"

    def open(self, policy: Policy | None = None, *, is_restored: bool = False) -> Store:
        if policy is not None:
            self.policy = policy
        return Store(self.path, key_file=self.key, policy=self.policy, now=self.clock, is_restored=is_restored)

    def keep(
        self, store: Store, count: int = 1, *, subject: str | None = None, model: str = "gate", days_ago: float = 0
    ) -> list[str]:
        """Keeps recordings, and returns their ids."""
        at = read_time(write_time(self.clock()) - round(days_ago * 86_400_000))
        new = [new_recording(at, store.policy, subject=subject, model=model, seed=seed) for seed in range(count)]
        with store.writer():
            store.add(new)
        return [one.recording.label.id for one in new]

    def files(self) -> list[Path]:
        """Everything that lies in the folder of the store, and beside it."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


def relabelled(new: NewRecording, **changes: object) -> NewRecording:
    return replace(new, recording=replace(new.recording, label=replace(new.recording.label, **changes)))  # type: ignore[arg-type]
