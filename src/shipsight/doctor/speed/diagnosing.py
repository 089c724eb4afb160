# SPDX-License-Identifier: Apache-2.0
"""`shipsight doctor speed`: its examinations, in the order in which one asks them, and how a case is opened. Stable."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shipsight.build.progress import Progress, Silent
from shipsight.doctor.diagnosis import Diagnosis, examine
from shipsight.doctor.examination import Examination
from shipsight.doctor.opening import choose_examinations, find_images
from shipsight.doctor.speed.case import ServerCase, SpeedCase
from shipsight.doctor.speed.images import ImagesExamination
from shipsight.doctor.speed.machine import MachineExamination
from shipsight.doctor.speed.profile import ProfileExamination
from shipsight.doctor.speed.roofline import RooflineExamination
from shipsight.doctor.speed.server import ServerExamination
from shipsight.doctor.speed.sweep import SweepExamination
from shipsight.doctor.speed.warmup import WarmUpExamination
from shipsight.errors import UsageError
from shipsight.model.bundle import Bundle, open_bundle

__all__ = ["DEFAULT_SECONDS", "SERVER_EXAMINATIONS", "SPEED_EXAMINATIONS", "diagnose_server_speed", "diagnose_speed"]

DEFAULT_SECONDS = 40.0
"""With what opening models costs beside, YOLO11n with seven variants is done within a minute on two cores."""
_LEAST_SECONDS, _MOST_SECONDS = 5.0, 3600.0

SPEED_EXAMINATIONS: tuple[Examination[SpeedCase, Any], ...] = (
    MachineExamination(),
    WarmUpExamination(),
    ProfileExamination(),
    SweepExamination(),
    RooflineExamination(),
    ImagesExamination(),
)
"""Of a bundle, one line each."""

SERVER_EXAMINATIONS: tuple[Examination[ServerCase, Any], ...] = (ServerExamination(),)
"""Of a server."""


def diagnose_speed(
    bundle: Bundle | Path | str,
    *,
    images: Path | str | Iterable[Path | str] = (),
    variant: str | None = None,
    threads: int | None = None,
    seconds: float = DEFAULT_SECONDS,
    seed: int = 0,
    only: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Finds why a model is slower on this machine than it could be. Every gain that it tells was measured in this run.

    Args:
        bundle: of the model: a folder, a zip file, or one that is open.
        images: of production: files, or folders with images at any depth; none for the bundle's golden ones.
        variant: that runs in production; None for the bundle's own default.
        threads: of the engine as production sets it, 1 or more; None for one a core.
        seconds: that it may take, roughly, 5 to 3600; opening models comes to it.
        seed: of what is drawn by chance, 0 or more.
        only: names of the examinations to make; None for all that what was given allows.
        progress: is told of each examination.

    Returns:
        What was found, by weight, and what was examined.

    Raises:
        UsageError: something that was given is not there, or nothing can be examined with it.
        ShipsightError: something that was given cannot be used.
    """
    _check_numbers(threads=threads, seconds=seconds, seed=seed)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    case = SpeedCase(
        bundle=opened,
        variant=opened.default_variant if variant is None else opened.variant(variant),
        images=find_images([images] if isinstance(images, Path | str) else images),
        threads=threads,
        seconds=seconds,
        seed=seed,
    )
    return examine("speed", case, choose_examinations(SPEED_EXAMINATIONS, only, case), progress or Silent())


def diagnose_server_speed(
    url: str,
    *,
    images: Path | str | Iterable[Path | str] = (),
    seconds: float = DEFAULT_SECONDS,
    seed: int = 0,
    key: str | None = None,
    ca: Path | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Finds where the time of a request to a server goes: ours, or any that speaks the Open Inference Protocol.

    Args:
        url: `http(s)://HOST[:PORT]`, with `/MODEL`, `/v1/models/MODEL` or `/v2/models/MODEL` behind it; the last says that tensors are sent.
        images: that it is asked about: files, or folders; none for scenes that are drawn.
        seconds: that it may take, roughly, 5 to 3600.
        seed: of what is drawn by chance, 0 or more.
        key: text of an API key; it goes over TLS or within this machine alone.
        ca: file of certificates to trust; None for the system's.
        progress: is told of how far it is.

    Raises:
        UsageError: something that was given is not there, or out of range.
        ServiceError: the server does not answer.
        ShipsightError: what the server says.
    """
    _check_numbers(threads=None, seconds=seconds, seed=seed)
    found = find_images([images] if isinstance(images, Path | str) else images)
    case = ServerCase(url, found, seconds, seed, key, ca)
    return examine("speed", case, SERVER_EXAMINATIONS, progress or Silent())


def _check_numbers(*, threads: int | None, seconds: float, seed: int) -> None:
    for name, value, least, most in (
        ("threads", threads, 1, None),
        ("seconds", seconds, _LEAST_SECONDS, _MOST_SECONDS),
        ("seed", seed, 0, None),
    ):
        if value is not None and not (least <= value and (most is None or value <= most)):
            expected = f"{least:g} or more" if most is None else f"{least:g} to {most:g}"
            raise UsageError("number out of range", where=f"--{name}", expected=expected, got=value)
