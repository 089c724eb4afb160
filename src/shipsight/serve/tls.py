# SPDX-License-Identifier: Apache-2.0
"""TLS: which files, what is spoken with them, and taking them anew when they change.

TLS 1.2 and 1.3 with forward secrecy; no renegotiation, no compression, no tickets. What Python cannot switch off, sessions
of TLS 1.2 that the server remembers, ends with its context, so that authorities that were taken away are away. Whoever
signs for clients is the operator's list alone, never the system's. Certificate revocation lists that stand in the same file are heeded, and a list that is out
of date refuses. Leaves to others: sockets and handshakes (`serve/http/tls.py`), what a client may do (`access`).

Invariant of reloading: a value is replaced whole or not at all; files that cannot be used change nothing. Stable.
Sources: RFC 9325; OWASP ASVS 5.0, V12.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shipsight.access import Certificate
from shipsight.errors import CertificateError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    import grpc
    from cryptography import x509

__all__ = [
    "ClientDemand",
    "Reloaded",
    "ServerCertificate",
    "TlsSettings",
    "grpc_credentials",
    "make_context",
    "read_certificate",
    "read_server_certificate",
    "warnings_of",
]

T = TypeVar("T")
_log = logging.getLogger("shipsight.serve")
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all sound
_SOON = timedelta(days=30)


class ClientDemand(StrEnum):
    """What is asked of clients where there are authorities for them; a certificate that is shown must always verify."""

    REQUIRED = "required"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class TlsSettings:
    """The files of a server's TLS, all in PEM.

    Attributes:
        certificate: the server's, then those between it and its authority.
        key: its private key, not encrypted.
        client_ca: authorities that sign for clients, and revocation lists if any; None asks clients for nothing.
        client: whether clients must show a certificate; heeded with `client_ca` alone.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client: ClientDemand = ClientDemand.REQUIRED

    @classmethod
    def of(
        cls, certificate: Path | None, key: Path | None, client_ca: Path | None, client: str | None
    ) -> TlsSettings | None:
        """Makes settings of what an operator gave; None where nothing was.

        Raises:
            UsageError: one option needs another, or a word is unknown.
        """
        for name, given, needs, needed in (
            ("--tls-cert", certificate, "--tls-key", key),
            ("--tls-key", key, "--tls-cert", certificate),
            ("--tls-client-ca", client_ca, "--tls-cert", certificate),
            ("--tls-client", client, "--tls-client-ca", client_ca),
        ):
            if given is not None and needed is None:
                raise UsageError(f"needs {needs}", where=name, got=given)
        if certificate is None or key is None:
            return None
        demand = client or ClientDemand.REQUIRED.value
        if demand not in {one.value for one in ClientDemand}:
            raise UsageError("no such demand", where="--tls-client", expected="required or optional", got=demand)
        return cls(certificate, key, client_ca, ClientDemand(demand))

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> TlsSettings:
        """Reads what `dataclasses.asdict` and JSON made of settings."""
        client_ca = told["client_ca"]
        return cls(
            Path(told["certificate"]),
            Path(told["key"]),
            None if client_ca is None else Path(client_ca),
            ClientDemand(told["client"]),
        )


_FILES = ("certificate", "key", "client_ca")


@dataclass(frozen=True)
class ServerCertificate:
    """What clients will check of a server's certificate.

    Attributes:
        names: host names and addresses that it is for.
        not_before: when it begins, UTC.
        not_after: when it ends, UTC.
    """

    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime

    def name_for(self, host: str) -> str:
        """Returns what to call a host on this machine so that clients find it in the certificate; itself where none is."""
        return next((one for one in (host, "localhost", "127.0.0.1", "::1") if one in self.names), host)


def read_server_certificate(settings: TlsSettings) -> ServerCertificate:
    """Reads a server's certificate and key, and whether they belong together.

    Raises:
        CertificateError: a file cannot be read, is not what it should be, or belongs to another.
        MissingDependencyError: package cryptography is not installed.
    """
    leaf = _read_certificates(settings.certificate, "--tls-cert")[0]
    _check_purpose(leaf, settings.certificate)
    _check_key(leaf, settings.key)
    names = tuple(one.partition(":")[2] for one in _alternative_names(leaf) if one.startswith(("DNS:", "IP:")))
    return ServerCertificate(names, leaf.not_valid_before_utc, leaf.not_valid_after_utc)


