# SPDX-License-Identifier: Apache-2.0
"""From files to evidence: tensors or predictions of another program, with their images. All input is here. Private to the room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.dataset.pairing import agreement
from shipsight.doctor.preprocessing.answers import Answerer
from shipsight.doctor.preprocessing.chain import Chain, Photo, expected_chain
from shipsight.doctor.preprocessing.evidence import Difference, PreprocessingEvidence, Residual
from shipsight.doctor.preprocessing.pictures import draw_inputs
from shipsight.doctor.preprocessing.reading_tensor import read_tensor
from shipsight.doctor.preprocessing.telling import differing_steps, sure, untold
from shipsight.doctor.preprocessing.tensors import Solved, solve
from shipsight.errors import UsageError
from shipsight.model import TensorLayout
from shipsight.vision import decode_image
from shipsight.vision.decode import turn
from shipsight.vision.image_header import read_header

__all__ = ["collect_tensors", "open_photo"]

_OTHER = 0.5
"""Share of the variance that a chain explains: other images gave up to 0.3, the right one 0.9 and more."""
_EXPLAINED = (1.5, 12.0)
"""Mean and 99th percentile of levels that other decoders and resizers leave: JPEG decoders differ by up to 1 on average and 8."""
_MOST_COST = 8


def open_photo(path: Path) -> Photo:
    """Decodes an image upright, and as its file holds it.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError("the image cannot be read", where=path, got=error.strerror) from error
    upright = decode_image(data)
    orientation = read_header(data, str(path)).orientation
    if orientation == 1:
        return Photo(upright, upright)
    # A quarter to the left undoes one to the right; all else undoes itself.
    return Photo(upright, np.ascontiguousarray(turn(upright, {6: 8, 8: 6}.get(orientation, orientation))))


def collect_tensors(case: Case, path: Path, progress: Progress) -> PreprocessingEvidence:
    """Collects the evidence of tensors.

    Raises:
        UsageError: there are not as many images as tensors.
        TensorError: the file's tensors cannot be images'.
        CorruptError: it is no `.npy` file.
        ImageError: an image cannot be read.
    """
    tensors = read_tensor(path)
    if len(tensors) != len(case.images):
        raise UsageError(
            "each tensor needs its image",
            where="--images",
            expected=f"{len(tensors)} images, in the tensor's order",
            got=len(case.images),
        )
    expected = _expected(case, tensors)
    chosen = np.unique(np.linspace(0, len(tensors) - 1, min(len(tensors), case.limit, 4)).astype(int)).tolist()
    photos, solved = [], []
    for number, at in enumerate(chosen):
        photos.append(open_photo(case.images[at]))
        solved.append(solve(tensors[at], photos[-1], expected))
        progress.part(number + 1, len(chosen) + 1)
    # Of several, the one that tells most apart stands for all; that the others agree is part of how sure it is.
    best = min(solved, key=lambda one: (len(one.same), one.mean))
    differences = _differences(case, best, solved, photos, expected)
    progress.part(1, 1)
    is_other = any(one.rule == "other-image" for one in differences)
    is_explained = best.mean <= _EXPLAINED[0] and best.high <= _EXPLAINED[1]
    return PreprocessingEvidence(
        is_tensor=True,
        images=len(chosen),
        differences=differences,
        residual=Residual(best.before, best.mean, best.high, best.worst, is_explained),
        not_told=untold(best.same, best.chain, expected, has_padding=best.pad is not None),
        pictures=(draw_inputs(best, is_other=is_other),) if differences or not is_explained else (),
    )


def _expected(case: Case, tensors: np.ndarray) -> Chain:
    """Returns what the card asks; for bytes with channels last what a variant with normalization inside takes, where there is one."""
    chain = expected_chain(case.card.with_size(case.variant.size_hw).input)
    takes_bytes = any(one.layout is TensorLayout.UINT8_NHWC for one in case.bundle.variants)
    if takes_bytes and tensors.dtype == np.uint8 and tensors.shape[-1] == 3:
        plain = replace(chain.values, gain=(1.0, 1.0, 1.0), offset=(0.0, 0.0, 0.0))
        return replace(chain, values=plain, channels="rgb", layout="nhwc")
    return chain


def _differences(
    case: Case, best: Solved, solved: Sequence[Solved], photos: Sequence[Photo], expected: Chain
) -> tuple[Difference, ...]:
    if max(one.explained for one in solved) < _OTHER:
        words = f"No chain of known steps explains more than {best.explained:.0%} of the tensor's variance"
        return (Difference("other-image", words, 1 - max(best.explained, 0.0), 1.0, best.before),)
    steps = differing_steps(best.chain, expected, best.scaling, best.pad, case.card.input)
    if not steps:
        return ()
    found = []
    with Answerer(case) as answerer:
        plain = replace(expected, layout="nchw", values=expected_chain(answerer.card.input).values)
        for step in steps:
            rival = best.rivals.get(step.step, best.before)
            agreeing = float(np.mean([_agrees(one, best, step.step) for one in solved]))
            lost = None
            if step.alone is not None and answerer.takes(step.alone):
                lost = _cost(answerer, photos[:_MOST_COST], plain, step.alone)
            found.append(
                Difference(step.rule, step.words, sure(best.mean, rival) * agreeing, lost, rival, step.figures)
            )
    return tuple(found)


def _agrees(one: Solved, best: Solved, step: str) -> bool:
    if step in one.same:
        return True
    if step == "values":
        return one.scaling.rules == best.scaling.rules
    return bool(getattr(one.chain, step, None) == getattr(best.chain, step, None)) or step in ("pad", "layout")


def _cost(answerer: Answerer, photos: Sequence[Photo], expected: Chain, changed: Chain) -> float:
    """Returns the share of the answers that a step alone costs. Boxes are held against those of the upright image, as users see them."""
    right = [answerer.answer(photo, expected)[0] for photo in photos]
    wrong = [answerer.answer(photo, changed)[0] for photo in photos]
    return 1 - agreement(right, wrong)
