# SPDX-License-Identifier: Apache-2.0
"""Runs the stages on the golden set, or on what another pipeline recorded, each stage fed what was recorded before it. Private."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.stages.evidence import Stage, StagesEvidence
from shipsight.doctor.stages.recorder import Recorded, read_stages
from shipsight.doctor.suspect_models import open_variant
from shipsight.doctor.task_limits import uncompared
from shipsight.engines import EngineSession
from shipsight.errors import DatasetError, InternalError
from shipsight.model import InputContract
from shipsight.proof import GoldenFiles, VariantRecording, cpu_class
from shipsight.proof.answers import Answer, answer_one
from shipsight.proof.environment import runtime_key
from shipsight.proof.matching import match
from shipsight.proof.recording import compare_tables, record_tables
from shipsight.proof.subject import Subject, views
from shipsight.vision import decode_image, prepare

__all__ = ["collect_foreign", "collect_golden"]

_GOLDEN_INPUTS = 16
_PIXELS = 2.0
_LEVELS_DECODED, _LEVELS_PREPARED = 3.0, 2.0
"""Compared at the 99th percentile; chosen, not measured."""


@dataclass(frozen=True)
class _Far:
    number: int
    far: float


def _stage(name: str, fars: Sequence[_Far], allowed: float, unit: str) -> Stage:
    over = [one for one in fars if one.far > allowed]
    most = max((one.far for one in fars), default=0.0)
    return Stage(name, len(fars), len(over), most, allowed, unit, over[0].number if over else -1)


def collect_golden(case: Case, progress: Progress) -> StagesEvidence:
    """Runs the variant on the golden set and compares each stage with the bundle's record."""
    files = GoldenFiles.of(case.bundle)
    recorded = files.variant(case.variant.name)
    keys = files.keys()[:_GOLDEN_INPUTS]
    contract = case.card.with_size(case.variant.size_hw).input
    prepared, engine, unsteady, found = [], [], [], []
    with open_variant(case) as suspect:
        if suspect.session is None:
            raise InternalError("a variant without an engine", where=case.variant.name)
        subject = Subject.of(suspect.session, case.variant, case.card)
        is_same = _is_same(suspect.session, case, recorded)
        for number, key in enumerate(keys):
            tensor = files.tensor(key, case.variant.size_hw)
            ours, geometry = prepare(files.image(key), contract)
            prepared.append(_Far(number, float(np.abs(ours.astype(int) - tensor.astype(int)).max())))
            answer = answer_one(subject, key, tensor, geometry, conf=files.criteria.low_conf)
            found.append(answer.found)
            if is_same:
                engine.append(_Far(number, _times(recorded, key, answer)))
            if number % 4 == 0:
                again = answer_one(subject, key, tensor, geometry, conf=files.criteria.low_conf)
                unsteady.append(_again(recorded, answer, again))
            progress.part(number + 1, len(keys))
    theirs = [recorded.recordings[key].found for key in keys]
    report = match(theirs, found, files.criteria)
    if not is_same:
        # other kernels: the share of predictions that the bundle asks for is the measure, over all inputs at once
        engine = [_Far(0, 1.0 - report.share)]
        last = _stage("engine", engine, 1.0 - files.least_share, "share of predictions")
    else:
        last = _stage("engine", engine, 1.0, "times the tolerance")
    over = [one for one in unsteady if one > 1.0]
    return StagesEvidence(
        stages=(_stage("prepare", prepared, float(files.most_levels), "levels"), last),
        repeated=len(unsteady),
        unsteady=len(over),
        unsteady_far=max(unsteady, default=0.0),
        share_lost=1.0 - report.share,
    )


def _is_same(session: EngineSession, case: Case, recorded: VariantRecording) -> bool:
    precision = session.precision()
    here = (cpu_class(), runtime_key(case.variant.engine), precision.float_type, precision.integer_convolutions > 0)
    return here == (recorded.cpu_class, recorded.runtime, recorded.float_type, recorded.is_integer)


def _times(recorded: VariantRecording, key: str, answer: Answer) -> float:
    worst = 0.0
    for name, one in compare_tables(recorded.recordings[key].tables, answer.tables).items():
        allowed = recorded.tolerance[name]
        worst = max(worst, one.p99 / allowed.p99, one.most / allowed.most, one.moment / allowed.moment)
    return float(worst)


def _again(recorded: VariantRecording, one: Answer, other: Answer) -> float:
    worst = 0.0
    for name, off in compare_tables(record_tables(one.tables), other.tables).items():
        allowed = recorded.tolerance[name]
        worst = max(worst, off.p99 / allowed.p99, off.most / allowed.most)
    return float(worst)


