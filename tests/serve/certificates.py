# SPDX-License-Identifier: Apache-2.0
"""Real authorities, certificates and revocation lists for tests of TLS."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
LOCAL = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


@dataclass(frozen=True, eq=False)
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, folder: Path, name: str = "server") -> tuple[Path, Path]:
        """Puts both into a folder, each whole at once, as a tool that renews certificates does."""
        folder.mkdir(exist_ok=True)
        paths = folder / f"{name}.pem", folder / f"{name}-key.pem"
        put(paths[0], self.pem)
        put(paths[1], self.key_pem)
        return paths


def put(path: Path, data: bytes) -> None:
    """Replaces a file, readable by its owner alone."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    fresh.chmod(0o600)
    fresh.replace(path)


def name_of(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def make_certificate(
    common_name: str,
    *,
    issuer: Pair | None = None,
    begin: timedelta = -DAY,
    end: timedelta = 90 * DAY,
    usage: x509.ObjectIdentifier | None = None,
    names: Sequence[x509.GeneralName] = (),
    is_authority: bool = False,
) -> Pair:
    """Makes a certificate, signed by itself where no issuer is named; times count from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    signer = key if issuer is None else issuer.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(common_name))
        .issuer_name(name_of(common_name) if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return Pair(builder.sign(signer, hashes.SHA256()), key)


def make_authority(common_name: str = "authority") -> Pair:
    return make_certificate(common_name, is_authority=True)


def make_server(issuer: Pair | None = None, common_name: str = "server") -> Pair:
    return make_certificate(common_name, issuer=issuer, usage=ExtendedKeyUsageOID.SERVER_AUTH, names=LOCAL)


def make_client(issuer: Pair | None, common_name: str = "camera-7", **told: timedelta) -> Pair:
    return make_certificate(common_name, issuer=issuer, usage=ExtendedKeyUsageOID.CLIENT_AUTH, **told)


def make_revocation_list(issuer: Pair, revoked: Sequence[Pair], *, end: timedelta = DAY) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - 2 * DAY)
        .next_update(now + end)
    )
    for one in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(one.certificate.serial_number)
            .revocation_date(now - DAY)
            .build()
        )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)
