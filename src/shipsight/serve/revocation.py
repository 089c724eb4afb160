# SPDX-License-Identifier: Apache-2.0
"""Which clients' certificates were revoked, for gRPC, whose own handshakes know no lists. Private to `serve`.

The lists stand in the file of the authorities, `--tls-client-ca`. As OpenSSL does it for HTTP: where that file holds any, every
certificate between a client and its root has to be on none of its issuer's, and every issuer needs one that is not out of date.
Unlike there, this is looked at with each call, and while the file cannot be used nobody comes in by a certificate.
Deltas, and lists of a part of an issuer's certificates, count for nothing. Leaves to others: whether an authority signed
a certificate, and for what use (the handshake). Source: RFC 5280, 5 and 6.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shipsight.errors import CertificateError
from shipsight.serve.tls import Reloaded, TlsSettings

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["Revocations"]

_LIST = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_MOST_SENT = 8  # certificates that a client sends along and that are looked at
_MOST_KEPT = 1024
_AGAIN = timedelta(seconds=10)  # between two looks at one that was refused
_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _File:
    """What the file of the authorities holds.

    Attributes:
        authorities: that it trusts.
        lists: of what they and those below them revoked.
        kept: certificate with its chain -> whether it may pass, and until when that is sure.
    """

    authorities: tuple[x509.Certificate, ...]
    lists: tuple[x509.CertificateRevocationList, ...]
    kept: dict[tuple[bytes, ...], tuple[bool, datetime]] = field(default_factory=dict)


class Revocations:
    """Refuses certificates that were revoked, by the file as it is now. Used on one event loop.

    Args:
        settings: with the file of the authorities.
        poll_s: seconds between looks at it.

    Raises:
        CertificateError, MissingDependencyError: it cannot be used.
    """

    def __init__(self, settings: TlsSettings, *, poll_s: float = 1.0) -> None:
        self._files = Reloaded(settings, _read, files=("client_ca",), fallback="gRPC takes no certificates of clients")
        self._files.watch(poll_s)

    def check(self, shown: bytes, chain: Sequence[bytes], now: datetime) -> None:
        """Lets pass a certificate that a handshake has verified.

        Args:
            shown: the client's, in PEM.
            chain: what the client sent along, likewise.
            now: time.

        Raises:
            CertificateError: it was revoked, or one above it; a list is missing or out of date; or who was revoked is not known now.
        """
        if self._files.error is not None:
            raise CertificateError("who was revoked is not known now", where=_load(shown).subject.rfc4514_string())
        file, name = self._files.value, (shown, *chain[:_MOST_SENT])
        if not file.lists:
            return
        may_pass, until = file.kept.get(name, (False, now))
        if until <= now:
            found = _Look(file, name[1:], now).until(_load(shown))
            if len(file.kept) >= _MOST_KEPT:
                file.kept.clear()
            may_pass = found is not None
            file.kept[name] = may_pass, found or now + _AGAIN
        if not may_pass:
            told = _load(shown).subject.rfc4514_string()
            raise CertificateError("the client's certificate was revoked, or a list is missing or old", where=told)


class _Look:
    """A look at one certificate and those above it."""

    def __init__(self, file: _File, chain: Sequence[bytes], now: datetime) -> None:
        self._file, self._now = file, now
        self._above = [*file.authorities, *(one for one in map(_load, chain) if _is_authority(one))]
        self._found: dict[x509.Certificate, datetime | None] = {}
        self._lists: dict[x509.Certificate, list[x509.CertificateRevocationList]] = {}

    def until(self, certificate: x509.Certificate) -> datetime | None:
        """Returns until when a certificate and those above it are on no list, by the best way to a root; None where there is none."""
        if certificate in self._found:
            return self._found[certificate]
        self._found[certificate] = None  # certificates may sign each other
        found = []
        for issuer in self._above:
            until = self._listed_until(certificate, issuer) if _is_issued_by(certificate, issuer) else None
            is_root = issuer.subject == issuer.issuer and issuer in self._file.authorities
            if until is not None and not is_root:
                above = self.until(issuer)
                until = None if above is None else min(until, above)
            if until is not None:
                found.append(until)
        self._found[certificate] = max(found, default=None)
        return self._found[certificate]

    def _listed_until(self, certificate: x509.Certificate, issuer: x509.Certificate) -> datetime | None:
        """Returns until when an issuer's lists say that a certificate is on none; None where it is on one, or there is none."""
        if issuer not in self._lists:
            self._lists[issuer] = [one for one in self._file.lists if self._is_list_of(one, issuer)]
        lists, number = self._lists[issuer], certificate.serial_number
        if any(one.get_revoked_certificate_by_serial_number(number) is not None for one in lists):
            return None
        return min((one.next_update_utc or _EVER for one in lists), default=None)

    def _is_list_of(self, one: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
        """Whether a list is an issuer's, of all of its certificates, and not out of date."""
        return (
            one.issuer == issuer.subject
            and one.last_update_utc <= self._now < (one.next_update_utc or _EVER)
            and not any(extension.critical for extension in one.extensions)
            and one.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # it verified a certificate
        )


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):  # another name, a key that signs nothing, another key
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _load(pem: bytes) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError("a client's certificate cannot be read", got=error) from None


def _read(settings: TlsSettings) -> _File:
    from cryptography import x509

    path = settings.client_ca
    assert path is not None
    where = f"--tls-client-ca {path}"
    try:
        data = path.read_bytes()
        authorities = tuple(x509.load_pem_x509_certificates(data))
        lists = tuple(map(x509.load_pem_x509_crl, _LIST.findall(data)))
        for one in lists:
            # Read now what is else read, and found broken, when somebody is there.
            _ = one.extensions, one.next_update_utc, len(one)
    except OSError as error:
        raise CertificateError("this file cannot be read", where=where, got=error.strerror) from None
    except (ValueError, x509.DuplicateExtension) as error:
        raise CertificateError("not a file of authorities and their lists", where=where, got=error) from None
    if len(lists) != data.count(b"-----BEGIN X509 CRL-----"):
        raise CertificateError("a revocation list has no end", where=where)
    return _File(authorities, lists)
