# SPDX-License-Identifier: Apache-2.0
"""A server's process that races with another one: says that it is ready, waits for a line, does one thing, says how it went.

Run with JSON as its argument: `url`, `at` (ISO 8601), `act`, and the act's `arguments`.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from shipsight.access.directory import Directory
from shipsight.access.events import LoggedEvents
from shipsight.access.factors import Factors
from shipsight.access.passwords import Passwords
from shipsight.access.sessions import Sessions
from shipsight.access.sign_in import SignIn
from shipsight.access.store import SecretBox, open_database
from shipsight.errors import AuthenticationError, ForbiddenError


class NoPasskeys:
    def finish_authentication(self, challenge_token: str, credential: dict[str, Any], **more: Any) -> str:
        raise AuthenticationError("no passkeys")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    told = json.loads(sys.argv[1])
    at = datetime.fromisoformat(told["at"])
    database, events = open_database(told["url"], migrate=False), LoggedEvents()

    def now() -> datetime:
        return at

    directory = Directory(database, events, now)
    factors = Factors(database, SecretBox([bytes.fromhex(told["key"])]), events, now)
    sessions = Sessions(database, directory, events, now, idle_s=1800, absolute_s=43200, fresh_s=300)
    sign_in = SignIn(
        database,
        directory,
        factors,
        NoPasskeys(),
        sessions,
        events,
        now,
        passwords=Passwords(memory_kib=64, passes=1),
    )
    acts = {
        "totp": factors.check_totp,
        "recovery": factors.use_recovery_code,
        "code": sign_in.finish_code,
        "invitation": sign_in.accept_invitation,
        "setup": lambda code, password, name: sign_in.accept_invitation(code, password, name=name),
    }
    say("ready")
    sys.stdin.readline()
    try:
        say(json.dumps(bool(acts[told["act"]](*told["arguments"]))))
    except (AuthenticationError, ForbiddenError):
        say(json.dumps(False))
    database.close()


if __name__ == "__main__":
    main()