def warnings_of(
    settings: TlsSettings, certificate: ServerCertificate, *, host: str, now: datetime
) -> list[tuple[str, str]]:
    """Returns what an operator should know of files that work: code and text.

    Args:
        settings: the files.
        certificate: what `read_server_certificate` read of them.
        host: that is listened on.
        now: UTC.
    """
    found = []
    if settings.key.stat().st_mode & stat.S_IRWXO:
        found.append(("tls-key-open", f"{settings.key}: the key is open to every user of this machine; chmod 600"))
    if now < certificate.not_before:
        found.append(
            ("tls-not-yet-valid", f"{settings.certificate}: not valid before {certificate.not_before:%F %T} UTC")
        )
    elif now > certificate.not_after:
        found.append(("tls-expired", f"{settings.certificate}: ended on {certificate.not_after:%F %T} UTC"))
    elif now > certificate.not_after - _SOON:
        found.append(("tls-ends-soon", f"{settings.certificate}: ends on {certificate.not_after:%F %T} UTC"))
    if certificate.name_for(host) not in certificate.names:
        told = ", ".join(certificate.names) or "no name"
        found.append(("tls-name", f"{settings.certificate}: is for {told}; clients of {host} will refuse it"))
    return found


def make_context(settings: TlsSettings) -> ssl.SSLContext:
    """Returns a context for a server's connections.

    Raises:
        CertificateError, MissingDependencyError: as `read_server_certificate`; and of the authorities.
    """
    read_server_certificate(settings)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_refuse_password)
    except OSError as error:  # what OpenSSL finds beyond the above: a key that is too short, a file just replaced
        got = getattr(error, "reason", None) or error
        raise CertificateError(
            "this pair cannot be used", where=f"--tls-cert {settings.certificate}", got=got
        ) from None
    if settings.client_ca is not None:
        _trust(context, settings.client_ca, settings.client)
    return context


def _trust(context: ssl.SSLContext, path: Path, demand: ClientDemand) -> None:
    _read_certificates(path, "--tls-client-ca")
    try:
        context.load_verify_locations(path)
    except OSError as error:
        got = getattr(error, "reason", None) or error
        raise CertificateError("these authorities cannot be used", where=f"--tls-client-ca {path}", got=got) from None
    context.verify_mode = ssl.CERT_REQUIRED if demand is ClientDemand.REQUIRED else ssl.CERT_OPTIONAL
    if context.cert_store_stats()["crl"]:
        # Of the whole chain: a leaf is worth no more than what signed it.
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def read_certificate(encoded: bytes) -> Certificate:
    """Reads a client's certificate; whether it is to be trusted was decided by the handshake.

    Args:
        encoded: DER or PEM.

    Raises:
        CertificateError: it cannot be read.
        MissingDependencyError: package cryptography is not installed.
    """
    x509 = _x509()
    try:
        is_pem = encoded.lstrip().startswith(b"-----BEGIN")
        found = x509.load_pem_x509_certificate(encoded) if is_pem else x509.load_der_x509_certificate(encoded)
        der = ssl.PEM_cert_to_DER_cert(encoded.decode("ascii").strip()) if is_pem else encoded
        return Certificate(
            subject=found.subject.rfc4514_string(),
            alternative_names=_alternative_names(found),
            issuer=found.issuer.rfc4514_string(),
            serial=f"{found.serial_number:x}",
            sha256=hashlib.sha256(der).hexdigest(),
            not_after=found.not_valid_after_utc,
        )
    except (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise CertificateError("a client's certificate cannot be read", got=error) from None


def grpc_credentials(settings: TlsSettings, *, poll_s: float = 1.0) -> grpc.ServerCredentials:
    """Returns credentials for a gRPC server, which follow the files as HTTP's do, for as long as the process lives.

    gRPC asks clients for no certificate where it is optional, and knows no revocation lists: they are heeded call by call
    (`revocation`).

    Args:
        settings: the files.
        poll_s: seconds between looks at them.

    Raises:
        CertificateError, MissingDependencyError: as `make_context`.
    """
    import grpc

    files = Reloaded(settings, _grpc_configuration)
    files.watch(poll_s)
    first = given = files.value

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        latest = files.value
        if latest is given:
            return None
        given = latest
        return latest

    is_required = settings.client_ca is not None and settings.client is ClientDemand.REQUIRED
    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=is_required)


def _grpc_configuration(settings: TlsSettings) -> grpc.ServerCertificateConfiguration:
    import grpc

    make_context(settings)
    pair = (settings.key.read_bytes(), settings.certificate.read_bytes())
    authorities = None
    if settings.client_ca is not None and settings.client is ClientDemand.REQUIRED:
        from cryptography.hazmat.primitives.serialization import Encoding

        found = _read_certificates(settings.client_ca, "--tls-client-ca")
        authorities = b"".join(one.public_bytes(Encoding.PEM) for one in found)
    return grpc.ssl_server_certificate_configuration([pair], authorities)


