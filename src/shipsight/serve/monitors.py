# SPDX-License-Identifier: Apache-2.0
"""Monitors of a server: one for each variant that answers, fed beside the requests, told to who wants alerts.

Numbers only: no image is kept, and sealed requests are not looked at. What a monitor learned lies in the server's state folder, in a file for
each bundle, variant and settings, so that a restart goes on and another bundle begins anew. Leaves to others: what drift is (`monitor`), when
somebody is told (`monitor.alerts`). Invariant: whatever fails here fails no request; it is logged, and told by a gauge. Stable.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shipsight.errors import NotFoundError, ShipsightError
from shipsight.model.bundle import open_bundle
from shipsight.monitor.answered import Answered
from shipsight.monitor.drift import MonitorSettings
from shipsight.serve.logs import fields
from shipsight.serve.models import Models, ServedModel
from shipsight.serve.options import ServeOptions
from shipsight.serve.watching import Watcher, Watching

if TYPE_CHECKING:
    from shipsight.monitor import Monitor, MonitorReport, Signal
    from shipsight.monitor.alerts import Alerts
    from shipsight.proof import Calibration, Embed

__all__ = ["Monitors", "Subject", "open_monitors"]

_log = logging.getLogger("shipsight.serve")
_EVALUATE_S = 15.0
_GRACE_S = 3.0  # what a receiver was not sent by then waits on the disk for the next process


class Subject(NamedTuple):
    """What a monitor watches."""

    model: str
    version: str
    variant: str

    def __str__(self) -> str:
        return f"{self.model}:{self.version}/{self.variant}"


@dataclass(eq=False)
class _Watched:
    """A monitor, and what is known of it besides.

    Attributes:
        monitor: of the subject.
        digest: of the bundle.
        is_kept: whether there is a file.
        told: windows of which alerts know.
    """

    monitor: Monitor
    digest: str
    is_kept: bool
    told: int


class Monitors:
    """Looks for drift in what is answered.

    Args:
        settings: of each monitor.
        folder: where their numbers are kept; made where it is missing.
        models: in service.
        now: tells the time, UTC.
        with_embeddings: whether models' own views of images are compared as well.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        folder: Path,
        models: Models,
        *,
        now: Callable[[], datetime],
        with_embeddings: bool = False,
    ) -> None:
        self._settings, self._models, self._now = settings, models, now
        self._with_embeddings = with_embeddings
        self._lock = threading.Lock()
        self._watched: dict[tuple[str, str, str], _Watched] = {}
        self._drifting: frozenset[str] = frozenset()
        self._folder, self._held = _open_folder(folder)
        self.alerts: Alerts | None = None
        self._closing, self._compared = threading.Event(), threading.Event()
        self._evaluating: threading.Thread | None = None

    def tell(self, alerts: Alerts) -> None:
        """Has alerts told of every comparison from now on."""
        self.alerts = alerts
        self._evaluating = threading.Thread(target=self._evaluate, args=(alerts,), name="shipsight-alerts", daemon=True)
        self._evaluating.start()

    def wants(self, model: str, version: str, variant: str) -> bool:
        """Tells whether the next image of a variant would be looked at."""
        watched = self._watched.get((model, version, variant))
        return watched is None or watched.monitor.is_due()

    def look(self, one: Answered) -> None:
        """Takes notice of an image that was answered."""
        if one.is_sealed:
            return
        key = Subject(one.model, one.version, one.variant)
        watched = self._watched.get(key) or self._watch(key)
        if watched is None:
            return
        before = watched.monitor.windows
        if watched.monitor.observe(one.image_rgb, one.predictions) and watched.monitor.windows != before:
            self._note_drift()
            self._compared.set()

    def is_drifting(self, model: str) -> bool:
        """Tells whether the latest window of any variant of a model alarms."""
        return model in self._drifting

    def reports(self, model: str | None = None) -> list[tuple[Subject, MonitorReport, bool]]:
        """Returns how variants in service stand, those that have answered; and of each whether a restart would know it.

        Args:
            model: only its variants; None for all.
        """
        told = []
        for key, watched in self._in_service():
            if model in (None, key.model):
                report = watched.monitor.report()
                told.append((key, report, watched.is_kept and report.is_kept))
        return told

    def signals(self) -> list[Signal]:
        """Returns what the latest window of each variant in service says."""
        return [signal for _, watched in self._in_service() for signal in watched.monitor.signals()]

    def forget(self, model: str, version: str | None = None, variant: str | None = None) -> list[Subject]:
        """Begins anew with the variants of a model: what comes now becomes the reference.

        Args:
            model: whose.
            version: only of this one.
            variant: only this one.

        Returns:
            Which began anew.

        Raises:
            NotFoundError: none of them has answered.
        """
        chosen = [
            (key, watched)
            for key, watched in self._in_service()
            if key.model == model and version in (None, key.version) and variant in (None, key.variant)
        ]
        if not chosen:
            raise NotFoundError("no monitor of that name", where=model[:100], got=version or variant)
        for key, watched in chosen:
            watched.told = 0
            try:
                watched.monitor.forget()
            except OSError as error:
                _log.error("a monitor's state cannot be written", extra=fields(subject=str(key), why=str(error)))
        self._note_drift()
        return [key for key, _ in chosen]

    def bundle_of(self, subject: str) -> str | None:
        """Returns the digest of the bundle behind a subject, None where it is not known."""
        found = [f"sha256:{one.digest}" for key, one in list(self._watched.items()) if str(key) == subject]
        return found[0] if found else None

    def close(self) -> None:
        """Keeps what was learned, and sends what waits as far as there is time."""
        self._closing.set()
        self._compared.set()
        if self._evaluating is not None:
            self._evaluating.join()
        if self.alerts is not None and not self.alerts.close(_GRACE_S):
            _log.warning("alerts wait, and are sent by the next process")
        for key, watched in self._watched.items():
            _save(Subject(*key), watched)
        if self._held is not None:
            os.close(self._held)

    def _in_service(self) -> list[tuple[Subject, _Watched]]:
        serving = {(one.name, one.version): one.digest for one in self._models.all()}
        with self._lock:
            held = [(Subject(*key), one) for key, one in self._watched.items()]
        return sorted(
            (one for one in held if serving.get(one[0][:2]) == one[1].digest),
            key=lambda one: one[0],
        )

    def _watch(self, key: Subject) -> _Watched | None:
        """Returns a new monitor; None where the model has left meanwhile."""
        from shipsight.monitor import Monitor

        served = [one for one in self._models.all() if (one.name, one.version) == key[:2]]
        if not served:
            return None
        embed, calibration = self._knowledge(key, served[0])
        make = partial(Monitor, str(key), self._settings, calibration=calibration, embed=embed)
        watched = _open(key, served[0].digest, self._file(key, served[0].digest, embed is not None), make)
        with self._lock:
            gone = [one for one in self._watched if not any(one[:2] == (m.name, m.version) for m in self._models.all())]
            left = [(Subject(*one), self._watched.pop(one)) for one in gone]
            self._watched[key] = watched
        for name, one in left:
            _save(name, one)
        self._note_drift()
        return watched

    def _file(self, key: Subject, digest: str, has_embeddings: bool) -> Path | None:
        if self._folder is None:
            return None
        # Another bundle or other settings are another reference; whoever goes back finds the one before.
        told = json.dumps([*key, digest, asdict(self._settings), has_embeddings])
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", key.model)[:60]
        return self._folder / f"{readable}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.json"

    def _knowledge(self, key: Subject, model: ServedModel) -> tuple[Embed | None, Calibration | None]:
        """Returns what the bundle of a variant gives its monitor; what it does not give is left out, and logged."""
        from shipsight.proof import calibration_of, open_embedding

        try:
            bundle = open_bundle(model.path)
            if bundle.digest != model.digest:
                raise NotFoundError("the bundle that answers is no longer there", where=str(model.path))
            calibration = calibration_of(bundle, key.variant)
            if not self._with_embeddings:
                return None, calibration
            self._models.note_read(bundle, key.model, [one.name for one in bundle.variants if one.is_reference])
            embed = open_embedding(bundle)
        except (ShipsightError, OSError) as error:
            _log.error(
                "drift is looked for without embeddings and precision: the bundle cannot be read",
                extra=fields(code="monitor-without-bundle", subject=str(key), why=str(error)),
            )
            return None, None
        if embed is None:
            _log.warning(
                "embeddings are not compared: the bundle has no statistics of them",
                extra=fields(code="monitor-without-embeddings", subject=str(key)),
            )
        return embed, calibration

    def _note_drift(self) -> None:
        self._drifting = frozenset(key.model for key, report, _ in self.reports() if report.alarms)

    def _evaluate(self, alerts: Alerts) -> None:
        while not self._closing.is_set():
            self._compared.wait(_EVALUATE_S)
            self._compared.clear()
            signals = []
            for _, watched in self._in_service():
                windows = watched.monitor.windows
                if windows != watched.told:
                    signals += watched.monitor.signals()
                    watched.told = windows
            # Also without news: what still fires is told again, what nobody looks at any more ends.
            if signals or alerts.state.standings:
                try:
                    alerts.take(signals, self._now())
                except ShipsightError:
                    _log.exception("alerts could not be judged")


