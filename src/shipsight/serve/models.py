# SPDX-License-Identifier: Apache-2.0
"""Models in service: loaded, replaced and taken out while requests run.

Invariants: a model is ready only when its golden set was replayed here and agreed; a request that has found its model
is answered by that model, whatever is loaded meanwhile; one that leaves answers what it has, then gives its memory back.
Leaves to others: opening variants (`runner`), whose turn it is (`scheduler`). Stable.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from shipsight.errors import NotFoundError, NotReadyError, ShipsightError
from shipsight.model import Card
from shipsight.model.bundle import Bundle, open_bundle
from shipsight.serve.opening import OpenSettings
from shipsight.serve.runner import Runner, open_runner
from shipsight.serve.scheduler import Lane, Scheduler

__all__ = ["ModelState", "Models", "ServedModel"]


class ModelState(StrEnum):
    """Where a model is on its way through service."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    LEAVING = "leaving"


@dataclass(eq=False)
class ServedModel:
    """One version of a model in service.

    Attributes:
        name: of the model.
        version: of the model.
        path: of its bundle.
        digest: of its bundle.
        card: what it is.
        default_variant: name of the variant that answers when nobody asks for another.
        runners: variant name -> opened variant.
        lane: its queue.
        state: where it is.
        error: why it failed, None otherwise.
    """

    name: str
    version: str
    path: Path
    digest: str
    card: Card
    default_variant: str
    lane: Lane
    runners: dict[str, Runner] = field(default_factory=dict)
    state: ModelState = ModelState.LOADING
    error: ShipsightError | None = None

    def runner(self, variant: str | None) -> Runner:
        """Returns a variant that is in service, None for the default.

        Raises:
            NotFoundError: it is not in service.
        """
        found = self.runners.get(variant or self.default_variant)
        if found is None:
            raise NotFoundError(
                "this variant is not served", where=self.name, expected=", ".join(self.runners), got=repr(variant)
            )
        return found


class Models:
    """All models in service.

    Args:
        scheduler: runs their jobs.
        settings: how variants are opened.
    """

    def __init__(self, scheduler: Scheduler, settings: OpenSettings = OpenSettings()) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._lock = threading.Lock()
        self._changing = threading.RLock()  # one model comes or goes at a time
        self._versions: dict[str, dict[str, ServedModel]] = {}
        self._paths: dict[str, dict[str, Path]] = {}  # name -> version -> bundle, of all that were ever asked for

    def load(self, path: Path, *, name: str | None = None) -> ServedModel:
        """Loads a bundle; a version that is in service already is replaced once the new one is ready.

        Args:
            path: of the bundle.
            name: that it is served under; None for its own.

        Raises:
            ReplayMismatchError: this machine does not run what was measured.
            TamperedError, CorruptError, EnvironmentLackError: the bundle cannot be opened here.
        """
        with self._changing:
            return self._load(open_bundle(path), name)

    def _load(self, bundle: Bundle, name: str | None) -> ServedModel:
        label = name or bundle.card.name
        model = ServedModel(
            name=label,
            version=bundle.card.version,
            path=bundle.path,
            digest=bundle.digest,
            card=bundle.card,
            default_variant=bundle.default_variant.name,
            lane=self._scheduler.open_lane(label),
        )
        with self._lock:
            self._paths.setdefault(label, {})[model.version] = bundle.path
            before = self._versions.setdefault(label, {}).get(model.version)
            if before is None:
                self._versions[label][model.version] = model
        try:
            for variant in self._variants(bundle):
                model.runners[variant] = open_runner(bundle, bundle.variant(variant), self._settings)
        except ShipsightError as error:
            model.state, model.error = ModelState.FAILED, error
            self._close(model)
            raise
        model.state = ModelState.READY
        with self._lock:
            self._versions[label].pop(model.version, None)
            self._versions[label][model.version] = model  # the latest loaded comes last
        if before is not None:
            self._retire(before)
        return model

    def reload(self, name: str) -> None:
        """Loads a model anew from where it came, also one that was taken out of service.

        Raises:
            NotFoundError: nothing of that name was ever in service.
            ReplayMismatchError, TamperedError, CorruptError, EnvironmentLackError: as `load`.
        """
        with self._lock:
            paths = list(self._paths.get(name, {}).values())
            known = sorted(self._paths)
        if not paths:
            raise NotFoundError("no such model", where=name[:100], expected=", ".join(known))
        for path in paths:
            self.load(path, name=name)

    def known(self) -> list[str]:
        """Returns the names of all models that are or were in service."""
        with self._lock:
            return sorted(self._paths)

    def _variants(self, bundle: Bundle) -> Sequence[str]:
        default = bundle.default_variant.name
        if self._settings.variants == ("all",):
            return [default, *(one.name for one in bundle.variants if one.name != default)]
        for name in self._settings.variants:
            bundle.variant(name)
        return list(dict.fromkeys((default, *self._settings.variants)))

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """Returns a model that can answer, the version loaded last where none is named.

        Raises:
            NotFoundError: it is not in service.
            NotReadyError: it is not ready.
        """
        with self._lock:
            versions = dict(self._versions.get(name, {}))
            known = sorted(self._versions)
        if not versions:
            raise NotFoundError("no such model", where=name[:100], expected=", ".join(known) or "no model is loaded")
        if version is not None:
            if version not in versions:
                raise NotFoundError(
                    "no such version", where=name, expected=", ".join(versions), got=repr(version[:100])
                )
            model = versions[version]
        else:
            ready = [one for one in versions.values() if one.state is ModelState.READY]
            model = ready[-1] if ready else list(versions.values())[-1]
        if model.state is not ModelState.READY:
            raise NotReadyError("the model is not ready", where=name, got=model.error or model.state.value)
        return model

    def all(self) -> list[ServedModel]:
        """Returns all versions of all models, by name, in the order in which they were loaded."""
        with self._lock:
            return [model for name in sorted(self._versions) for model in self._versions[name].values()]

    def unload(self, name: str, version: str | None = None) -> None:
        """Takes a model out of service, all its versions where none is named; returns when its memory is given back.

        Raises:
            NotFoundError: it is not in service.
        """
        with self._lock:
            versions = self._versions.get(name, {})
            leaving = [one for one in versions.values() if version in (None, one.version)]
            if not leaving:
                raise NotFoundError("no such model", where=name, got=version)
            for one in leaving:
                del versions[one.version]
            if not versions:
                self._versions.pop(name, None)
        with self._changing:
            for one in leaving:
                self._retire(one)

    def close(self) -> None:
        """Takes all models out of service."""
        for name in {model.name for model in self.all()}:
            self.unload(name)

    def _retire(self, model: ServedModel) -> None:
        model.state = ModelState.LEAVING
        self._close(model)

    def _close(self, model: ServedModel) -> None:
        self._scheduler.close_lane(model.lane)
        for runner in model.runners.values():
            runner.close()
        model.runners.clear()
        gc.collect()
        _give_back_memory()


def _give_back_memory() -> None:
    """Asks the C library for the pages that engines freed; elsewhere than on glibc there is nothing to ask."""
    try:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
