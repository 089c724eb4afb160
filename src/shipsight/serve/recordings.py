# SPDX-License-Identifier: Apache-2.0
"""Recordings of production as a server has them: opened by its policy, fed by what it answers, ended with it.

Imports nothing of the recordings' room where nothing is recorded. Leaves to others: what is recorded (`monitor.recording`), who asks for it
(`http.recordings`). Stable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shipsight.access import SERVER, Event, EventKind, EventSink, Outcome
from shipsight.errors import OverloadedError
from shipsight.model.bundle import open_bundle
from shipsight.serve.models import Models
from shipsight.serve.recording_options import RecordingOptions
from shipsight.serve.watching import Watcher, Watching

if TYPE_CHECKING:
    # Cryptography, which a server that records nothing does not need.
    from shipsight.monitor.recording import Enforcement, Finder, Recorder, Store

__all__ = ["Recordings", "open_recordings"]

_GRACE_S = 8.0  # of the 15 s that a supervisor gives a process beyond its drain


class Recordings:
    """Recordings that are being made.

    Args:
        store: that keeps them.
        recorder: writes into it.
        watching: tells the recorder of what was answered.
        finders: find what is to be redacted.
    """

    def __init__(self, store: Store, recorder: Recorder, watching: Watching, finders: Finders) -> None:
        self.store, self.recorder, self.watching = store, recorder, watching
        self._finders = finders

    def check(self) -> None:
        """Refuses models that cannot find what is to be redacted; those that come later are not recorded instead, and counted.

        Raises:
            UsageError: one has no such class, or says not where.
            ShipsightError: the policy's own bundle cannot be opened.
        """
        self._finders.check()

    def flush(self, timeout_s: float = 20.0) -> None:
        """Waits until all that was answered until now is kept: before an erasure, so that nothing of it comes after.

        Raises:
            OverloadedError: it takes longer.
        """
        if not self.watching.flush(timeout_s) or not self.recorder.flush(timeout_s):
            raise OverloadedError(
                "recordings wait to be kept, and would come after the erasure",
                expected=f"within {timeout_s:g} s",
                hint="Ask again.",
            )

    def close(self) -> None:
        """Keeps what waits, as far as there is time; what was answered must have been shown by then."""
        self.recorder.close(_GRACE_S)
        self._finders.close()


class Finders:
    """Finds what a policy redacts: with the bundle that it names, else with that of the model that answered.

    Each is opened a second time, on one thread, when the first of its images is recorded, so that requests keep the engines that they have.

    Args:
        enforcement: of the policy.
        models: in service.
    """

    def __init__(self, enforcement: Enforcement, models: Models) -> None:
        self._enforcement, self._models = enforcement, models
        named = enforcement.policy.redaction.bundle
        self._bundle = None if named is None else Path(named)
        self._lock = threading.Lock()
        self._opened: dict[str, tuple[str, Finder, ExitStack]] = {}

    @property
    def _needed(self) -> bool:
        return bool(self._enforcement.policy.redaction.classes) and self._enforcement.keeps_image

    def check(self) -> None:
        """As `Recordings.check`."""
        if not self._needed:
            return
        if self._bundle is not None:
            self.find("")
            return
        for one in self._models.all():
            self._enforcement.check_finder(one.card.class_names, one.card.task, name=one.name)

    def find(self, model: str) -> Finder | None:
        """Returns what finds objects in images of a model, None where nothing is redacted.

        Raises:
            NotFoundError, NotReadyError: the model left service meanwhile.
            UsageError: it cannot find what is to be redacted.
            TamperedError, EnvironmentLackError: its bundle cannot be opened.
        """
        if not self._needed:
            return None
        if self._bundle is not None:
            return self._open("", "", self._bundle)
        served = self._models.find(model)
        return self._open(model, served.digest, served.path)

    def _open(self, name: str, digest: str, bundle: Path) -> Finder:
        from shipsight.monitor.recording import open_redactor

        with self._lock:
            held = self._opened.get(name)
            if held is not None and held[0] == digest:
                return held[1]
            stack = ExitStack()
            # What is served is what was verified when it was loaded: another bundle there may find nothing.
            opened = open_bundle(bundle, digest=digest or None)
            find = stack.enter_context(open_redactor(self._enforcement, opened))
            if held is not None:  # another version answers now
                held[2].close()
            self._opened[name] = (digest, find, stack)
            return find

    def close(self) -> None:
        """Closes what was opened."""
        for _, _, stack in self._opened.values():
            stack.close()
        self._opened.clear()


def open_recordings(
    options: RecordingOptions, models: Models, watching: Watching, *, events: EventSink, now: Callable[[], datetime]
) -> Recordings | None:
    """Opens the store, which a policy that holds anew is recorded with; None where nothing of single images is recorded.

    Args:
        options: of recording.
        models: in service.
        watching: tells of what was answered.
        events: takes what happens.
        now: tells the time, UTC.

    Raises:
        UsageError: the policy does not let recordings lie there, the key lies among them, or another process records there.
        EnvironmentLackError, CorruptError: the store or its key cannot be used.
        AuditError: that another policy holds cannot be recorded.
    """
    if options.policy is None or options.folder is None or options.key is None or not options.keeps_samples:
        return None
    from shipsight.monitor.recording import Policy, Recorder, Store

    policy = Policy.from_dict(options.policy, where="--record-policy")
    store = Store(options.folder, key_file=options.key, policy=policy, now=now)
    if store.is_policy_new:
        held = [one.digest for _, one in store.index.policies()]
        change = f"{held[-2] if len(held) > 1 else 'none'} -> {policy.digest}"
        details = {"recording policy": change}
        kind = EventKind.CONFIGURATION_CHANGED
        events.record(Event(now(), kind, Outcome.DONE, SERVER.told(), "recordings", details=details))
    finders = Finders(store.enforcement, models)
    recorder = Recorder(store, find=finders.find, events=events, actor=SERVER.told())
    watching.add(Watcher(recorder.offer))
    watching.subject_header = policy.subject_header
    return Recordings(store, recorder, watching, finders)
