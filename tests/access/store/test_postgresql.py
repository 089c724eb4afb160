# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL over TLS, and beside processes that freeze: real servers of it, real certificates."""

from __future__ import annotations

import gc
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import text
from sqlalchemy.engine import make_url
from tests.access.conftest import KeptEvents, PostgresServer, binaries_of_postgres, quick_folder
from tests.serve.certificates import make_authority, make_certificate, make_server, put

from shipsight.access import SERVER, Event, Grant
from shipsight.access.directory import Directory
from shipsight.access.store import Database, open_database
from shipsight.access.store.database import _make_engine
from shipsight.access.store.postgresql import _tls
from shipsight.errors import CertificateError, EnvironmentLackError, ForbiddenError, UsageError

LOCK = "SELECT pg_advisory_xact_lock(7407083)"


@dataclass(frozen=True)
class Reached:
    """A server on a port, and who signs for it.

    Attributes:
        server: PostgreSQL.
        port: of it, on 127.0.0.1.
        authority: file that its certificate is checked by, None where it speaks no TLS.
    """

    server: PostgresServer
    port: int
    authority: Path | None

    def url(self, query: str = "", *, host: str = "localhost") -> str:
        return f"postgresql://shipsight@{host}:{self.port}/postgres{query}"

    def by_tls(self, query: str = "", *, host: str = "localhost", mode: str = "verify-full") -> str:
        return self.url(f"?sslmode={mode}&sslrootcert={self.authority}{query}", host=host)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def reached(request: pytest.FixtureRequest) -> Iterator[Reached]:
    """A server on a port: `localhost`, as its certificate says; `elsewhere`, where that names another host; `plain`, without TLS."""
    binaries_of_postgres()
    folder = Path(tempfile.mkdtemp(prefix="shipsight-pg-tls-", dir=quick_folder()))
    port, settings, signed = free_port(), ["listen_addresses=127.0.0.1"], None
    server: PostgresServer | None = None
    try:
        if request.param != "plain":
            authority = make_authority()
            other = (x509.DNSName("db.example"),)
            pair = (
                make_server(authority)
                if request.param == "localhost"
                else make_certificate("db", issuer=authority, usage=ExtendedKeyUsageOID.SERVER_AUTH, names=other)
            )
            paths, signed = pair.write(folder, "tls"), folder / "authority.pem"
            put(signed, authority.pem)
            settings += ["ssl=on", f"ssl_cert_file={paths[0]}", f"ssl_key_file={paths[1]}"]
        server = PostgresServer(folder, settings, port=port)
        yield Reached(server, port, signed)
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def is_encrypted(database: Database) -> bool:
    with database.read() as connection:
        found = connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        return bool(found.scalar_one())


@pytest.mark.parametrize("reached", ["localhost"], indirect=True)
@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_server_with_the_right_certificate_is_asked_over_tls(reached: Reached, mode: str) -> None:
    """ASVS 12.3.1, 12.3.2."""
    database = open_database(reached.by_tls(mode=mode))
    assert is_encrypted(database)
    database.close()


@pytest.mark.parametrize("reached", ["elsewhere"], indirect=True)
@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_server_whose_certificate_names_another_host_is_refused(reached: Reached, mode: str) -> None:
    """ASVS 12.3.2."""
    with pytest.raises(EnvironmentLackError, match=r"does not answer.*CERTIFICATE_VERIFY_FAILED"):
        open_database(reached.by_tls(mode=mode))


@pytest.mark.parametrize("reached", ["localhost"], indirect=True)
def test_server_that_nobody_signed_for_is_refused(reached: Reached, tmp_path: Path) -> None:
    """ASVS 12.3.2."""
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(make_authority("stranger").pem)
    for query in ("?sslmode=verify-full", f"?sslmode=verify-full&sslrootcert={stranger}"):
        with pytest.raises(EnvironmentLackError, match="CERTIFICATE_VERIFY_FAILED"):
            open_database(reached.url(query))


@pytest.mark.parametrize("reached", ["plain"], indirect=True)
def test_server_without_tls_is_refused_where_tls_is_demanded(reached: Reached) -> None:
    """ASVS 12.3.1: nothing falls back to plain text. `127.1` is the same machine, but no name that says so."""
    for url in (reached.url("?sslmode=require"), reached.url("?sslmode=verify-full"), reached.url(host="127.1")):
        with pytest.raises(EnvironmentLackError, match="refuses SSL"):
            open_database(url)
    for url in (reached.url(), reached.url("?sslmode=disable", host="127.1"), reached.url(host="127.0.0.1")):
        database = open_database(url)
        assert not is_encrypted(database)
        database.close()


