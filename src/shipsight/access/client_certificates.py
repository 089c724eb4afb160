# SPDX-License-Identifier: Apache-2.0
"""Who a client's certificate stands for: programs and devices that TLS knows already.

A certificate is found by its digest, else its subject, else one of its alternative names, in this order; what was
removed stays refused for as long as it is not added again, also where a wider entry would find it. Leaves to others:
whether an authority signed it, for this use, and whether that authority revoked it (TLS, before anything is asked
here); caching (`authenticate`). Invariant: a certificate that is not known is somebody without rights, never an error
that tells more. Stable. Source: OWASP ASVS 5.0, 12.1.3.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from shipsight.access import grants as granting
from shipsight.access.acting import changing_access
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.machines import check_name, keep_use, machine_rights_in, told_grants_in
from shipsight.access.permissions import NO_RIGHTS, Action, Grant
from shipsight.access.principal import Certificate, Principal, PrincipalKind, certificate_principal
from shipsight.access.quotas import parse_limits
from shipsight.access.store import Database, grow_revision, tables
from shipsight.access.tokens import is_id, new_id
from shipsight.errors import AuthenticationError, NotFoundError, UsageError

__all__ = ["FIELDS", "ClientCertificates", "KnownCertificate"]

FIELDS = ("sha256", "subject", "name")
"""What a certificate may be known by, the surest first."""


_KINDS = ("certificate", "device")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ALTERNATIVE = re.compile(r"(DNS|URI|email|IP):\S{1,512}")


@dataclass(frozen=True)
class KnownCertificate:
    """An entry.

    Attributes:
        id: that the store knows it by.
        name: that people gave it.
        kind: `certificate` or `device`.
        field: what it is known by: `sha256`, `subject` or `name`.
        value: of that.
        created_by: who added it, as `Principal.told` says it.
        created_at: when.
        used_at: when it was last shown, to the minute; None for never.
        rate: how often it may ask, None for no limit of its own.
        quota: how much it may ask for, None for no limit of its own.
        grants: what it was granted.
    """

    id: str
    name: str
    kind: str
    field: str
    value: str
    created_by: str
    created_at: datetime
    used_at: datetime | None
    rate: str | None
    quota: str | None
    grants: tuple[Grant, ...]


class ClientCertificates:
    """All certificates that stand for somebody.

    Args:
        db: where they are kept.
        events: takes what happens.
        now: tells the time.
    """

    def __init__(self, db: Database, events: EventSink, now: Callable[[], datetime]) -> None:
        self._db, self._events, self._now = db, events, now

    def add(
        self,
        actor: Principal,
        name: str,
        *,
        field: str,
        value: str,
        kind: str = "certificate",
        grants: Sequence[Grant],
        rate: str | None = None,
        quota: str | None = None,
    ) -> KnownCertificate:
        """Adds an entry, also for what was removed before.

        Args:
            actor: who may change access.
            name: letters, digits, `.`, `_` and `-`, at most 64; one of a kind.
            field: what it is known by, of `FIELDS`.
            value: digest in hexadecimal (colons are let pass), subject as RFC 4514 writes it, or alternative name with
                its kind (`DNS:camera-1`).
            kind: `certificate`, or `device` for one of a fleet.
            grants: what it may do; none is none.
            rate: how often it may ask, None for no limit of its own.
            quota: how much it may ask for, None for no limit of its own.

        Raises:
            ForbiddenError: the actor may not.
            AuthenticationError: their session has ended.
            UsageError: something does not fit, or name or value stand for another entry.
        """
        actor.require(Action.ACCESS_CHANGE)
        check_name(name)
        for option, limits in (("rate", rate), ("quota", quota)):
            if limits is not None:
                parse_limits(limits, where=option)
        value = _normal(field, value)
        if kind not in _KINDS:
            raise UsageError("no such kind of certificate", where="kind", expected=" or ".join(_KINDS), got=kind)
        table, entry = tables.certificates, new_id()
        with changing_access(self._db, actor) as connection:
            connection.execute(
                delete(table).where(table.c.field == field, table.c.value == value, table.c.revoked_at.is_not(None))
            )
            same = connection.execute(
                select(table.c.name).where(
                    or_(table.c.name == name, (table.c.field == field) & (table.c.value == value))
                )
            ).scalar()
            if same is not None:
                raise UsageError("stands for another already", where=name, got=same, hint="Remove that one first.")
            connection.execute(
                insert(table).values(
                    id=entry,
                    name=name,
                    kind=kind,
                    field=field,
                    value=value,
                    rate=rate,
                    quota=quota,
                    created_by=actor.told(),
                    created_at=self._now(),
                )
            )
            granting.put_grants_in(connection, "certificate", entry, grants)
            details = {"name": name, "field": field, "value": value, "grants": [one.told() for one in grants]}
            self._changed(connection, EventKind.CERTIFICATE_ADDED, actor, entry, details)
            return _read(connection, self._row(connection, entry))

    def remove(self, actor: Principal, entry: str) -> None:
        """Ends what an entry stands for, at once.

        Raises:
            ForbiddenError: the actor may not.
            AuthenticationError: their session has ended.
            NotFoundError: there is no such entry.
        """
        table = tables.certificates
        with changing_access(self._db, actor) as connection:
            row = self._row(connection, entry)
            # The row stays and refuses; its name is free for another.
            connection.execute(
                update(table).where(table.c.id == entry).values(revoked_at=self._now(), name=f"{row.name}~{entry}")
            )
            granting.put_grants_in(connection, "certificate", entry, ())
            self._changed(connection, EventKind.CERTIFICATE_REMOVED, actor, entry, {"name": row.name})

    def list(self) -> builtins.list[KnownCertificate]:
        """Returns all entries by name, without those that were removed."""
        table = tables.certificates
        with self._db.read() as connection:
            rows = connection.execute(select(table).where(table.c.revoked_at.is_(None)).order_by(table.c.name)).all()
            return [_read(connection, row) for row in rows]

    def get(self, entry: str) -> KnownCertificate:
        """Returns an entry.

        Raises:
            NotFoundError: there is none, or it was removed.
        """
        with self._db.read() as connection:
            return _read(connection, self._row(connection, entry))

    def authenticate(self, certificate: Certificate) -> Principal:
        """Returns who shows a certificate that TLS verified, with what it may do now; without rights where it is not known or was removed.

        Raises:
            AuthenticationError: it has ended since the connection was made.
        """
        now = self._now()
        if certificate.not_after <= now:
            self._refused(certificate_principal(certificate), "expired")
            raise AuthenticationError("this certificate is not accepted")
        with self._db.read() as connection:
            row = _find(connection, certificate)
            rights = NO_RIGHTS if row is None else machine_rights_in(connection, "certificate", row.id)
        if row is None or row.revoked_at is not None:
            principal = certificate_principal(certificate)
            self._refused(principal, "unknown" if row is None else "revoked")
            return principal
        keep_use(self._db, tables.certificates, row, now)
        return replace(
            certificate_principal(certificate),
            kind=PrincipalKind(row.kind),
            name=row.name,
            id=row.id,
            rights=rights,
            rate=row.rate,
            quota=row.quota,
        )

    def _row(self, connection: Connection, entry: str) -> Any:  # noqa: ANN401 - a row
        table = tables.certificates
        wanted = select(table).where(table.c.id == entry, table.c.revoked_at.is_(None))
        row = connection.execute(wanted).one_or_none() if is_id(entry) else None
        if row is None:
            raise NotFoundError("no such certificate", got=entry[:80])
        return row

    def _changed(
        self, connection: Connection, kind: EventKind, actor: Principal, entry: str, details: dict[str, Any]
    ) -> None:
        grow_revision(connection)
        subject = f"certificate:{entry}"
        self._events.record(Event(self._now(), kind, Outcome.DONE, actor.told(), subject=subject, details=details))

    def _refused(self, principal: Principal, why: str) -> None:
        kind = EventKind.CERTIFICATE_REFUSED
        self._events.record(Event(self._now(), kind, Outcome.REFUSED, principal.told(), why=why))


def _normal(field: str, value: str) -> str:
    """Returns a value as certificates tell it.

    Raises:
        UsageError: it is none.
    """
    if field == "sha256":
        value = value.replace(":", "").lower()
        if not _SHA256.fullmatch(value):
            raise UsageError("not a digest", where="sha256", expected="64 hexadecimal digits", got=len(value))
    elif field == "subject":
        if "=" not in value or len(value) > 1024 or not value.isprintable():
            raise UsageError("not a subject", where="subject", expected="as RFC 4514 writes it: CN=camera-1,O=...")
    elif field == "name":
        if not _ALTERNATIVE.fullmatch(value) or not value.isprintable():
            raise UsageError("not an alternative name", where="name", expected="DNS:, URI:, email: or IP: and a name")
    else:
        raise UsageError("nothing that a certificate is known by", where="field", expected=", ".join(FIELDS), got=field)
    return value


def _find(connection: Connection, certificate: Certificate) -> Any:  # noqa: ANN401 - a row or None
    """Returns the entry that speaks of a certificate: the surest, and of equals one that was removed."""
    table = tables.certificates
    # What no entry can hold is not looked for: databases refuse some characters.
    subject = certificate.subject if certificate.subject.isprintable() else ""
    names = [one for one in certificate.alternative_names if one.isprintable()]
    rows = connection.execute(
        select(table).where(
            or_(
                (table.c.field == "sha256") & (table.c.value == certificate.sha256),
                (table.c.field == "subject") & (table.c.value == subject),
                (table.c.field == "name") & table.c.value.in_(names),
            )
        )
    ).all()
    order = {name: place for place, name in enumerate((certificate.sha256, subject))}
    order |= {name: 2 + place for place, name in enumerate(names)}
    return min(rows, key=lambda row: (FIELDS.index(row.field), row.revoked_at is None, order[row.value]), default=None)


def _read(connection: Connection, row: Any) -> KnownCertificate:  # noqa: ANN401 - a row
    return KnownCertificate(
        id=row.id,
        name=row.name,
        kind=row.kind,
        field=row.field,
        value=row.value,
        created_by=row.created_by,
        created_at=row.created_at,
        used_at=row.used_at,
        rate=row.rate,
        quota=row.quota,
        grants=told_grants_in(connection, "certificate", row.id),
    )
