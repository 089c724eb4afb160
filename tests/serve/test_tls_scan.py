# SPDX-License-Identifier: Apache-2.0
"""TLS of HTTP and of gRPC, looked at from outside by `sslscan`: no finding of weight. ASVS 12.1.1, 12.1.2."""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.serve.certificates import LOCAL, make_certificate
from tests.serve.conftest import Served

WEAK = ("RC4", "DES", "NULL", "EXP", "MD5", "ADH", "AECDH", "PSK", "SRP", "CBC", "SEED", "IDEA", "CAMELLIA", "ARIA")


@pytest.fixture(scope="module")
def encrypted(start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    certificate, key = make_certificate("localhost", names=LOCAL).write(tmp_path_factory.mktemp("tls"))
    return start(digits_bundle, "--tls-cert", certificate, "--tls-key", key, "--grpc-port", "0")


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_scanner_finds_nothing_of_weight(encrypted: Served, wire: str) -> None:
    if shutil.which("sslscan") is None:
        pytest.skip("sslscan is not installed")
    place = encrypted.url.rpartition("//")[2] if wire == "http" else encrypted.grpc
    command = ["sslscan", "--xml=-", "--no-colour", "--show-certificate", f"localhost:{place.rpartition(':')[2]}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = ET.fromstring(done.stdout).find("ssltest")
    assert found is not None, done.stdout
    enabled = {f"{one.get('type')} {one.get('version')}" for one in found.iter("protocol") if one.get("enabled") == "1"}
    assert enabled == {"tls 1.2", "tls 1.3"}
    ciphers = {
        (str(one.get("sslversion")), str(one.get("cipher")), int(one.get("bits") or 0)) for one in found.iter("cipher")
    }
    assert {version for version, _, _ in ciphers} == {"TLSv1.2", "TLSv1.3"}
    for version, name, bits in ciphers:
        assert bits >= 128, name
        assert not any(word in name.upper().split("-") for word in WEAK), name
        assert version == "TLSv1.3" or name.startswith("ECDHE-"), f"{name} keeps no secrecy when the key is lost"
    assert all(one.get("vulnerable") == "0" for one in found.iter("heartbleed"))
    compression, renegotiation = found.find("compression"), found.find("renegotiation")
    assert compression is None or compression.get("supported") == "0"
    assert renegotiation is None or renegotiation.get("supported") == "0" or renegotiation.get("secure") == "1"
    groups = {str(one.get("name")) for one in found.iter("group")}
    assert groups, "key exchange was looked at"
    assert all(int(one.get("bits") or 0) >= 112 for one in found.iter("group")), groups
    signature = found.find("certificates/certificate[@type='short']/signature-algorithm")
    assert signature is not None
    assert (signature.text or "").lower().startswith("ecdsa-with-sha256")
