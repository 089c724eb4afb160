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
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.model import Card, Variant
from shipsight.model.bundle import Bundle
from shipsight.proof.environment import cpu_class, runtime_key
from shipsight.proof.golden import GoldenFiles
from shipsight.proof.replay import ReplayReport, check_preparation, replay
from shipsight.serve.opening import OpenSettings
from shipsight.vision import prepare, to_tensor

__all__ = ["OpenForm", "Runner", "core_count", "open_here", "open_runner"]

OpenForm = Callable[[dict[str, bytes], Variant, EngineOptions], EngineSession]
"""Opens a variant from its files: in this process or in a worker."""

_log = logging.getLogger("shipsight.serve")
_TRIAL_S = 0.5
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

    # Preparing the golden images takes as long as opening an engine, and both forms open as soon as one.
    with ThreadPoolExecutor(3, thread_name_prefix="shipsight-open") as pool:
        preparing = pool.submit(check_preparation, variant, bundle.card, golden)
        notes = _notes(bundle, variant, settings)
        known = settings.streams or _recall(notes)
        counts = (1,) if known in (None, 1) else (1, known)
        opened = _open_forms(pool, open_form, counts)
    alone, together, count = opened[0], opened[-1], counts[-1]
    try:
        if known is None:
            together, count = _measure_forms(open_form, alone, bundle.card, variant)
            _remember(notes, count)
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


def _open_forms(
    pool: ThreadPoolExecutor, open_form: Callable[[int], EngineSession], counts: Sequence[int]
) -> list[EngineSession]:
    """Opens forms side by side; where one cannot be opened, none stays open."""
    opening = [pool.submit(open_form, count) for count in counts]
    try:
        return [one.result() for one in opening]
    except BaseException:
        for one in opening:
            if one.exception() is None:
                one.result().close()
        raise


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
    """Returns the form for several requests at once and how many it runs side by side."""
    counts = sorted({min(core_count(), _MOST_STREAMS), min(max(core_count() // 2, 1), _MOST_STREAMS)} - {1})
    if not counts:
        return alone, 1
    tensor = _some_tensor(card, variant)
    best, best_rate, best_count = alone, _rate(alone, tensor, 2) * _WORTH, 1
    for count in counts:
        session = open_form(count)
        rate = _rate(session, tensor, count + 1)
        if rate > best_rate:
            if best is not alone:
                best.close()
            best, best_rate, best_count = session, rate, count
        else:
            session.close()
    return best, best_count


def _some_tensor(card: Card, variant: Variant) -> NDArray[Any]:
    sized = card.with_size(variant.size_hw)
    noise = np.random.default_rng(0).integers(0, 256, size=(*variant.size_hw, 3), dtype=np.uint8)
    prepared, _ = prepare(noise, sized.input)
    return to_tensor(prepared, sized.input, variant.layout)


def _rate(session: EngineSession, tensor: NDArray[Any], callers: int) -> float:
    """Returns inferences a second with several callers, over half a second."""
    counts = [0] * callers
    end = time.perf_counter() + _TRIAL_S

    def call(index: int) -> None:
        while time.perf_counter() < end:
            session.infer(tensor)
            counts[index] += 1

    session.infer(tensor)
    threads = [threading.Thread(target=call, args=(index,)) for index in range(callers)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)
