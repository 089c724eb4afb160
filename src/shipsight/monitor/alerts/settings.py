# SPDX-License-Identifier: Apache-2.0
"""Which signals become alerts, when, and who gets them: read from a small file that holds no secret.

Secrets stand in files of their own, which these settings name; `secrets` reads them. Addresses are the operator's choice, private ones too: nobody
who asks a server has a say in them. The file is described in `docs/formats/alert-settings.md`. Stable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from shipsight.access.exchange import is_loopback
from shipsight.errors import CorruptError, LimitError, ShipsightError, UsageError
from shipsight.model.strict_yaml import load_yaml

__all__ = [
    "SEVERITIES",
    "AlertSettings",
    "BodyForm",
    "Email",
    "Receiver",
    "Tls",
    "Webhook",
    "check_url",
    "read_settings",
]

SEVERITIES = ("note", "warning", "error")
"""From the least to the worst."""

_MOST_FILE_BYTES = 64 * 1024
_MOST_RECEIVERS = 16
_MOST_TEXT = 2000
_DAY_S = 86400
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_PATTERN = re.compile(r"[A-Za-z0-9_.*?-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
# What every mail server takes: no quoted names, no comments, nothing that ends a header or begins a second address.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
T = TypeVar("T", bound=StrEnum)


class BodyForm(StrEnum):
    """What a webhook is sent."""

    JSON = "json"
    TEXT = "text"


class Tls(StrEnum):
    """How a mail server is talked to over TLS."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """A receiver that is sent a POST.

    Attributes:
        name: that operators know it by.
        url: `https`, or `http` on this machine; None where it stands in a file.
        url_file: file that holds the URL, for one that is itself a secret.
        key_file: of the key that signs; `json` needs one.
        ca_file: authorities to trust, in PEM; None for the system's.
        body: `json` in full, or `text` as chat services take it.
        timeout_s: longest that one attempt takes, 1 to 120. 10 as what a busy receiver needs.
    """

    name: str
    url: str | None = None
    url_file: Path | None = None
    key_file: Path | None = None
    ca_file: Path | None = None
    body: BodyForm = BodyForm.JSON
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        _check_name(self.name)
        if (self.url is None) == (self.url_file is None):
            raise _wrong(f"{self.name}: url", "url or url_file, one of them", "both" if self.url else "none")
        if self.url is not None:
            check_url(self.url, where=f"{self.name}: url")
        if self.body is BodyForm.JSON and self.key_file is None:
            raise _wrong(f"{self.name}: key_file", "the file of the key that signs", "none")
        _check_number(f"{self.name}: timeout_s", self.timeout_s, 1, 120)


@dataclass(frozen=True, kw_only=True)
class Email:
    """A receiver that is sent an e-mail.

    Attributes:
        name: that operators know it by.
        host: of the mail server.
        port: 1 to 65535; None for 587 with STARTTLS, 465 with implicit TLS, 25 in the plain.
        sender: address that it is from; `from` in the file.
        to: addresses, 1 to 20.
        tls: how TLS is begun.
        plain: whether there is no TLS; for a mail server on this machine alone.
        user: to log in as, None for no login.
        password_file: of the user's password.
        ca_file: authorities to trust, in PEM; None for the system's.
        timeout_s: longest that one attempt takes, 1 to 120. 30 since mail servers look callers up before they greet.
    """

    name: str
    host: str
    sender: str
    to: tuple[str, ...]
    port: int | None = None
    tls: Tls = Tls.STARTTLS
    plain: bool = False
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not isinstance(self.host, str) or not _HOST.fullmatch(self.host):
            raise _wrong(f"{self.name}: host", "a host's name or address", self.host)
        if self.port is not None:
            _check_number(f"{self.name}: port", self.port, 1, 65535, is_whole=True)
        for key, told in (("from", (self.sender,)), ("to", self.to)):
            if not isinstance(told, tuple) or not 1 <= len(told) <= 20:
                raise _wrong(f"{self.name}: {key}", "1 to 20 addresses", told)
            strange = [one for one in told if not isinstance(one, str) or not _ADDRESS.fullmatch(one)]
            if strange:
                raise _wrong(f"{self.name}: {key}", "plain addresses such as ops@example.com", strange[0])
        _check_flag(f"{self.name}: plain", self.plain)
        if self.plain and not is_loopback(self.host):
            raise _wrong(f"{self.name}: plain", "TLS, since the mail server is another machine", "plain: true")
        if (self.user is None) != (self.password_file is None):
            raise _wrong(f"{self.name}: user", "user and password_file together", "one of them")
        if self.user is not None:
            _check_text(f"{self.name}: user", self.user)
            if not self.user.isascii():
                raise _wrong(f"{self.name}: user", "ASCII characters", self.user)
        _check_number(f"{self.name}: timeout_s", self.timeout_s, 1, 120)

    @property
    def port_number(self) -> int:
        """That is connected to."""
        usual = 25 if self.plain else 465 if self.tls is Tls.IMPLICIT else 587
        return usual if self.port is None else self.port


Receiver = Webhook | Email


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """Which signals become alerts, when, and who gets them.

    Attributes:
        receivers: 1 to 16, each gets every message.
        signals: patterns of names, `*` and `?` as in a shell; a signal that none fits is left alone.
        least_severity: signals below it are taken for quiet.
        for_s: how long a signal fires, without a break, before it is an alert; 0 to a day. 300 as what a passing cloud takes.
        resolve_s: how long it is quiet, without a break, before the alert is resolved, 1 to a day; doubled each time that it comes back within
            `repeat_s`, up to that.
        repeat_s: after how long a message about what still fires is sent again, a minute to 30 days.
        group: whether alerts of one evaluation and one subject are one message.

    Raises:
        UsageError: a value does not fit; its name is told.
    """

    receivers: tuple[Receiver, ...]
    signals: tuple[str, ...] = ("*",)
    least_severity: str = "warning"
    for_s: float = 300.0
    resolve_s: float = 300.0
    repeat_s: float = 14400.0
    group: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.receivers) <= _MOST_RECEIVERS:
            raise _wrong("receivers", f"1 to {_MOST_RECEIVERS}", len(self.receivers))
        names = [one.name for one in self.receivers]
        if len(set(names)) != len(names):
            raise _wrong("receivers", "names that differ", ", ".join(names))
        if not isinstance(self.signals, tuple) or not self.signals:
            raise _wrong("signals", "patterns of names", self.signals)
        strange = [one for one in self.signals if not isinstance(one, str) or not _PATTERN.fullmatch(one)]
        if strange:
            raise _wrong("signals", "patterns of names such as drift-*", strange[0])
        if self.least_severity not in SEVERITIES:
            raise _wrong("least_severity", ", ".join(SEVERITIES), self.least_severity)
        _check_number("for_s", self.for_s, 0, _DAY_S)
        _check_number("resolve_s", self.resolve_s, 1, _DAY_S)
        _check_number("repeat_s", self.repeat_s, 60, 30 * _DAY_S)
        if self.resolve_s > self.repeat_s:
            raise _wrong("resolve_s", f"at most repeat_s, {self.repeat_s:g}", self.resolve_s)
        _check_flag("group", self.group)

    def watches(self, name: str) -> bool:
        """Whether a signal of this name can become an alert."""
        return any(fnmatchcase(name, pattern) for pattern in self.signals)

    @classmethod
    def from_dict(cls, told: object, *, where: str = "settings") -> Self:
        """Reads settings.

        Raises:
            UsageError: a key is unknown or lacks, or a value does not fit.
        """
        given = _keys(told, where, {"schema": True, **_known(cls)})
        if given.pop("schema") != 1 or not isinstance(given["receivers"], list):
            raise UsageError("not alert settings of this version", where=where, expected="schema: 1 and receivers")
        try:
            given["receivers"] = tuple(_read_receiver(one, f"{where}: receivers") for one in given["receivers"])
            return cls(**{key: _tupled(one) for key, one in given.items()})
        except ShipsightError as error:
            at = error.where if error.where is None or error.where.startswith(where) else f"{where}: {error.where}"
            raise UsageError(error.what, where=at, expected=error.expected, got=error.got) from error


def read_settings(path: Path) -> AlertSettings:
    """Reads settings from their file; the files that these name are not opened yet.

    Raises:
        UsageError: the file cannot be read, is no YAML, or says something that does not fit.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_FILE_BYTES + 1)
        told = load_yaml(data, where=str(path), limit_bytes=_MOST_FILE_BYTES)
    except OSError as error:
        raise UsageError("not a file that can be read", where=path, got=error.strerror) from error
    except (CorruptError, LimitError) as error:
        raise UsageError(error.what, where=error.where, expected=error.expected, got=error.got) from error
    return AlertSettings.from_dict(told, where=str(path))


