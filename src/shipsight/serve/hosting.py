# SPDX-License-Identifier: Apache-2.0
"""Where a model's variants are open: in the serving process, or in a worker process that is kept alive.

Leaves to others: what becomes of the model meanwhile (`models`), opening one variant (`runner`). Stable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from shipsight.errors import ShipsightError
from shipsight.model.bundle import Bundle
from shipsight.serve.isolation import ENGINE_WORKER, Keeper, WorkerProcess, open_session
from shipsight.serve.opening import OpenSettings
from shipsight.serve.runner import OpenForm, Runner, open_here, open_runner

__all__ = ["Runners", "keep_in_worker", "open_variants"]

Runners = dict[str, Runner]
"""Variant name -> opened variant."""


def open_variants(
    bundle: Bundle, names: Sequence[str], settings: OpenSettings, runners: Runners, open_in: OpenForm = open_here
) -> None:
    """Opens variants.

    Args:
        bundle: holds them.
        names: of them.
        settings: how.
        runners: takes them, one by one: where one fails, those before it are there to be closed.
        open_in: where.

    Raises:
        ShipsightError: as `open_runner`.
    """
    for name in names:
        runners[name] = open_runner(bundle, bundle.variant(name), settings, open_in)


def keep_in_worker(
    bundle: Bundle,
    names: Sequence[str],
    settings: OpenSettings,
    *,
    label: str,
    on_again: Callable[[], None],
    on_down: Callable[[ShipsightError], None],
    on_up: Callable[[Runners], None],
) -> Keeper[Runners]:
    """Returns what keeps variants open in a worker, once it is opened.

    Args:
        bundle: holds them; read again for each worker.
        names: of them.
        settings: how.
        label: of the worker.
        on_again: called before the files are read for a worker that takes another's place.
        on_down: told why, when the worker has ended or could not be started again.
        on_up: given the variants, replayed, of the first worker and of each that took its place.
    """
    is_first = True

    def prepare(worker: WorkerProcess) -> Runners:
        nonlocal is_first
        if not is_first:
            on_again()
        is_first = False
        runners: Runners = {}
        open_variants(bundle, names, settings, runners, partial(open_session, worker, stuck_s=settings.stuck_s))
        return runners

    return Keeper(ENGINE_WORKER, label, prepare, on_down=on_down, on_up=on_up)