@pytest.mark.parametrize("reached", ["localhost"], indirect=True)
def test_certificate_is_checked_by_default_where_the_host_is_another_machine(reached: Reached) -> None:
    """ASVS 12.3.2."""
    with pytest.raises(EnvironmentLackError, match="CERTIFICATE_VERIFY_FAILED"):
        open_database(reached.url(host="127.1"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?sslmode=prefer", "sslmode"),
        ("?sslmode=verify-ca", "sslmode"),
        ("?sslmode=require&sslmode=disable", "sslmode"),
        ("?sslcert=mine.pem", "sslcert"),
        ("?timeout=1", "timeout"),
        ("?sslmode=disable&sslrootcert=ca.pem", "sslrootcert"),
        ("?sslrootcert=ca.pem", "sslrootcert"),
    ],
)
def test_what_a_url_may_not_say_is_refused(query: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_database(f"postgresql://ada@localhost/access{query}")


def test_url_without_a_user_is_refused() -> None:
    with pytest.raises(UsageError, match="no user"):
        open_database("postgresql://localhost/access")


@pytest.mark.parametrize("content", [None, "nothing of the kind"])
def test_file_that_holds_no_authorities_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CertificateError, match=r"authorities\.pem"):
        open_database(f"postgresql://ada@db.example/access?sslrootcert={path}")


@pytest.mark.parametrize(
    ("host", "is_checked"),
    [("db.example", True), ("10.0.0.5", True), ("[2001:db8::1]", True), ("localhost.example", True),
     ("localhost", False), ("127.0.0.1", False), ("127.8.8.8", False), ("[::1]", False), ("", False)],
)  # fmt: skip
def test_only_this_machine_is_asked_in_plain_text_by_default(host: str, is_checked: bool) -> None:
    context = _tls(make_url(f"postgresql://ada@{host}/access").host, {})
    assert isinstance(context, ssl.SSLContext) == is_checked
    if isinstance(context, ssl.SSLContext):
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    else:
        assert context is False, "None would take any certificate"


# The driver leaves it to the collector to close a socket on which nothing came.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("mode", ["disable", "verify-full"])
def test_server_that_takes_connections_and_says_nothing_is_given_up(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ASVS 16.5.2."""
    monkeypatch.setattr("shipsight.access.store.postgresql._ANSWER_S", 0.5)

    def ask(port: int) -> None:
        with pytest.raises(EnvironmentLackError, match="does not answer"):
            open_database(f"postgresql://ada@127.0.0.1:{port}/access?sslmode={mode}")

    begin = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ask(silent.getsockname()[1])
    assert time.monotonic() - begin < 10
    gc.collect()


def test_writing_gives_up_while_another_process_keeps_the_lock(postgres_server: PostgresServer) -> None:
    """ASVS 16.5.2: a server that has frozen in the middle of a change does not stop the others."""
    url = postgres_server.make_database()
    open_database(url).close()
    holder, database = _make_engine(url), Database(_make_engine(url), lock_s=0.5)
    with holder.connect() as frozen:
        frozen.execute(text(LOCK))
        begin = time.monotonic()
        with pytest.raises(EnvironmentLackError, match="does not answer"), database.write():
            pytest.fail("the lock is another's")
        assert time.monotonic() - begin < 10
        with database.read() as connection:  # which waits for nobody
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
    with database.write() as connection:
        settings = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("lock_timeout", "idle_in_transaction_session_timeout", "transaction_isolation")
        }
    assert settings == {
        "lock_timeout": "500ms",
        "idle_in_transaction_session_timeout": "30s",
        "transaction_isolation": "read committed",
    }
    holder.dispose()
    database.close()


def test_transaction_whose_process_froze_is_ended_and_said_to_have_no_answer(postgres_server: PostgresServer) -> None:
    """ASVS 16.5.2."""
    url = postgres_server.make_database()
    database = open_database(url)

    def freeze() -> None:
        with database.write() as connection:
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '200ms'"))
            time.sleep(1)
            connection.execute(text("SELECT 1"))

    with pytest.raises(EnvironmentLackError, match="does not answer"):
        freeze()
    with database.write() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    database.close()


class Waits(KeptEvents):
    """Keeps an event, within the transaction that it tells of, once another one waits for that."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        super().__init__()
        self._server, self._database = server, database
        self.began = threading.Event()

    def record(self, event: Event) -> None:
        super().record(event)
        self.began.set()
        until = time.monotonic() + 8
        while not self._server.run(
            "SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            f"WHERE locktype = 'advisory' AND NOT granted AND datname = '{self._database}'"
        ):
            assert time.monotonic() < until
            time.sleep(0.02)


def test_two_administrators_who_disable_each_other_at_once_leave_one_whatever_the_servers_default(
    postgres_server: PostgresServer,
) -> None:
    """ASVS 2.3.4: what was decided after waiting is decided on what is there then."""
    url = postgres_server.make_database()
    name = url.partition("?")[0].rpartition("/")[2]
    postgres_server.run(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    first, second = open_database(url), open_database(url)

    def now() -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC)

    made = Directory(first, KeptEvents(), now)
    ada, grace = (made.add_user(SERVER, one, grants=[Grant("admin")])[0] for one in ("ada", "grace"))
    events = Waits(postgres_server, name)
    one = threading.Thread(target=lambda: Directory(first, events, now).set_disabled(SERVER, grace.id, True))
    one.start()
    assert events.began.wait(30)
    with pytest.raises(ForbiddenError, match="nobody would be left"):
        Directory(second, KeptEvents(), now).set_disabled(SERVER, ada.id, True)
    one.join(30)
    assert [(user.name, user.is_disabled) for user in made.users()] == [("ada", False), ("grace", True)]
    first.close()
    second.close()