def _open_folder(folder: Path) -> tuple[Path | None, int | None]:
    """Returns where monitors keep their numbers, and what holds it against other servers; None where that cannot be: then they are kept until the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        _log.warning(
            "what is learned about drift is lost when the server ends: it cannot be written",
            extra=fields(code="monitors-not-kept", folder=str(folder), why=error.strerror),
        )
        return None, None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        _log.warning(
            "what is learned about drift is lost when the server ends: another server keeps its own here; give each its own --state",
            extra=fields(code="monitors-not-kept", folder=str(folder)),
        )
        return None, None
    return folder, held


def _open(key: Subject, digest: str, file: Path | None, make: Callable[..., Monitor]) -> _Watched:
    if file is not None:
        try:
            monitor = make(state_file=file)
        except (ShipsightError, OSError) as error:
            _log.error(
                "what was learned about drift cannot be read; it is learned anew and not kept",
                extra=fields(code="monitor-unreadable", subject=str(key), file=str(file), why=str(error)),
            )
        else:
            return _Watched(monitor, digest, is_kept=True, told=monitor.windows)
    return _Watched(make(), digest, is_kept=False, told=0)


def _save(key: Subject, watched: _Watched) -> None:
    try:
        watched.monitor.save()
    except OSError as error:
        _log.error("a monitor's state cannot be written", extra=fields(subject=str(key), why=str(error)))


def open_monitors(
    options: ServeOptions, models: Models, watching: Watching, *, now: Callable[[], datetime]
) -> Monitors | None:
    """Begins to look for drift; None where nobody wants that.

    Args:
        options: of the server.
        models: in service.
        watching: tells of what was answered.
        now: tells the time, UTC.

    Raises:
        UsageError, CertificateError, EnvironmentLackError, CorruptError: alerts cannot be told by these settings.
    """
    wanted = options.monitoring
    folder = options.rollout.state_dir
    if not options.looks_for_drift or folder is None:
        return None
    monitors = Monitors(wanted.settings, folder / "monitors", models, now=now, with_embeddings=wanted.embeddings)
    if wanted.alerts is not None:
        from shipsight.monitor.alerts import Alerts, read_settings

        monitors.tell(Alerts(read_settings(wanted.alerts), folder / "alerts.json", bundle_of=monitors.bundle_of))
    watching.add(Watcher(monitors.look, monitors.wants))
    watching.is_drifting = monitors.is_drifting
    return monitors