def check_url(url: object, *, where: str) -> None:
    """Checks where a webhook is; what does not fit is not quoted, since it may be a secret.

    Raises:
        UsageError: not an address, or one that is not asked over TLS.
    """
    expected = "https://host[:port]/path, or http:// on this machine"
    try:
        parts = urlsplit(url) if isinstance(url, str) and url.isascii() and url.isprintable() else urlsplit("")
        is_address = bool(parts.hostname) and parts.username is None and not parts.fragment and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or len(str(url)) > _MOST_TEXT or " " in str(url):
        raise _wrong(where, expected, "something else")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise _wrong(where, expected, f"{parts.scheme}:// on another machine")


_KINDS: Mapping[str, type[Webhook | Email]] = {"webhook": Webhook, "email": Email}
_PATHS = ("url_file", "key_file", "ca_file", "password_file")


def _read_receiver(told: object, where: str) -> Receiver:
    kind = told.get("kind") if isinstance(told, Mapping) else None
    chosen = _KINDS.get(kind) if isinstance(kind, str) else None
    if chosen is None:
        raise UsageError("no such kind of receiver", where=f"{where}: kind", expected=", ".join(_KINDS), got=kind)
    given = _keys(told, where, {"kind": True, **_known(chosen)})
    del given["kind"]
    if "from" in given:
        given["sender"] = given.pop("from")
    for key in _PATHS:
        if given.get(key) is not None:
            _check_text(f"{where}: {key}", given[key])
            given[key] = Path(given[key])
    if "body" in given:
        given["body"] = _choice(f"{where}: body", BodyForm, given["body"])
    if "tls" in given:
        given["tls"] = _choice(f"{where}: tls", Tls, given["tls"])
    return chosen(**{key: _tupled(one) for key, one in given.items()})


