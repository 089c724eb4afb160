# SPDX-License-Identifier: Apache-2.0
"""A variant in service: opened twice, for a lone request and for many at once.

An engine that runs one request on all cores answers a lone one soonest; one that runs several requests side by side
answers more of them a second. Both forms stay open, and each inference goes to the one that fits what else is going on.
How many requests side by side pay is measured on this machine; where none do, the first form serves all. Invariants: no
form is used before the golden set was replayed on it; the bytes run are those whose hashes were checked. Stable.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from shipsight.engines import EngineOptions, EngineSession, PrecisionReport, get_engine
from shipsight.model import Card, Variant
from shipsight.model.bundle import Bundle
from shipsight.proof.environment import cpu_class, runtime_key
from shipsight.proof.golden import GoldenFiles
from shipsight.proof.replay import ReplayReport, check_preparation, replay
from shipsight.serve.opening import OpenSettings
from shipsight.vision import decode_image, prepare, to_tensor

__all__ = ["OpenForm", "Runner", "core_count", "open_here", "open_runner"]

OpenForm = Callable[[dict[str, bytes], Variant, EngineOptions], EngineSession]
"""Opens a variant from its files: in this process or in a worker."""

_log = logging.getLogger("shipsight.serve")
_TRIALS = 5
_TRIAL_S = 0.2
_MOST_STREAMS = 64
_WORTH = 1.03  # a second opened form must bring at least this much throughput


@dataclass(frozen=True, eq=False)
class Runner:
    """An opened variant.

    Attributes:
        card: what the model is, at the variant's input size.
        variant: which.
        alone: session for a request that has the machine for itself.
        together: session for several at once; the same one where a second form does not pay.
        streams: how many `together` runs side by side.
        report: of the replay that let it in.
    """

    card: Card
    variant: Variant
    alone: EngineSession
    together: EngineSession
    streams: int
    report: ReplayReport

    def infer(self, tensor: NDArray[Any], *, is_alone: bool) -> dict[str, NDArray[Any]]:
        """Runs one batch.

        Args:
            tensor: as the session's `input` says.
            is_alone: whether nothing else runs or waits.

        Raises:
            TensorError: shape or type differ.
        """
        return (self.alone if is_alone else self.together).infer(tensor)

    @cached_property
    def precision(self) -> PrecisionReport:
        """What the variant truly computes in here: asked of the runtime once, which may open the graph once more."""
        return self.together.precision()

    def close(self) -> None:
        """Gives back what the engines hold."""
        self.alone.close()
        self.together.close()


def core_count() -> int:
    """Returns the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_here(files: dict[str, bytes], variant: Variant, options: EngineOptions) -> EngineSession:
    """Opens a variant in this process; raises as `Engine.open`."""
    return get_engine(variant.engine).open(files, variant, options)


def open_runner(
    bundle: Bundle, variant: Variant, settings: OpenSettings = OpenSettings(), open_in: OpenForm = open_here
) -> Runner:
    """Opens a variant and replays the golden set on each of its forms.

    Args:
        bundle: holds it.
        variant: which.
        settings: how.
        open_in: where.

    Raises:
        ReplayMismatchError: this machine does not run what was measured.
        EngineDiedError: the worker that it was opened in ended over it.
        TamperedError, EnvironmentLackError: as `shipsight.load`.
    """
    files = bundle.variant_files(variant.name)
    golden = GoldenFiles.of(bundle)

    def open_form(requests: int) -> EngineSession:
        options = EngineOptions(
            device=settings.device, threads=settings.threads, requests=requests, cache_dir=settings.cache_dir
        )
        return open_in(files, variant, options)

    notes = _notes(bundle, variant, settings)
    known = settings.streams or _recall(notes)
    # Preparing the golden images takes as long as opening the engine.
    with ThreadPoolExecutor(2, thread_name_prefix="shipsight-prepare") as pool:
        preparing = pool.submit(check_preparation, variant, bundle.card, golden)
        opening = pool.submit(open_form, known) if known is not None and known > 1 else None
        try:
            alone = open_form(1)
        except BaseException:
            if opening is not None and opening.exception() is None:
                opening.result().close()
            raise
    together, count = alone, 1
    try:
        if known is None:
            together, count = _measure_forms(open_form, alone, bundle.card, variant)
            _remember(notes, count)
        elif opening is not None:
            together, count = opening.result(), known
        prepared = preparing.result()
        report = replay(together, variant, bundle.card, golden, prepared=prepared, workers=count)
        if together is not alone:
            # The same kernels in another order of threads: a third of the inputs tells whether they agree.
            replay(alone, variant, bundle.card, golden, prepared=prepared, every=3)
    except BaseException:
        alone.close()
        together.close()
        raise
    return Runner(bundle.card.with_size(variant.size_hw), variant, alone, together, count, report)


