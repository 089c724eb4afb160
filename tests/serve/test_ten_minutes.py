# SPDX-License-Identifier: Apache-2.0
"""`docs/security/ten-minutes.md`, as it stands: its commands run in order, and its first sign-in is done as the page says."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pyotp
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security" / "ten-minutes.md"
PASSWORD = "seven ships passed the light"


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


class Shell:
    """Runs the page's blocks, each in a shell, in one folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(folder),
            "SHIPSIGHT_DATABASE": str(folder / "access.db"),
        }
        (folder / "bin").mkdir()
        command = folder / "bin" / "shipsight"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m shipsight "$@"\n', encoding="ascii")
        command.chmod(0o755)

    def run(self, block: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._placed(block)],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, block: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", "exec " + self._placed(block)], cwd=self._folder, env=self._environment, text=True
        )

    def _placed(self, block: str) -> str:
        return block.replace("8443", str(self._port))


@pytest.fixture
def shell(tmp_path: Path, digits_bundle: Path, jpeg: bytes) -> tuple[Shell, int]:
    if shutil.which("openssl") is None or shutil.which("curl") is None:
        pytest.skip("openssl or curl is not installed")
    shutil.copytree(digits_bundle, tmp_path / "digits.bundle")
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Shell(tmp_path, port), port


def wait_until_ready(client: httpx.Client, server: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert server.poll() is None, "the server ended"
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server was not ready within a minute")


def sign_in(client: httpx.Client, code: str) -> None:
    """Does what the page of step 4 does."""
    home = {"Origin": str(client.base_url).rstrip("/")}
    first = client.post(
        "/v1/access/sign-in/invitation", json={"code": code, "password": PASSWORD}, headers=home
    ).raise_for_status()
    assert first.json()["state"] == "enrol", "an administrator needs a second factor"
    assert client.get("/v1/access/users").status_code == 403, "nothing is allowed before it is there"

    def token() -> dict[str, str]:
        return {**home, "X-CSRF-Token": client.get("/v1/access/session").raise_for_status().json()["csrf"]}

    setup = client.post("/v1/access/factors/totp", json={}, headers=token()).raise_for_status().json()
    shown = pyotp.TOTP(setup["secret"]).now()
    client.post("/v1/access/factors/totp/confirm", json={"code": shown}, headers=token()).raise_for_status()
    assert client.get("/v1/access/session").json()["must_enrol"] is False
    users = client.get("/v1/access/users").raise_for_status().json()
    assert "ada" in json.dumps(users)


@pytest.mark.slow
def test_a_server_is_secured_by_the_commands_of_the_page(shell: tuple[Shell, int], tmp_path: Path) -> None:
    terminal, port = shell
    certificate, person, serve, key, look, others = blocks()[:6]
    backup = blocks()[6]
    refused = terminal.start(serve)
    assert refused.wait(60) == 2, "without a certificate and an administrator it must not start"
    terminal.run(certificate)
    refused = terminal.start(serve)
    assert refused.wait(60) in (1, 2), "without an administrator it must not start"
    code = re.search(r"[A-Za-z0-9_-]{20,}", terminal.run(person + "\n").replace("\n", " "))
    assert code is not None
    server = terminal.start(serve)
    try:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trusted, timeout=30) as client:
            wait_until_ready(client, server)
            sign_in(client, code.group())
        terminal.run(key)
        assert terminal.run(look).split() == ["200", "401", "403"]
        terminal.run(others)
        terminal.run(backup)
        assert (tmp_path / "access.backup").stat().st_mode & 0o077 == 0
    finally:
        server.terminate()
        server.wait(30)