def _known(kind: type[AlertSettings | Webhook | Email]) -> dict[str, bool]:
    """Returns the keys of a part, and whether each has to be there."""
    return {"from" if one.name == "sender" else one.name: one.default is MISSING for one in fields(kind)}


def _keys(told: object, where: str, known: Mapping[str, bool]) -> dict[str, Any]:
    if not isinstance(told, Mapping):
        raise UsageError("not keys and values", where=where, expected=", ".join(known))
    unknown = sorted(str(one) for one in told if one not in known)
    if unknown:
        raise UsageError("unknown keys", where=where, expected=", ".join(known), got=", ".join(unknown))
    missing = [one for one, has_to_be in known.items() if has_to_be and one not in told]
    if missing:
        raise UsageError("keys are missing", where=where, expected=", ".join(missing))
    return dict(told)


def _tupled(value: object) -> Any:  # noqa: ANN401 - of any clause; each is checked where it is made
    return tuple(value) if isinstance(value, list) else value


def _choice(where: str, kind: type[T], value: Any) -> T:  # noqa: ANN401 - as it was written
    try:
        return kind(value)
    except ValueError as error:
        raise _wrong(where, ", ".join(kind), value) from error


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong("receivers: name", "small letters, digits and -, at most 32", name)


def _check_number(where: str, value: object, least: float, most: float, *, is_whole: bool = False) -> None:
    # A boolean is a number in Python, and none here.
    is_number = type(value) is int or (type(value) is float and not is_whole)
    if not is_number or not least <= value <= most:  # type: ignore[operator]  # a number by the line above
        raise _wrong(where, f"{'a whole number' if is_whole else 'a number'} from {least:g} to {most:g}", value)


def _check_flag(where: str, value: object) -> None:
    if type(value) is not bool:
        raise _wrong(where, "true or false", value)


def _check_text(where: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _MOST_TEXT:
        raise _wrong(where, f"a text of 1 to {_MOST_TEXT} characters in one line", value)


def _wrong(where: str, expected: str, got: object) -> UsageError:
    return UsageError("the alert settings do not fit", where=where, expected=expected, got=got)