class Reloaded(Generic[T]):
    """What is made of files, made anew when they change.

    Args:
        settings: the files.
        make: makes it, with an error where the files cannot be used.
        files: those of the settings that it is made of.
        fallback: what is done while they cannot be used, for the log.

    Attributes:
        error: why the files on disk cannot be used, None where they are.

    Raises:
        CertificateError, MissingDependencyError: the files cannot be used now.
    """

    def __init__(
        self,
        settings: TlsSettings,
        make: Callable[[TlsSettings], T],
        *,
        files: Sequence[str] = _FILES,
        fallback: str = "those before go on",
    ) -> None:
        self._settings, self._make, self._names, self._fallback = settings, make, files, fallback
        self.error: Exception | None = None
        self._tried = self._seen = self._stamp()
        self._value = make(settings)
        self._wake = threading.Event()

    @property
    def value(self) -> T:
        """The latest that could be made."""
        return self._value

    def watch(self, poll_s: float) -> None:
        """Looks at the files from now on, in a thread of its own that ends with the process."""
        threading.Thread(target=self._watch, args=(poll_s,), name="shipsight-certificates", daemon=True).start()

    def refresh(self) -> None:
        """Has the watching thread take the files at once, changed or not; safe in a signal handler."""
        self._wake.set()

    def _watch(self, poll_s: float) -> None:
        while True:
            is_asked = self._wake.wait(poll_s)
            self._wake.clear()
            try:
                self._look(is_asked=is_asked)
            except Exception:  # noqa: BLE001 - the edge of a thread that must go on
                _log.exception("looking at the certificates failed")

    def _look(self, *, is_asked: bool) -> None:
        now = self._stamp()
        # Certificate and key are two files: they are taken once both stood still between two looks.
        if is_asked or (now == self._seen and now != self._tried):
            self._tried = now
            try:
                self._value = self._make(self._settings)
            except (CertificateError, OSError) as error:
                self.error = error
                _log.error("the certificates on disk cannot be used, %s: %s", self._fallback, error)
            else:
                self.error = None
                if "certificate" in self._names:
                    until = read_server_certificate(self._settings).not_after
                    _log.info("new connections use the certificates on disk, valid until %s UTC", f"{until:%F %T}")
        self._seen = now

    def _stamp(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_stamp(getattr(self._settings, name)) for name in self._names)


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    """Returns what changes when a file is written or another is put in its place; None where there is none."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _x509() -> ModuleType:
    try:
        from cryptography import x509
    except ImportError:
        raise MissingDependencyError(
            "package cryptography is not installed", hint="Run: pip install 'shipsight[serve]'"
        ) from None
    return x509


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError("this file cannot be read", where=f"{option} {path}", got=error.strerror) from None


def _read_certificates(path: Path, option: str) -> list[x509.Certificate]:
    data = _read(path, option)
    try:
        found: list[x509.Certificate] = _x509().load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateError(
            "not a certificate", where=f"{option} {path}", expected="PEM, -----BEGIN CERTIFICATE-----", got=error
        ) from None
    return found


def _check_key(leaf: x509.Certificate, path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where = f"--tls-key {path}"
    data = _read(path, "--tls-key")
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise CertificateError(
            "the key is encrypted", where=where, hint="Give one that is not, readable by the server's user alone."
        ) from None
    except ValueError:  # its text may quote the file
        raise CertificateError("not a private key", where=where, expected="PEM, -----BEGIN PRIVATE KEY-----") from None
    if key.public_key() != leaf.public_key():
        raise CertificateError("the key does not match the certificate", where=where)


def _check_purpose(leaf: x509.Certificate, path: Path) -> None:
    x509 = _x509()
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    allowed = {x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if not allowed & set(usage):
        raise CertificateError("the certificate is not for servers", where=f"--tls-cert {path}", expected="serverAuth")


def _alternative_names(certificate: x509.Certificate) -> tuple[str, ...]:
    x509 = _x509()
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    kinds = {x509.DNSName: "DNS", x509.UniformResourceIdentifier: "URI", x509.RFC822Name: "email", x509.IPAddress: "IP"}
    return tuple(f"{kinds[type(one)]}:{one.value}" for one in names if type(one) in kinds)


def _refuse_password() -> str:
    raise CertificateError("the key is encrypted", where="--tls-key")
