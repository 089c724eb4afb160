# SPDX-License-Identifier: Apache-2.0
"""A real provider of OpenID Connect (`oidc-provider` on Node.js) in a process of its own, and the browser of somebody who uses it.

The package is installed once, as its lock file says, into a cache outside of the repository.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx
import pytest

HERE = Path(__file__).parent / "provider"
ORIGIN = "https://vision.example.com"
REDIRECT_URI = f"{ORIGIN}/v1/access/sign-in/openid/return"
SECRET = "a secret: of + %20 signs"  # as the provider's script has it
_NEWEST_THAT_IS_TOO_OLD = 19


class RunningProvider:
    """The provider, started."""

    def __init__(self) -> None:
        node = _node()
        command = [node, str(HERE / "provider.mjs"), str(_installed(node)), REDIRECT_URI]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said.startswith("ready "):
            self._process.kill()
            self._log.seek(0)
            pytest.fail(f"the provider did not start: {said}{self._log.read().decode()}")
        self.issuer = f"http://127.0.0.1:{int(said.split()[1])}"

    def set_accounts(self, **accounts: dict[str, Any]) -> None:
        """Says who there is: login to claims."""
        httpx.put(f"{self.issuer}/control/accounts", json=accounts).raise_for_status()

    def set_redirect_uri(self, redirect_uri: str) -> None:
        """Says where people are led back to; its keys are others then."""
        httpx.put(f"{self.issuer}/control/redirect-uri", content=redirect_uri).raise_for_status()

    def rotate_keys(self) -> None:
        """Withdraws all keys and signs with new ones."""
        httpx.post(f"{self.issuer}/control/rotate").raise_for_status()

    def stop(self) -> None:
        try:
            self._process.communicate(timeout=10)  # closes what it reads, which ends it
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()


@dataclass
class Browser:
    """Somebody's browser, which keeps cookies of the provider.

    Attributes:
        login: whom they sign in as.
        code: one-time code that they type, None for none.
        says_no: whether they decline.
        redirect_uri: where they are led back to.
        forms: names of the forms that they were shown.
    """

    login: str = "ada"
    code: str | None = None
    says_no: bool = False
    redirect_uri: str = REDIRECT_URI
    forms: list[str] = field(default_factory=list)
    # No connection outlives its answer: nobody closes a browser.
    client: httpx.Client = field(
        default_factory=lambda: httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
    )

    def go(self, url: str) -> dict[str, str]:
        """Follows the provider's redirects and fills its forms in, until it is sent back; returns what it is sent back with."""
        for _ in range(20):
            answer = self.client.get(url)
            if answer.is_success:
                answer = self._fill_in(answer)
            assert answer.is_redirect, answer.text
            url = urljoin(url, answer.headers["location"])
            if url.startswith(self.redirect_uri):
                return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))
        pytest.fail("the provider never sent the browser back")

    def _fill_in(self, page: httpx.Response) -> httpx.Response:
        found = re.search(r'action="([^"]+)"', page.text)
        assert found is not None, page.text
        action = urljoin(str(page.url), found[1])
        self.forms.append(action.rpartition("/")[2])
        if self.says_no:
            return self.client.post(action.rpartition("/")[0] + "/no")
        given = {"login": self.login, "password": self.login * 2, "code": self.code or ""}
        return self.client.post(action, data=given if self.forms[-1] == "login" else {})


def _node() -> str:
    """Returns Node.js, that of the environment first."""
    beside = Path(sys.executable).with_name("node")
    found = str(beside) if beside.exists() else shutil.which("node")
    if found is None:
        pytest.skip("Node.js is not installed: the provider of OpenID Connect runs on it")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) <= _NEWEST_THAT_IS_TOO_OLD:
        pytest.skip(f"Node.js {version.strip()} is too old for oidc-provider: 20 or newer is needed")
    return found


def _installed(node: str) -> Path:
    """Returns the folder that the package is installed in."""
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "shipsight-tests"
    folder = cache / f"openid-provider-{digest}"
    if folder.exists():
        return folder
    npm = shutil.which("npm", path=f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if npm is None:
        pytest.skip("npm is not installed: oidc-provider is installed with it")
    cache.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=cache))
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, made)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"oidc-provider could not be installed: {done.stderr.strip()[-300:]}")
        try:
            made.rename(folder)
        except OSError:
            assert folder.exists()  # another run was faster
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder
