# SPDX-License-Identifier: Apache-2.0
"""`shipsight doctor accuracy`: its examinations, in the order in which a model meets what they look at. Stable."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shipsight.build.progress import Progress, Silent
from shipsight.doctor.case import Case
from shipsight.doctor.conversion import ConversionExamination
from shipsight.doctor.data import DataExamination
from shipsight.doctor.dataset import DatasetExamination
from shipsight.doctor.diagnosis import Diagnosis, examine
from shipsight.doctor.environment import EnvironmentExamination
from shipsight.doctor.examination import Examination
from shipsight.doctor.opening import choose_examinations, open_case
from shipsight.doctor.preprocessing import PreprocessingExamination
from shipsight.doctor.stages import StagesExamination
from shipsight.model.bundle import Bundle

__all__ = ["EXAMINATIONS", "diagnose_accuracy"]

EXAMINATIONS: tuple[Examination[Case, Any], ...] = (
    DataExamination(),
    PreprocessingExamination(),
    EnvironmentExamination(),
    StagesExamination(),
    ConversionExamination(),
    DatasetExamination(),
)
"""One line each."""


def diagnose_accuracy(
    bundle: Bundle | Path | str,
    *,
    images: Path | str | Iterable[Path | str] = (),
    labels: Path | str | None = None,
    against: str | None = None,
    stages: Path | str | None = None,
    tensor: Path | str | None = None,
    predictions: Path | str | None = None,
    variant: str | None = None,
    limit: int = 64,
    seed: int = 0,
    threads: int | None = None,
    only: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Finds why a model is less accurate in production than its proof says.

    Args:
        bundle: of the model: a folder, a zip file, or one that is open.
        images: of production: files, or folders with images at any depth.
        labels: folder of YOLO label files for the images, or a `data.yaml`.
        against: what stands in production in place of a variant: a model, a checkpoint, or the address of a server.
        stages: folder of what another pipeline recorded for `images` at its stages (`shipsight.doctor.stages.StageRecorder`).
        tensor: `.npy` file of what another program fed its model for `images`, in their order.
        predictions: JSON file of what another program predicted for `images`: shipsight's own, COCO results, or Ultralytics' `to_json`.
        variant: that runs in production; None for the bundle's own default.
        limit: images that are looked at, at most, 1 or more.
        seed: of what is drawn by chance, 0 or more.
        threads: of the engine, 1 or more; None for one a core.
        only: names of the examinations to make; None for all that what was given allows.
        progress: is told of each examination.

    Returns:
        What was found, by weight, and what was examined.

    Raises:
        UsageError: something that was given is not there, or nothing can be examined with it.
        ShipsightError: something that was given cannot be used.
    """
    case = open_case(
        bundle,
        images=images,
        labels=labels,
        against=against,
        stages=stages,
        tensor=tensor,
        predictions=predictions,
        variant=variant,
        limit=limit,
        seed=seed,
        threads=threads,
    )
    return examine("accuracy", case, choose_examinations(EXAMINATIONS, only, case), progress or Silent())