def collect_foreign(case: Case, folder: Path, progress: Progress) -> StagesEvidence:
    """Compares what another pipeline recorded with each stage done here.

    Raises:
        DatasetError: no recording bears the name of an image.
        CorruptError: a recording does not fit.
    """
    images = {path.name: path for path in case.images}
    records = [one for one in read_stages(folder) if one.name in images][: case.limit]
    if not records:
        raise DatasetError("no recording bears the name of an image", where=folder.name, expected="NAME_OF_IMAGE.npz")
    fars: dict[str, list[_Far]] = {"decode": [], "prepare": [], "engine": [], "postprocess": []}
    lost: list[float] = []
    with open_variant(case) as suspect:
        if suspect.session is None:
            raise InternalError("a variant without an engine", where=case.variant.name)
        subject = Subject.of(suspect.session, case.variant, case.card)
        for number, one in enumerate(records):
            _compare(subject, one, decode_image(images[one.name].read_bytes()), number, fars, lost)
            progress.part(number + 1, len(records))
    stages = [
        _stage("decode", fars["decode"], _LEVELS_DECODED, "levels"),
        _stage("prepare", fars["prepare"], _LEVELS_PREPARED, "levels"),
        _stage("engine", fars["engine"], 1.0, "times the tolerance"),
        _stage("postprocess", fars["postprocess"], _PIXELS, "px"),
    ]
    share = float(np.mean(lost)) if lost else 0.0
    return StagesEvidence(
        tuple(one for one in stages if one.images),
        is_foreign=True,
        share_lost=share,
        uncompared=uncompared(case.card.task, by_hulls=True) if fars["postprocess"] else (),
    )


def _compare(
    subject: Subject,
    one: Recorded,
    decoded: NDArray[np.uint8],
    number: int,
    fars: dict[str, list[_Far]],
    lost: list[float],
) -> None:
    contract = subject.card.input
    if one.decoded is not None:
        fars["decode"].append(_Far(number, _levels(decoded, one.decoded)))
    pixels = decoded if one.decoded is None or one.decoded.shape != decoded.shape else one.decoded
    ours, geometry = prepare(pixels, contract)
    fed = ours
    if one.prepared is not None:
        if one.prepared.dtype == np.uint8:
            fars["prepare"].append(_Far(number, _levels(ours, one.prepared)))
            fed = one.prepared if one.prepared.shape == ours.shape else ours
        else:
            far = 255.0
            if one.prepared.size == ours.size:
                levels = _pixels_of(one.prepared, contract)
                far = float(np.quantile(np.abs(levels - ours), 0.99))
                fed = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
            fars["prepare"].append(_Far(number, far))
    outputs: dict[str, NDArray[Any]] = subject.infer(fed)
    if one.outputs:
        mine, theirs = subject.views(outputs), views(dict(one.outputs), subject.card, subject.form)
        far = max((_off(name, mine[name], theirs.get(name)) for name in mine), default=0.0)
        fars["engine"].append(_Far(number, far))
        outputs = dict(one.outputs)
    if one.boxes_xyxy is not None:
        predicted = subject.predictions(outputs, geometry, conf=0.25)
        far, share = _boxes_off(predicted, one)
        fars["postprocess"].append(_Far(number, far))
        lost.append(share)


def _pixels_of(tensor: NDArray[Any], contract: InputContract) -> NDArray[np.float64]:
    """Returns the (h, w, 3) RGB levels, not rounded, from which a contract makes a tensor of one image."""
    planes = tensor.reshape(3, *contract.size_hw).transpose(1, 2, 0).astype(np.float64)
    levels: NDArray[np.float64] = (planes * np.array(contract.std) + np.array(contract.mean)) / contract.scale
    return levels if contract.colour == "rgb" else levels[:, :, ::-1]


def _levels(ours: NDArray[np.uint8], theirs: NDArray[Any]) -> float:
    if ours.shape != theirs.shape:
        return 255.0
    return float(np.quantile(np.abs(ours.astype(np.int16) - theirs.astype(np.int16)), 0.99))


def _off(name: str, ours: NDArray[np.float32], theirs: NDArray[np.float32] | None) -> float:
    """Returns the 99th percentile in units of what another runtime may be off: 0.02 in score, 2 px in a box."""
    if theirs is None or theirs.shape != ours.shape:
        return 1e6
    return float(np.quantile(np.abs(ours - theirs), 0.99) / (0.02 if name in ("scores", "probabilities") else 2.0))


def _boxes_off(predicted: Any, one: Recorded) -> tuple[float, float]:  # noqa: ANN401 - predictions of one image
    from shipsight.proof.matching import Found

    ours = Found.of(predicted)
    given = np.asarray(one.boxes_xyxy, dtype=np.float32).reshape(-1, 4)
    if not len(ours.scores):
        return (0.0 if not len(given) else 1e6), 0.0
    if not len(given):
        return 1e6, 1.0
    boxes = np.concatenate((ours.corners_xy.min(axis=1), ours.corners_xy.max(axis=1)), axis=1)
    nearest = np.abs(boxes[:, None] - given[None]).max(axis=2).min(axis=1)
    return float(np.quantile(nearest, 0.9)), float((nearest > _PIXELS * 4).mean())
