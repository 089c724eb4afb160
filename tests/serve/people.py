# SPDX-License-Identifier: Apache-2.0
"""People at a real server: browsers over httpx, their codes, and the identities behind it where a test looks at them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pyotp
from sqlalchemy import update

from shipsight.access.service import Access
from shipsight.access.settings import AccessSettings
from shipsight.access.store import grow_revision
from shipsight.access.store.tables import sessions

if TYPE_CHECKING:
    from tests.serve.conftest import Served

PASSWORD = "three otters on a raft"
OTHER_PASSWORD = "seven kites over a lake"
SEEN_WITHIN_S = 1.3  # a change by another process is seen within a second

_opened: list[httpx.Client] = []


def close_browsers() -> None:
    """Closes all browsers there were."""
    while _opened:
        _opened.pop().close()


@dataclass
class Place:
    """A running server, where it keeps identities, and the code that it printed at its start."""

    url: str
    database: Path
    secrets_key: Path
    log: Path
    setup_code: str

    @contextmanager
    def access(self) -> Iterator[Access]:
        """Its identities, opened beside it, as the command line does."""
        settings = AccessSettings(str(self.database), self.secrets_key)
        with Access.open(settings, origin=self.url) as access:
            yield access

    def make_stale(self, name: str) -> None:
        """Lets the last proof of a person's sessions lie ten minutes back."""
        with self.access() as access:
            user = access.directory.user(name)
            with access.database.write() as connection:
                long_ago = access.now() - timedelta(minutes=10)
                connection.execute(update(sessions).where(sessions.c.user_id == user.id).values(proved_at=long_ago))
                grow_revision(connection)
        time.sleep(SEEN_WITHIN_S)


@contextmanager
def started_place(start: Callable[..., Served], folder: Path, *more: object) -> Iterator[Place]:
    """One server that keeps identities, and serves no model; by a name, since an address can have no passkeys.

    Args:
        start: starts servers.
        folder: for what it keeps.
        more: options.
    """
    (folder / "bundles").mkdir()
    database, key, log = folder / "access.db", folder / "secrets.key", folder / "log"
    with log.open("w") as stderr:
        options = ("--repository", folder / "bundles", "--database", database, "--secrets-key", key)
        served = start(*options, "--require-access", *more, stderr=stderr)
        told = next(served.events())
        assert told["event"] == "setup", told
        url = served.url.replace("127.0.0.1", "localhost")
        assert told["url"] == f"{url}/invitation"
        yield Place(url, database, key, log, told["code"])


@dataclass
class Browser:
    """A browser of somebody: keeps cookies, and sends what a page sends."""

    url: str
    seed: str = ""
    codes: list[str] = field(default_factory=list)
    last_step: int = 0

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, headers={"origin": self.url}, timeout=30)
        _opened.append(self.http)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Asks below `/v1/access/`."""
        return self.http.request(method, f"/v1/access/{path}", json=body, headers=headers)

    def done(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Asks, and returns what must succeed."""
        answer = self.ask(method, path, body)
        assert answer.status_code in (200, 201), (method, path, answer.text)
        told: dict[str, Any] = answer.json()
        return told

    def learn(self) -> dict[str, Any]:
        """Learns who it is, and the session's token against forged requests."""
        told = self.done("GET", "session")
        self.http.headers.pop("x-csrf-token", None)
        if told["csrf"]:
            self.http.headers["x-csrf-token"] = told["csrf"]
        return told

    @property
    def token(self) -> str:
        return self.http.cookies["shipsight"]

    def code(self) -> str:
        """A one-time code that was not used; waits for the next where this one was."""
        now = int(time.time()) // 30
        # One step ahead is let pass, which spares most of the waiting.
        step = max(now - 1, self.last_step + 1)
        while step > int(time.time()) // 30 + 1:
            time.sleep(0.5)
        self.last_step = step
        return str(pyotp.TOTP(self.seed).generate_otp(step))

    def enrol(self) -> None:
        """Adds an app for codes, and keeps recovery codes."""
        self.seed = self.done("POST", "factors/totp")["secret"]
        self.done("POST", "factors/totp/confirm", {"code": self.code()})
        self.codes = self.done("POST", "factors/recovery-codes")["codes"]
        self.learn()

    def accept(self, code: str, *, name: str | None = None, password: str = PASSWORD) -> str:
        """Sets a password by an invitation."""
        state: str = self.done("POST", "sign-in/invitation", {"code": code, "password": password, "name": name})[
            "state"
        ]
        self.learn()
        return state

    def sign_in(self, name: str, password: str = PASSWORD) -> None:
        """Signs in, with a code where one is asked for."""
        if self.done("POST", "sign-in", {"name": name, "password": password})["state"] == "second-factor":
            self.done("POST", "sign-in/code", {"code": self.code()})
        self.learn()

    def again(self) -> Browser:
        """Another browser of the same person, signed in nowhere."""
        return Browser(self.url, self.seed, self.codes, self.last_step)


names = (f"person-{number}" for number in itertools.count())


def add(admin: Browser, *grants: str) -> tuple[str, str]:
    """Adds somebody; returns their name and the code of their invitation."""
    name = next(names)
    told = admin.done("POST", "users", {"name": name, "grants": list(grants)})
    return name, told["code"]


def somebody(admin: Browser, *grants: str) -> tuple[str, Browser]:
    """Somebody who has signed in for the first time, with a second factor where their rights need one."""
    name, code = add(admin, *grants)
    browser = Browser(admin.url)
    if browser.accept(code) == "enrol":
        browser.enrol()
    return name, browser