def _notes(bundle: Bundle, variant: Variant, settings: OpenSettings) -> Path | None:
    """Returns where the measured number of streams stands: it holds for this bundle, machine and runtime alone."""
    if settings.cache_dir is None:
        return None
    parts = (bundle.digest, variant.name, cpu_class(), runtime_key(variant.engine), settings.threads, core_count())
    return settings.cache_dir / f"streams-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.json"


def _recall(notes: Path | None) -> int | None:
    """Returns the number of streams measured at an earlier start, None where there is none that can be read."""
    if notes is None:
        return None
    try:
        told = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, int) and not isinstance(told, bool) and 1 <= told <= _MOST_STREAMS else None


def _remember(notes: Path | None, count: int) -> None:
    if notes is None:
        return
    try:
        notes.parent.mkdir(parents=True, exist_ok=True)
        notes.write_text(json.dumps(count), encoding="utf-8")
    except OSError as error:
        # A cache that cannot be written costs the next start two seconds, and this one nothing.
        _log.warning("the measured number of streams cannot be kept: %s", error)


def _measure_forms(
    open_form: Callable[[int], EngineSession], alone: EngineSession, card: Card, variant: Variant
) -> tuple[EngineSession, int]:
    """Returns the form for several requests at once and how many it runs side by side.

    Forms take turns, so that what else this machine does falls on all of them: the answer is kept for later starts. There are
    as many callers as a server has threads.
    """
    counts = sorted({min(core_count(), _MOST_STREAMS), min(max(core_count() // 2, 1), _MOST_STREAMS)} - {1})
    forms = {1: alone}
    try:
        for count in counts:
            forms[count] = open_form(count)
        job = _some_job(card, variant)
        for session in forms.values():
            job(session)
        rates: dict[int, list[float]] = {count: [] for count in forms}
        for _ in range(_TRIALS if counts else 0):
            for count, session in forms.items():
                rates[count].append(_rate(partial(job, session), core_count() + 2))
        best = max(counts, key=lambda count: statistics.median(rates[count]), default=1)
        # Noise is no reason to do without: one form is taken only where it is as good.
        if best != 1 and statistics.median(rates[1]) * _WORTH > statistics.median(rates[best]):
            best = 1
    except BaseException:
        for count in counts:
            if count in forms:
                forms[count].close()
        raise
    for count in counts:
        if count != best:
            forms[count].close()
    return forms[best], best


def _some_job(card: Card, variant: Variant) -> Callable[[EngineSession], None]:
    """Returns what a request does, on an image of the usual size: what else it needs of the cores counts, too."""
    sized = card.with_size(variant.size_hw)
    blocks = np.random.default_rng(0).integers(0, 256, size=(30, 40, 3), dtype=np.uint8)
    data = simplejpeg.encode_jpeg(np.kron(blocks, np.ones((16, 16, 1), np.uint8)), quality=90, colorspace="RGB")

    def run(session: EngineSession) -> None:
        prepared, _ = prepare(decode_image(data), sized.input)
        session.infer(to_tensor(prepared, sized.input, variant.layout))

    return run


def _rate(run: Callable[[], None], callers: int) -> float:
    """Returns how often a second something is done by several callers, over a fifth of a second and more."""
    counts = [0] * callers
    end = time.perf_counter() + _TRIAL_S

    def call(index: int) -> None:
        while time.perf_counter() < end:
            run()
            counts[index] += 1

    threads = [threading.Thread(target=call, args=(index,)) for index in range(callers)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)
