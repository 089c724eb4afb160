# SPDX-License-Identifier: Apache-2.0
"""Who asks, told fast: what was found out once is not found out again while nothing changed.

An answer is kept under the digest of what was shown, together with the number that grows with every change of rights
(`Directory.revision`). That number is looked at once a second at most: by a thread of its own while somebody asks,
and by whoever asks where that look is overdue. So a change made by this process counts from its end on (the database
says that something was written), one made by another within `LOOK_S`, and a database that does not answer lets nobody
in for longer than that.

`by_key` and its like may read the database: call them in a thread. `known_key` and its like never wait and read
nothing: they return the answer where it is at hand, else None, which means "ask by_key". What was refused is not
kept.

Stable. Source: OWASP ASVS 5.0, 8.3.2.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from shipsight.access.principal import Certificate, Principal, PrincipalKind
from shipsight.access.tokens import digest
from shipsight.errors import AuthenticationError

if TYPE_CHECKING:
    from shipsight.access.service import Access

__all__ = ["LOOK_S", "Authenticator"]

LOOK_S = 1.0
"""Seconds after which a change that another process made is seen at the latest."""

_EARLY_S = 0.4  # after which the thread looks, so that nobody has to wait for it
_IDLE_S = 30.0  # after which the thread ends
_KEEP_S = 50.0  # a use is told once a minute, by whoever finds out again
_SESSION_S = 1.0  # a session may end by its age alone: nothing grows then
_MOST = 20_000

_log = logging.getLogger("shipsight.access")
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Look:
    """What a look at the database told.

    Attributes:
        revision: of rights.
        writes: how often this process had written before.
        at: when the look began, by the clock.
    """

    revision: int
    writes: int
    at: float


@dataclass(frozen=True)
class _Kept(Generic[_T]):
    """An answer.

    Attributes:
        value: what was found out.
        revision: of rights, before it was.
        keep_until: by the clock.
        good_until: by the date, None for ever.
    """

    value: _T
    revision: int
    keep_until: float
    good_until: datetime | None


class Authenticator:
    """Finds out who asks. Threads may share it.

    Args:
        access: what knows everybody.
        clock: seconds, of any beginning.
    """

    def __init__(self, access: Access, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._access, self._clock = access, clock
        self._kept: dict[Any, _Kept[Any]] = {}
        self._lock = threading.Lock()
        self._look: _Look | None = None
        self._due = threading.Event()
        self._watcher: threading.Thread | None = None
        self._is_closed = False

    def by_session(self, token: str) -> tuple[Principal, str] | None:
        """Returns who a session belongs to, and what proves that its own pages ask; None where there is none (any more)."""
        name = ("session", digest(token))

        def find() -> tuple[tuple[Principal, str] | None, datetime | None]:
            return self._access.sessions.find(token), None

        return self._find(name, find, keep_s=_SESSION_S)

    def known_session(self, token: str) -> tuple[Principal, str] | None:
        """As `by_session` where that is at hand."""
        return cast("tuple[Principal, str] | None", self._known(("session", digest(token))))

    def by_key(self, text: str) -> Principal:
        """Returns who shows a key.

        Raises:
            AuthenticationError: it is not accepted.
        """
        found = self._find(("key", digest(text)), lambda: self._access.keys.check(text))
        assert found is not None
        return found

    def known_key(self, text: str) -> Principal | None:
        """As `by_key` where that is at hand."""
        return cast("Principal | None", self._known(("key", digest(text))))

    def by_certificate(self, certificate: Certificate) -> Principal:
        """Returns who shows a certificate; somebody without rights where it is not known.

        Raises:
            AuthenticationError: it has ended.
        """

        def find() -> tuple[Principal, datetime]:
            return self._access.certificates.authenticate(certificate), certificate.not_after

        found = self._find(("certificate", certificate), find)
        assert found is not None
        return found

    def known_certificate(self, certificate: Certificate) -> Principal | None:
        """As `by_certificate` where that is at hand."""
        return cast("Principal | None", self._known(("certificate", certificate)))

    def still(self, principal: Principal) -> Principal | None:
        """Returns somebody who was let in with what they may do now, for what lasts; None where that is nothing any more."""
        return self._find(_still_name(principal), lambda: self._now_of(principal), keep_s=_SESSION_S)

    def known_still(self, principal: Principal) -> Principal | None:
        """As `still` where that is at hand; None does not mean that rights are gone."""
        return cast("Principal | None", self._known(_still_name(principal)))

    def close(self) -> None:
        """Ends the thread; nothing is known afterwards without a look."""
        self._is_closed = True
        self._due.set()
        watcher = self._watcher
        if watcher is not None and watcher is not threading.current_thread():
            watcher.join()
        self._kept.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known(self, name: object) -> Any:  # noqa: ANN401 - whatever is kept under that name
        look, kept = self._look, self._kept.get(name)
        if look is None or kept is None or kept.revision != look.revision:
            return None
        at = self._clock()
        if look.writes != self._access.database.writes or at - look.at > LOOK_S or at > kept.keep_until:
            return None
        if kept.good_until is not None and kept.good_until <= self._access.now():
            return None
        if at - look.at > _EARLY_S:
            self._wake()
        return kept.value

    def _find(self, name: object, find: Callable[[], tuple[_T, datetime | None]], *, keep_s: float = _KEEP_S) -> _T:
        """Returns what is kept, else finds out; the number of rights is read before, so that a change meanwhile is not missed."""
        look = self._fresh_look()
        known = self._known(name)
        if known is not None:
            return cast("_T", known)
        value, good_until = find()
        if value is None:
            self._kept.pop(name, None)
            return value
        with self._lock:
            self._kept.pop(name, None)
            while len(self._kept) >= _MOST:
                self._kept.pop(next(iter(self._kept)))
            self._kept[name] = _Kept(value, look.revision, self._clock() + keep_s, good_until)
        return value

    def _fresh_look(self) -> _Look:
        look = self._look
        if look is not None and look.writes == self._access.database.writes and self._clock() - look.at <= LOOK_S:
            return look
        return self._look_now()

    def _look_now(self) -> _Look:
        # Both are read before the database is: what happens meanwhile is looked at again.
        writes, at = self._access.database.writes, self._clock()
        look = _Look(self._access.directory.revision(), writes, at)
        with self._lock:
            if self._look is None or self._look.at <= look.at:
                if self._look is not None and self._look.revision != look.revision:
                    self._kept.clear()
                self._look = look
        return look

    def _wake(self) -> None:
        self._due.set()
        if self._watcher is None and not self._is_closed:
            with self._lock:
                if self._watcher is None:
                    self._watcher = threading.Thread(target=self._watch, name="access-revision", daemon=True)
                    self._watcher.start()

    def _watch(self) -> None:
        """Looks when it is due; whoever asks does so where this cannot."""
        while self._due.wait(_IDLE_S) and not self._is_closed:
            self._due.clear()
            look = self._look
            if look is not None and self._clock() - look.at <= _EARLY_S:
                continue
            try:
                self._look_now()
            except Exception:  # noqa: BLE001 - a thread's edge: who asks next looks for themselves, and is told
                _log.warning("the database of identities does not answer", exc_info=True)
                time.sleep(_EARLY_S)
        with self._lock:
            self._watcher = None

    def _now_of(self, principal: Principal) -> tuple[Principal | None, datetime | None]:
        kind = principal.kind
        found: Principal | None
        until: datetime | None = None
        if kind is PrincipalKind.PERSON:
            found = None if principal.session is None else self._access.sessions.by_handle(principal.session)
        elif kind is PrincipalKind.KEY:
            key = None if principal.id is None else self._access.keys.still(principal)
            found, until = key or (None, None)
        elif principal.certificate is not None:
            until = principal.certificate.not_after
            try:
                found = self._access.certificates.authenticate(principal.certificate)
            except AuthenticationError:
                found = None
        elif kind is PrincipalKind.LOOPBACK:
            found = None if self._access.directory.knows_anyone() else principal
        else:
            found = principal
        return (found if found is not None and found.rights.grants else None), until


def _still_name(principal: Principal) -> tuple[object, ...]:
    return ("still", principal.kind, principal.id, principal.session, principal.certificate, principal.secret)
