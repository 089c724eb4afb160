# SPDX-License-Identifier: Apache-2.0
"""The audit log of a server is opened, and what happens is told to it first, then to the server's own log.

A server that keeps one records everything that the gate, identities, models and rollouts tell; where it cannot, what would have to be
recorded is not done, and predictions go on (`access.audit.log`). Imports nothing of the log where there is none. Stable.
"""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from shipsight.access import SERVER, Event, EventKind, EventSink, LoggedEvents, Outcome
from shipsight.errors import AuditError, EnvironmentLackError, MissingDependencyError, ShipsightError
from shipsight.serve.audit_options import AuditOptions

if TYPE_CHECKING:
    # SQLAlchemy, which a server that records nothing does not need.
    from shipsight.access.audit.log import AuditLog

__all__ = ["AuditedEvents", "LateAudit", "opened_audit", "record_elsewhere", "starts_with", "switched_off"]

_log = logging.getLogger("shipsight.serve")
_QUIET = frozenset({EventKind.PREDICTED, EventKind.KEY_USED, EventKind.CERTIFICATE_USED})
"""What the request log tells already, or nobody wants to read line by line."""


@contextmanager
def opened_audit(options: AuditOptions, *, is_command: bool = False) -> Iterator[AuditLog | None]:
    """Gives an audit log, made where there is none; None for a server that keeps none. Afterwards all that waited is written.

    Args:
        options: of the log.
        is_command: whether it is no server, which tells when it starts and stops.

    Raises:
        UsageError: it is no place for one.
        EnvironmentLackError: the place or the key cannot be used.
        AuditError: one of them is gone, or the log cannot be written.
    """
    if options.place is None or options.key is None:
        yield None
        return
    from shipsight.access.audit.log import AuditLog
    from shipsight.access.audit.settings import AuditSettings
    from shipsight.serve.audit_copies import SecondPlaces

    settings = AuditSettings(every=options.every, seconds=options.seconds)
    places = SecondPlaces(options.place, options.copies) if options.copies else None
    has_session = not is_command
    try:
        log = AuditLog.open(
            options.place,
            key=options.key,
            server=options.server,
            settings=settings,
            copies=places,
            has_session=has_session,
        )
        with log:
            yield log
    finally:
        if places is not None:
            places.close()


class AuditedEvents:
    """Records events, then tells them to the server's log.

    Args:
        audit: keeps them, or raises.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit, self._told = audit, LoggedEvents()

    def record(self, event: Event) -> None:
        """Takes one.

        Raises:
            AuditError: it cannot be kept, so that what it tells of must not be done.
        """
        self._audit.record(event)
        if event.kind not in _QUIET:
            self._told.record(event)

    def record_late(self, event: Event) -> None:
        """Takes one of something that is done all the same, and may be told late."""
        self._audit.record_late(event)
        self._told.record(event)


class LateAudit:
    """Records the events of a command, if there are any: the log is opened for the first one.

    Args:
        options: of the log; without a place events are only told.
        elsewhere: what says that it is not the log beside identities; that is recorded there before the first event.
    """

    def __init__(self, options: AuditOptions, *, elsewhere: str | None = None) -> None:
        self._options, self._elsewhere = options, elsewhere
        self._open = ExitStack()
        self._sink: EventSink | None = None

    def record(self, event: Event) -> None:
        """Takes one.

        Raises:
            AuditError: it cannot be kept, so that what it tells of must not be done.
        """
        if self._sink is None:
            if self._elsewhere is not None:
                record_elsewhere(self._options, self._elsewhere)
            audit = self._opened()
            self._sink = LoggedEvents() if audit is None else AuditedEvents(audit)
        self._sink.record(event)

    def _opened(self) -> AuditLog | None:
        try:
            return self._open.enter_context(opened_audit(self._options, is_command=True))
        except (AuditError, MissingDependencyError):
            raise
        except EnvironmentLackError as error:
            got = error.what if error.got is None else f"{error.what}: {error.got}"
            raise AuditError("the audit log cannot be opened", where=error.where, got=got) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink = None
        self._open.close()


def starts_with(audit: AuditLog, events: EventSink, options: AuditOptions) -> None:
    """Records what differs from the start before, before anything of it takes effect.

    Args:
        audit: the log.
        events: records into it.
        options: of the server.

    Raises:
        AuditError: it cannot be recorded.
    """
    from shipsight.serve.configuration import changes_since

    if not options.configuration:
        return
    changes = changes_since(audit, options.server, options.configuration)
    if changes:
        events.record(_by_server(EventKind.CONFIGURATION_CHANGED, user=_user(), **changes))


def switched_off(options: AuditOptions) -> None:
    """Records in a log that it is not written any more by this server, which was told so by `--audit`: `off`, or another place.

    That the log cannot be written may be why: then it is said in the server's log, and the server starts.

    Args:
        options: of the server.
    """
    try:
        record_elsewhere(options, "--audit")
    except ShipsightError as error:
        _log.error("that --audit names no more where the log lies could not be recorded: %s", error)


def record_elsewhere(options: AuditOptions, option: str) -> None:
    """Records in the log that lies beside identities that what follows is recorded elsewhere, or nowhere.

    Args:
        options: of the server or command.
        option: that says so.

    Raises:
        AuditError: it cannot be recorded.
    """
    place = options.off_at
    if place is None or options.off_key is None:
        return
    from shipsight.serve.configuration import without_secrets

    change = f"{without_secrets(place)} -> {'off' if options.place is None else without_secrets(options.place)}"
    there = replace(options, place=place, key=options.off_key, copies=(), predictions=False, off_at=None)
    with LateAudit(there) as late:
        late.record(_by_server(EventKind.CONFIGURATION_CHANGED, user=_user(), **{option: change}))


def _by_server(kind: EventKind, **details: str) -> Event:
    return Event(datetime.now(UTC), kind, Outcome.DONE, SERVER.told(), details=details)


def _user() -> str:
    """Returns whom the operating system takes the server for."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container knows no names
        return f"uid-{os.geteuid()}"
