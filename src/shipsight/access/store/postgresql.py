# SPDX-License-Identifier: Apache-2.0
"""How PostgreSQL is reached: what a URL says beside the place, TLS, and how long an answer may take.

A server on another machine is asked over TLS, its certificate checked with its name, unless the URL says otherwise: the
driver by itself would take any certificate, and go on in plain text where TLS is refused. Private to the room.
Sources: PostgreSQL 34.19 (`sslmode`), OWASP ASVS 5.0, 12.3.1 and 12.3.2.
"""

from __future__ import annotations

import ssl
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

from shipsight.access.exchange import is_loopback
from shipsight.errors import CertificateError, UsageError

__all__ = ["postgresql_engine"]

_ANSWER_S = 15.0
_DISABLE = "disable"
_MODES = (_DISABLE, "require", "verify-full")
_KNOWN = ("sslmode", "sslrootcert", "unix_sock")


def postgresql_engine(url: URL) -> Engine:
    """Returns an engine that has not connected yet.

    Connecting may take 15 s, and so may any later answer: a server that has frozen, or is cut off, holds nobody for longer.

    Args:
        url: `postgresql://user:password@host:port/name`, with `sslmode`, `sslrootcert` and `unix_sock` in its query.

    Raises:
        UsageError: the query says something else, or no user is named.
        CertificateError: `sslrootcert` is no file of authorities.
        ModuleNotFoundError: the driver is not installed.
    """
    told = _read_query(url)
    if not url.username:
        raise UsageError("names no user", where="--database", expected="postgresql://user@host/name")
    engine = create_engine(
        url.set(drivername="postgresql+pg8000", query={}),
        pool_pre_ping=True,
        connect_args={
            "ssl_context": _tls(url.host, told),
            "timeout": _ANSWER_S,
            **({"unix_sock": told["unix_sock"]} if "unix_sock" in told else {}),
        },
    )
    event.listen(engine, "do_connect", _connect)
    return engine


def _read_query(url: URL) -> dict[str, str]:
    told = {name: value for name, value in url.query.items() if isinstance(value, str)}
    strange = sorted((url.query.keys() - set(_KNOWN)) | (url.query.keys() - told.keys()))
    if strange:
        raise UsageError(
            "a database takes no such option", where="--database", expected=", ".join(_KNOWN), got=", ".join(strange)
        )
    return told


def _tls(host: str | None, told: dict[str, str]) -> ssl.SSLContext | bool:
    """Returns how the server's certificate is checked; False for no TLS."""
    is_here = "unix_sock" in told or host is None or is_loopback(host)
    mode = told.get("sslmode", _DISABLE if is_here else _MODES[-1])
    if mode not in _MODES:
        raise UsageError("no such sslmode", where="--database", expected=", ".join(_MODES), got=mode)
    authorities = told.get("sslrootcert")
    if mode == _DISABLE:
        if authorities is not None:
            raise UsageError("needs TLS", where="--database", expected="sslmode=verify-full", got="sslrootcert")
        return False
    # `require` is as strict: TLS with anybody at all would keep out those alone who only listen.
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise CertificateError(
            "not a file of authorities in PEM", where="sslrootcert", got=f"{authorities}: {error.strerror or error}"
        ) from error


def _connect(dialect: Any, record: object, arguments: list[Any], named: dict[str, Any]) -> Any:  # noqa: ANN401 - SQLAlchemy's
    """Connects, and says in the driver's own way what goes wrong beneath it: TLS, and a server that says nothing."""
    try:
        return dialect.connect(*arguments, **named)
    except OSError as error:
        raise dialect.dbapi.InterfaceError(f"{type(error).__name__}: {error}") from error
