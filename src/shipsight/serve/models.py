# SPDX-License-Identifier: Apache-2.0
"""Models in service: loaded, replaced, pushed out for others and taken out while requests run.

Invariants: a model is ready only when its golden set was replayed here and agreed; a request that has found its model
is answered by that model, whatever is loaded meanwhile; one that leaves answers what it has, then gives its memory back;
all together hold no more memory than the budget, but for what one that comes holds before it is measured.
Leaves to others: opening variants, here or in a worker (`hosting`), whose turn it is (`scheduler`), which version a request
that names none goes to (`rollout`), who leaves when memory is short (`memory`), what lies in the operator's folder
(`repository`). Stable.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from shipsight.access import SERVER, Principal
from shipsight.engines import get_engine
from shipsight.errors import InternalError, LimitError, NotFoundError, NotReadyError, ServiceError, ShipsightError
from shipsight.model import Card
from shipsight.model.bundle import Bundle, open_bundle
from shipsight.serve.hosting import Runners, keep_in_worker, open_variants
from shipsight.serve.isolation import Keeper
from shipsight.serve.memory import Holder, choose_leaving, expected_bytes, give_back_memory, resident_bytes
from shipsight.serve.model_events import ModelEvents
from shipsight.serve.opening import OpenSettings
from shipsight.serve.repository import Repository
from shipsight.serve.rollout import Rollouts
from shipsight.serve.runner import Runner
from shipsight.serve.scheduler import Lane, Scheduler

__all__ = ["ModelState", "Models", "ServedModel"]


class ModelState(StrEnum):
    """Where a model is on its way through service."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    EVICTED = "evicted"
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
        error: why it failed or is restarted, None otherwise.
        keeper: of its worker process, None where its engines run in this one.
        deaths: how often its worker process has ended.
        is_pinned: whether it stays when memory is short.
        memory_bytes: that it was measured to hold when it was loaded.
        load_s: seconds that loading took.
        used_s: when somebody last asked for it, monotonic seconds.
    """

    name: str
    version: str
    path: Path
    digest: str
    card: Card
    default_variant: str
    lane: Lane
    runners: Runners = field(default_factory=dict)
    state: ModelState = ModelState.LOADING
    error: ShipsightError | None = None
    keeper: Keeper[Runners] | None = None
    deaths: int = 0
    is_pinned: bool = False
    memory_bytes: int = 0
    load_s: float = 0.0
    used_s: float = field(default_factory=time.monotonic)

    @property
    def answers(self) -> bool:
        """Whether requests are answered, if need be after it was loaded again."""
        return self.state in (ModelState.READY, ModelState.EVICTED)

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
        rollouts: which version answers where none is named.
        repository: folder of bundles that may be loaded by name, None for none.
        memory_bytes: that all may hold together, None for any.
        events: told of what comes and leaves, and of bundles that are read.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        settings: OpenSettings = OpenSettings(),
        *,
        rollouts: Rollouts | None = None,
        repository: Repository | None = None,
        memory_bytes: int | None = None,
        events: ModelEvents | None = None,
    ) -> None:
        self._events = events or ModelEvents()
        self.rollouts = rollouts or Rollouts()
        self.repository = repository
        self.memory_bytes = memory_bytes
        self._scheduler = scheduler
        self._settings = settings
        self._lock = threading.Lock()
        self._changing = threading.RLock()  # one model comes or goes at a time
        self._versions: dict[str, dict[str, ServedModel]] = {}
        self._firsts: dict[str, str] = {}  # name -> version that came into service first, also after it left
        self._paths: dict[str, dict[str, Path]] = {}  # name -> version -> bundle, of all that were ever asked for
        self._waking: dict[tuple[str, str], Future[ServedModel]] = {}
        self._closed = False
        self.is_starting = False  # whether what the operator named is still to come

    def load(
        self,
        path: Path,
        *,
        name: str | None = None,
        is_pinned: bool = False,
        actor: Principal = SERVER,
        is_again: bool = False,
    ) -> ServedModel:
        """Loads a bundle; a version that is in service already is replaced once the new one is ready.

        Args:
            path: of the bundle.
            name: that it is served under; None for its own.
            is_pinned: whether it stays when memory is short; one that is replaced hands that on.
            actor: who has it loaded.
            is_again: whether it only comes back: then it does so also where that cannot be recorded.

        Raises:
            AuditError: it cannot be recorded.
            ReplayMismatchError: this machine does not run what was measured.
            TamperedError, CorruptError, EnvironmentLackError: the bundle cannot be opened here.
            LimitError, NotReadyError: it does not fit into the memory for models, ever or now.
        """
        with self._changing:
            if self._closed:
                raise NotReadyError("the server is leaving")
            return self._load(open_bundle(path), name, is_pinned, actor, is_again)

    def _load(self, bundle: Bundle, name: str | None, is_pinned: bool, actor: Principal, is_again: bool) -> ServedModel:
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
            before = self._versions.setdefault(label, {}).get(model.version)
            if before is None:
                self._versions[label][model.version] = model
                self._paths.setdefault(label, {})[model.version] = bundle.path
        model.is_pinned = is_pinned or (before is not None and before.is_pinned)
        try:
            self._open(model, bundle, before, actor, is_again)
            instead_of = None if before is None else before.digest
            self._events.loaded(bundle, label, actor, instead_of=instead_of, is_needed=not is_again)
        except BaseException as error:
            self._fail(model, error)
            raise
        with self._lock:
            if model.state is ModelState.LOADING:  # its worker may have ended since
                model.state = ModelState.READY
            self._versions[label][model.version] = model
            self._firsts.setdefault(label, model.version)
            self._paths[label][model.version] = bundle.path
        if before is not None:
            self._retire(before)
        return model

    def _fail(self, model: ServedModel, error: BaseException) -> None:
        """Takes back a model that could not be loaded; where others answer for it, nothing of it stays."""
        model.error = error if isinstance(error, ShipsightError) else InternalError(f"{type(error).__name__}: {error}")
        model.state = ModelState.FAILED
        with self._lock:
            versions = self._versions[model.name]
            has_others = any(one.answers or one.state is ModelState.RESTARTING for one in versions.values())
            if versions.get(model.version) is model and (has_others or isinstance(error, LimitError | ServiceError)):
                del versions[model.version]
            if not versions:
                del self._versions[model.name]
        self._close(model)

    def _open(
        self, model: ServedModel, bundle: Bundle, before: ServedModel | None, actor: Principal, is_again: bool
    ) -> None:
        """Opens a model's variants within the memory there is, and measures what they hold."""
        names = self._variants(bundle)
        folders = tuple(f"variants/{name}/" for name in names)
        files_bytes = sum(entry.size for entry in bundle.manifest.files if entry.name.startswith(folders))
        known = before is not None and before.digest == model.digest and before.memory_bytes
        model.memory_bytes = known or expected_bytes(files_bytes)
        self._make_room(model)
        if not self._settings.isolate:
            for name in names:
                get_engine(bundle.variant(name).engine)  # what a runtime itself holds is no model's, and stays
        give_back_memory()
        self._events.reads(bundle, model.name, names, actor, is_needed=not is_again)
        begin_s, begin_bytes = time.monotonic(), resident_bytes()
        self._open_variants(model, bundle, names)
        give_back_memory()
        # Engines hold their weights even where these took the place of memory that was resident already.
        model.memory_bytes = max(resident_bytes() - begin_bytes, files_bytes)
        model.load_s = time.monotonic() - begin_s
        self._make_room(model)

    def _open_variants(self, model: ServedModel, bundle: Bundle, names: Sequence[str]) -> None:
        """Opens variants here or in a worker that is kept alive."""
        if not self._settings.isolate:
            open_variants(bundle, names, self._settings, model.runners)
            return
        model.keeper = keep_in_worker(
            bundle,
            names,
            self._settings,
            label=model.name,
            on_again=partial(self._events.reads, bundle, model.name, names, SERVER, is_needed=False),
            on_down=partial(self._down, model),
            on_up=partial(self._up, model),
        )
        model.keeper.open()

    def _down(self, model: ServedModel, error: ShipsightError) -> None:
        """Its worker has ended, or could not be started again."""
        with self._lock:
            model.deaths += model.state is not ModelState.RESTARTING
            if model.state not in (ModelState.LEAVING, ModelState.EVICTED):
                model.state, model.error = ModelState.RESTARTING, error

    def _up(self, model: ServedModel, runners: Runners) -> None:
        """A worker of it is ready."""
        with self._lock:
            model.runners = runners
            if model.state is ModelState.RESTARTING:
                model.state, model.error = ModelState.READY, None

    def _make_room(self, coming: ServedModel) -> None:
        """Pushes out models until one that comes fits.

        Raises:
            LimitError, NotReadyError: it does not, ever or now.
        """
        if self.memory_bytes is None:
            return
        holders = [
            Holder(one, one.memory_bytes, one.used_s, one.is_pinned, self._is_idle(one))
            for one in self.all()
            if one is not coming and one.runners
        ]
        where = f"{coming.name} {coming.version}"
        for one in choose_leaving(holders, needs=coming.memory_bytes, limit=self.memory_bytes, where=where):
            self._events.unloaded(one.name, one.version, one.digest, SERVER, reason="memory")
            one.state = ModelState.EVICTED
            self._close(one)

    def _is_idle(self, model: ServedModel) -> bool:
        return model.state is ModelState.READY and self._scheduler.is_idle(model.lane)

    def reload(self, name: str, version: str | None = None, *, actor: Principal = SERVER) -> None:
        """Loads a model anew: from where it came, also after it was taken out of service, else from the repository.

        Args:
            name: of the model.
            version: None for all that were ever in service; where none was, the highest of the repository.
            actor: who has it loaded.

        Raises:
            NotFoundError: nothing of that name is known.
            ReplayMismatchError, TamperedError, CorruptError, EnvironmentLackError, LimitError: as `load`.
        """
        for path in self._paths_of(name, version):
            self.load(path, name=name, actor=actor)

    def bring(self, name: str, version: str, *, actor: Principal = SERVER, is_again: bool = False) -> ServedModel:
        """Returns a version that is ready; one that is not in service is loaded first.

        Args:
            name: of the model.
            version: of it.
            actor: who wants it.
            is_again: as `load`.

        Raises:
            NotFoundError: nothing of that name and version is known.
            ReplayMismatchError, TamperedError, CorruptError, EnvironmentLackError, LimitError: as `load`.
        """
        with self._changing:
            with self._lock:
                model = self._versions.get(name, {}).get(version)
            if model is not None and model.state is ModelState.READY:
                model.used_s = time.monotonic()
                return model
            (path,) = self._paths_of(name, version)
            model = self.load(path, name=name, actor=actor, is_again=is_again)
            if model.version != version:
                raise NotFoundError(
                    "the bundle has become another version", where=name, expected=version, got=model.version
                )
            return model

    def wake(self, model: ServedModel) -> Future[ServedModel]:
        """Loads a model again that was pushed out: once, however many ask.

        Returns:
            The model that takes its place; or as `load`, and `NotReadyError` where it cannot be loaded any more.
        """
        key = (model.name, model.version)
        with self._lock:
            running = self._waking.get(key)
            if running is not None:
                return running
            future: Future[ServedModel] = Future()
            future.set_running_or_notify_cancel()  # who waits may leave; the load goes on
            self._waking[key] = future
        threading.Thread(target=self._wake, args=(model, future), name="shipsight-waking", daemon=True).start()
        return future

    def _wake(self, model: ServedModel, future: Future[ServedModel]) -> None:
        try:
            with self._changing:
                with self._lock:
                    now = self._versions.get(model.name, {}).get(model.version)
                if now is None:
                    raise NotFoundError("the model was taken out of service", where=model.name, got=model.version)
                awake = self.bring(model.name, model.version, is_again=True)
        except ServiceError as error:
            self._end_waking(model, future, error)
        except LimitError as error:
            # What was measured varies a little: the next time it may fit again.
            self._end_waking(model, future, NotReadyError("no memory for the model", where=model.name, got=error))
        except ShipsightError as error:
            # It was in service and cannot be any more: asking again would only load it in vain.
            with self._changing:
                if model.state is ModelState.EVICTED:
                    model.state, model.error = ModelState.FAILED, error
            self._end_waking(model, future, _not_ready(model))
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self._end_waking(model, future, error)
        else:
            self._end_waking(model, future, awake)

    def _end_waking(self, model: ServedModel, future: Future[ServedModel], result: ServedModel | BaseException) -> None:
        with self._lock:
            del self._waking[model.name, model.version]
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    def known(self) -> list[tuple[str, str]]:
        """Returns name and version of all models that are or were in service, or lie in the repository."""
        with self._lock:
            found = {(name, version) for name, versions in self._paths.items() for version in versions}
        stored = [] if self.repository is None else self.repository.list()
        return sorted(found | {(one.name, one.version) for one in stored})

    def _paths_of(self, name: str, version: str | None) -> list[Path]:
        with self._lock:
            paths = dict(self._paths.get(name, {}))
        if version is None and paths:
            return list(paths.values())
        if version in paths:
            return [paths[version]]
        if self.repository is None:
            known = sorted(paths if version is not None and paths else {one for one, _ in self.known()})
            what = "no such version" if version is not None and paths else "no such model"
            raise NotFoundError(what, where=name[:100], expected=", ".join(known) or None, got=version)
        return [self.repository.find(name, version).path]

    def note_read(self, bundle: Bundle, model: str, variants: Sequence[str]) -> None:
        """Tells that files of a model's variants are about to be opened for other uses than answering.

        Args:
            bundle: that holds them.
            model: name that it is served under.
            variants: names of what is opened.

        Raises:
            AuditError: it cannot be recorded; then it must not be done.
        """
        self._events.reads(bundle, model, variants, SERVER)

    def _variants(self, bundle: Bundle) -> Sequence[str]:
        default = bundle.default_variant.name
        if self._settings.variants == ("all",):
            return [default, *(one.name for one in bundle.variants if one.name != default)]
        for name in self._settings.variants:
            bundle.variant(name)
        return list(dict.fromkeys((default, *self._settings.variants)))

    def find(self, name: str, version: str | None = None, key: str = "") -> ServedModel:
        """Returns the model that a request goes to, in whatever state it is.

        Args:
            name: of the model.
            version: None for the current one, or the canary where the key belongs to it.
            key: of the request.

        Raises:
            NotFoundError: it is not in service.
            NotReadyError: the version that was made the current one is not in service.
        """
        with self._lock:
            versions = dict(self._versions.get(name, {}))
            known = sorted(self._versions)
        if not versions:
            raise NotFoundError("no such model", where=name[:100], expected=", ".join(known) or "no model is loaded")
        if version is None:
            model = self._route(name, versions, key)
        elif version in versions:
            model = versions[version]
        else:
            raise NotFoundError("no such version", where=name, expected=", ".join(versions), got=repr(version[:100]))
        model.used_s = time.monotonic()
        return model

    def _route(self, name: str, versions: dict[str, ServedModel], key: str) -> ServedModel:
        rollout = self.rollouts.of(name)
        current = rollout.current or self._firsts.get(name) or next(iter(versions))
        if rollout.canary is not None and rollout.is_canary(key):
            canary = versions.get(rollout.canary.version)
            if canary is not None and canary.answers:
                return canary
        if current not in versions:
            raise NotReadyError("the current version is not in service", where=name, got=f"version {current}")
        return versions[current]

    def get(self, name: str, version: str | None = None, key: str = "") -> ServedModel:
        """Returns a model that can answer now; one that was pushed out begins to be loaded again.

        Args:
            name: of the model.
            version: as in `find`.
            key: of the request.

        Raises:
            NotFoundError: it is not in service.
            NotReadyError: it is not ready.
        """
        model = self.find(name, version, key)
        if model.state is ModelState.EVICTED:
            self.wake(model)
        if model.state is not ModelState.READY:
            raise _not_ready(model)
        return model

    def current(self, name: str) -> str | None:
        """Returns the version that answers where none is named, None where the model never came into service.

        Where nobody decided it is the one that came into service first, also while it is not there: who may load and unload versions
        does not change by that which one answers.
        """
        with self._lock:
            coming = next(iter(self._versions.get(name, {})), None)
        return self.rollouts.of(name).current or self._firsts.get(name, coming)

    def all(self) -> list[ServedModel]:
        """Returns all versions of all models, by name, in the order in which they came into service."""
        with self._lock:
            return [model for name in sorted(self._versions) for model in self._versions[name].values()]

    def unload(self, name: str, version: str | None = None, *, actor: Principal | None = None) -> None:
        """Takes a model out of service, all its versions where none is named; returns when its memory is given back.

        Args:
            name: of the model.
            version: None for all.
            actor: who wants it gone; None where the server leaves, which is told in one for all.

        Raises:
            AuditError: it cannot be recorded.
            NotFoundError: it is not in service.
        """
        with self._changing:
            with self._lock:
                versions = self._versions.get(name, {})
                leaving = [one for one in versions.values() if version in (None, one.version)]
                if not leaving:
                    raise NotFoundError("no such model", where=name[:100], got=version)
            if actor is not None:
                for one in leaving:
                    self._events.unloaded(name, one.version, one.digest, actor, reason="asked")
            with self._lock:
                for one in leaving:
                    del versions[one.version]
                if not versions:
                    self._versions.pop(name, None)
            for one in leaving:
                self._retire(one)

    def close(self) -> None:
        """Takes all models out of service, and loads none any more."""
        with self._changing:
            self._closed = True
        for name in {model.name for model in self.all()}:
            self.unload(name)

    def _retire(self, model: ServedModel) -> None:
        with self._lock:
            model.state = ModelState.LEAVING
        self._close(model)

    def _close(self, model: ServedModel) -> None:
        self._scheduler.close_lane(model.lane)
        if model.keeper is not None:
            model.keeper.close()  # and with the process all that is open in it
        else:
            for runner in model.runners.values():
                runner.close()
        model.runners.clear()
        gc.collect()
        give_back_memory()


def _not_ready(model: ServedModel) -> NotReadyError:
    if model.state is ModelState.EVICTED:
        error = NotReadyError("the model gave its memory to others and is loaded again", where=model.name)
        error.retry_after_s = max(1, math.ceil(model.load_s))
        return error
    # Why it failed names files of this machine: that is for the log and the operator.
    got = model.state.value if model.error is None else f"{model.state.value}: {model.error.code}"
    return NotReadyError("the model is not ready", where=model.name, got=got)
