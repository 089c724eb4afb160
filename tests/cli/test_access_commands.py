# SPDX-License-Identifier: Apache-2.0
"""`shipsight user|role|key|backup`, as people type them."""

from __future__ import annotations

import json
import os
import pwd
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy import insert, select
from tests.access.conftest import PostgresServer
from tests.cli.conftest import Answer

from shipsight.access import Action, Certificate, Event, EventKind, LoggedEvents
from shipsight.access.client_certificates import ClientCertificates
from shipsight.access.directory import Directory
from shipsight.access.factors import Factors
from shipsight.access.keys import Keys
from shipsight.access.sessions import Sessions
from shipsight.access.store import Database, SecretBox, load_keys, open_database, tables
from shipsight.cli import main
from shipsight.errors import AuthenticationError


def now() -> datetime:
    return datetime.now(UTC)


class Place:
    """A state folder of one's own, and the command line on it, in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._capsys = folder / "access.db", capsys
        self.key = folder / "access.key"
        self._opened: list[Database] = []

    def run(self, *arguments: object) -> Answer:
        self._capsys.readouterr()
        code = 0
        try:
            main([*map(str, arguments)])
        except SystemExit as left:
            code = int(left.code or 0)
        told = self._capsys.readouterr()
        return Answer(code, told.out, told.err)

    def json(self, *arguments: object) -> Any:
        answer = self.run(*arguments, "--json")
        assert answer.code == 0, answer.err
        return answer.json

    def open(self) -> Database:
        self._opened.append(open_database(str(self.path)))
        return self._opened[-1]

    def directory(self) -> Directory:
        return Directory(self.open(), LoggedEvents(), now)

    def keys(self) -> Keys:
        return Keys(self.open(), LoggedEvents(), now)

    def close(self) -> None:
        for one in self._opened:
            one.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    for name in ("SHIPSIGHT_DATABASE", "SHIPSIGHT_SECRETS_KEY", "SHIPSIGHT_BACKUP_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = Place(tmp_path / "shipsight", capsys)
    yield made
    made.close()


def test_person_is_added_shown_changed_and_removed(place: Place) -> None:
    added = place.json(
        "user", "add", "Ada", "--display-name", "Ada L.", "--grant", "deployer@team-a-*,shared", "--hours", "2"
    )
    assert set(added) == {"user", "code", "expires_at"}
    assert added["user"]["grants"] == ["deployer@team-a-*,shared"]
    assert len(added["code"]) == 43
    assert timedelta(hours=1.9) < datetime.fromisoformat(added["expires_at"]) - now() < timedelta(hours=2.1)
    assert [one["name"] for one in place.json("user", "list")["users"]] == ["ada"]
    shown = place.json("user", "show", "ada")["user"]
    assert (shown["display_name"], shown["has_password"], shown["disabled"], shown["keys"]) == (
        "Ada L.",
        False,
        False,
        [],
    )
    assert place.json("user", "disable", "ada")["user"]["disabled"] is True
    assert place.json("user", "enable", "ada")["user"]["disabled"] is False
    assert place.json("user", "invite", "ada")["code"] != added["code"]
    assert place.json("user", "remove", "ada") == {"removed": "ada"}
    assert place.json("user", "list") == {"users": []}


def test_second_factors_and_sessions_are_taken_from_a_person(place: Place) -> None:
    """ASVS 6.4.4, 7.4.5: on the server's own machine, also those of who reads the audit log."""
    place.run("user", "add", "alan", "--grant", "auditor")
    user_id = place.json("user", "show", "alan")["user"]["id"]
    database, directory = place.open(), place.directory()
    sessions = Sessions(database, directory, LoggedEvents(), now, idle_s=60, absolute_s=3600, fresh_s=60)
    factors = Factors(database, SecretBox([bytes(range(32))]), LoggedEvents(), now)
    assert place.json("user", "sessions", "alan") == {"sessions": []}
    assert "no session" in place.run("user", "sessions", "alan").out
    session = sessions.begin(user_id, factors=("password",), address="192.0.2.7", agent="a browser")
    found = sessions.find(session.token)
    assert found is not None
    seed = factors.begin_totp(user_id).secret
    factors.confirm_totp(found[0], user_id, pyotp.TOTP(seed).now())
    (listed,) = place.json("user", "sessions", "alan")["sessions"]
    assert set(listed) == {"id", "created_at", "seen_at", "expires_at", "factors", "address", "agent"}
    assert (listed["id"], listed["factors"], listed["address"]) == (session.handle, ["password", "totp"], "192.0.2.7")
    assert "192.0.2.7" in place.run("user", "sessions", "alan").out
    assert place.json("user", "sessions", "alan", "--end") == {"ended": 1}
    assert sessions.find(session.token) is None
    sessions.begin(user_id, factors=("password", "totp"))
    assert place.json("user", "reset-factors", "alan")["user"]["name"] == "alan"
    assert not factors.of(user_id).has_second
    assert place.json("user", "sessions", "alan") == {"sessions": []}
    for command in ("sessions", "reset-factors"):
        assert place.run("user", command, "nobody").code == 2


def test_invitation_works_once_and_the_one_before_it_not_at_all(place: Place) -> None:
    """ASVS 6.4.1: what is printed is what the server takes, kept as a hash alone."""
    first = place.json("user", "add", "ada")["code"]
    second = place.json("user", "invite", "ada")["code"]
    with place.open().read() as connection:
        kept = connection.execute(select(tables.invitations)).all()
    assert len(kept) == 1
    assert first not in repr(kept)
    assert second not in repr(kept)


def test_code_and_key_are_printed_for_people_on_a_line_of_their_own(place: Place) -> None:
    lines = place.run("user", "add", "ada").out.splitlines()
    assert len([line for line in lines if len(line.strip()) == 43]) == 1
    lines = place.run("key", "add", "ci", "--grant", "predictor").out.splitlines()
    assert len([line for line in lines if line.strip().startswith("ssk_")]) == 1


def test_grants_are_given_taken_and_replaced(place: Place) -> None:
    place.run("user", "add", "ada", "--grant", "viewer")
    place.run("user", "add", "grace", "--grant", "admin")
    assert place.json("user", "grant", "ada", "predictor@cars")["user"]["grants"] == ["predictor@cars", "viewer"]
    assert place.json("user", "grant", "ada", "--take", "viewer")["user"]["grants"] == ["predictor@cars"]
    assert place.json("user", "grant", "ada", "operator", "--replace")["user"]["grants"] == ["operator"]
    assert place.json("user", "grant", "ada", "--replace")["user"]["grants"] == []
    assert place.run("user", "grant", "ada").code == 2
    assert place.run("user", "grant", "ada", "--take", "viewer").code == 2
    assert "no such role" in place.run("user", "grant", "ada", "nonesuch").err


@pytest.mark.parametrize(
    "act", [("disable", "ada"), ("remove", "ada"), ("grant", "ada", "--replace")], ids=lambda act: act[0]
)
def test_last_administrator_stays(place: Place, act: tuple[str, ...]) -> None:
    """Attack case A5."""
    place.run("user", "add", "ada", "--grant", "admin")
    answer = place.run("user", *act, "--json")
    assert (answer.code, answer.json["error"]["code"]) == (1, "forbidden")
    assert place.json("user", "list")["users"][0]["grants"] == ["admin"]


def test_disabled_person_has_no_sessions(place: Place) -> None:
    """ASVS 7.4.2, by the command line while a server runs."""
    user = place.json("user", "add", "ada", "--grant", "viewer")["user"]
    database = place.open()
    sessions = Sessions(database, place.directory(), LoggedEvents(), now, idle_s=60, absolute_s=60, fresh_s=60)
    token = sessions.begin(user["id"], factors=["password"]).token
    assert sessions.find(token) is not None
    assert place.run("user", "disable", "ada").code == 0
    assert sessions.find(token) is None


def test_whoever_runs_the_command_is_told_as_who_did_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel's word, not by the environment's."""
    kept: list[Event] = []
    monkeypatch.setattr(LoggedEvents, "record", lambda self, event: kept.append(event))
    monkeypatch.setenv("USER", "somebody-else")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    place.run("user", "add", "ada")
    assert {one.actor for one in kept} == {f"server:{pwd.getpwuid(os.geteuid()).pw_name}"}
    assert [one.kind for one in kept] == [EventKind.USER_ADDED]


def test_reading_makes_no_database(place: Place) -> None:
    for command in (
        ("user", "list"),
        ("user", "show", "ada"),
        ("role", "list"),
        ("key", "list"),
        ("backup", "create", "x"),
    ):
        answer = place.run(*command, "--json")
        assert (answer.code, answer.json["error"]["code"]) == (3, "environment"), command
    assert not place.path.exists()


@pytest.mark.parametrize("how", ["option", "variable"])
def test_database_is_where_it_is_said_to_be(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    there = tmp_path / "elsewhere.db"
    monkeypatch.setenv("SHIPSIGHT_DATABASE", str(there if how == "variable" else tmp_path / "wrong.db"))
    place.run("user", "add", "ada", *(["--database", f"sqlite:///{there}"] if how == "option" else []))
    assert place.json("user", "list", "--database", there)["users"][0]["name"] == "ada"
    assert not place.path.exists()
    assert not (tmp_path / "wrong.db").exists()


ROLES = """
schema: 1
roles:
  labeller:
    actions: [models.read, labels.read]
  exporter:
    actions: [data.export]
"""


def test_roles_are_applied_from_a_file(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text(ROLES)
    first = place.json("role", "apply", file)
    assert first["changed"] == ["labeller", "exporter"]
    assert place.json("role", "apply", file)["changed"] == []
    assert place.json("role", "show", "exporter")["role"] == {
        "name": "exporter", "built_in": False, "actions": ["data.export"], "needs_factors": True,
    }  # fmt: skip
    names = [one["name"] for one in place.json("role", "list")["roles"]]
    assert names == ["admin", "auditor", "deployer", "operator", "predictor", "viewer", "exporter", "labeller"]
    place.run("user", "add", "ada", "--grant", "labeller")
    assert place.run("role", "remove", "labeller").code == 2
    assert place.json("role", "remove", "exporter") == {"removed": "exporter"}
    assert place.run("role", "show", "exporter").code == 2
    assert place.run("role", "remove", "admin").code == 2


def test_file_of_roles_may_be_json(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "roles.json"
    file.write_text(json.dumps({"schema": 1, "roles": {"labeller": {"actions": ["labels.read"]}}}))
    assert place.json("role", "apply", file)["changed"] == ["labeller"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("roles: {}", "schema", id="no schema"),
        pytest.param("schema: 2\nroles: {}", "another schema", id="newer"),
        pytest.param("schema: 1\nroles: []", "not a file of roles", id="list"),
        pytest.param("schema: 1\nroles: {x: {actions: [models.fly]}}", "no such action", id="action"),
        pytest.param("schema: 1\nroles: {x: {actions: [models.read], more: 1}}", "not a role", id="unknown key"),
        pytest.param("schema: 1\nroles: {x: {actions: []}}", "allows nothing", id="empty"),
        pytest.param("schema: 1\nroles: {admin: {actions: [models.read]}}", "cannot be changed", id="built in"),
        pytest.param("schema: 1\nroles: {X y: {actions: [models.read]}}", "not a name", id="name"),
        pytest.param("schema: 1\nroles: {x: {actions: [audit.read, models.load]}}", "change nothing", id="both"),
        pytest.param(
            "schema: 1\nroles:\n  x: {actions: [models.read]}\n  x: {actions: [data.export]}",
            "stands twice",
            id="twice",
        ),
        pytest.param("schema: 1\nroles: &a {x: *a}", "alias", id="alias"),
        pytest.param("schema: 1\nroles: !!python/object:os.system {}", "not YAML", id="object"),
        pytest.param("a: [", "not YAML", id="not YAML"),
        pytest.param("\x00", "not YAML", id="bytes"),
    ],
)
def test_file_that_says_something_else_changes_nothing(place: Place, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text("schema: 1\nroles: {first: {actions: [models.read]}}" if text == "first" else text)
    answer = place.run("role", "apply", file)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not place.path.exists()


def test_key_is_made_rotated_and_revoked(place: Place) -> None:
    made = place.json("key", "add", "ci", "--grant", "deployer@cars", "--rate", "10/second", "--quota", "1000/day")
    assert set(made) == {"key", "secret"}
    assert (made["key"]["owner"], made["key"]["grants"], made["key"]["rate"]) == (None, ["deployer@cars"], "10/second")
    ends = datetime.fromisoformat(made["key"]["expires_at"]) - now()
    assert timedelta(days=364) < ends < timedelta(days=366)
    keys = place.keys()
    assert keys.authenticate(made["secret"]).may(Action.ROLLOUT_PROMOTE, "cars")
    rotated = place.json("key", "rotate", "ci", "--overlap", "1")
    assert keys.authenticate(rotated["secret"]).id == keys.authenticate(made["secret"]).id == made["key"]["id"]
    assert place.json("key", "revoke", made["key"]["id"]) == {"revoked": made["key"]["id"]}
    with pytest.raises(AuthenticationError):
        keys.authenticate(rotated["secret"])
    listed = place.json("key", "list")
    assert listed["keys"][0]["revoked_at"] is not None
    assert made["secret"] not in json.dumps(listed)
    assert "revoked" in place.run("key", "list").out


def test_key_of_a_person_stays_within_their_rights(place: Place) -> None:
    place.run("user", "add", "ada", "--grant", "predictor")
    made = place.json("key", "add", "laptop", "--grant", "deployer", "--owner", "ada", "--days", "7")
    assert made["key"]["owner"] == "ada"
    assert not place.keys().authenticate(made["secret"]).may(Action.ROLLOUT_PROMOTE, "cars")
    assert [one["name"] for one in place.json("key", "list", "--owner", "ada")["keys"]] == ["laptop"]
    assert place.json("user", "show", "ada")["user"]["keys"] == ["laptop"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--grant", "admin"], "only people", id="administrator"),
        pytest.param([], "nothing", id="no grant"),
        pytest.param(["--grant", "viewer", "--days", "0"], "--days", id="no days"),
        pytest.param(["--grant", "viewer", "--days", "3", "--forever"], "--days", id="both"),
        pytest.param(["--grant", "viewer", "--rate", "often"], "rate", id="rate"),
        pytest.param(["--grant", "viewer", "--owner", "nobody"], "no such user", id="owner"),
        pytest.param(["--grant", "viewer", "--device"], "--device", id="device"),
        pytest.param(["--subject", "CN=a", "--days", "3"], "--days", id="days of a certificate"),
        pytest.param(["--subject", "CN=a", "--alternative-name", "DNS:a"], "one of these", id="two fields"),
        pytest.param(["--certificate", "none.pem"], "none.pem", id="no file"),
    ],
)
def test_key_that_does_not_fit_is_not_made(place: Place, arguments: list[str], said: str) -> None:
    answer = place.run("key", "add", "ci", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert not place.path.exists() or place.json("key", "list") == {"keys": [], "certificates": []}


def test_name_that_stands_for_several_is_refused(place: Place) -> None:
    ids = [place.json("key", "add", "ci", "--grant", "viewer")["key"]["id"] for _ in range(2)]
    answer = place.run("key", "revoke", "ci")
    assert answer.code == 2
    assert all(one in answer.err for one in ids)
    place.json("key", "revoke", ids[0])
    assert place.json("key", "revoke", "ci") == {"revoked": ids[1]}  # the one that is left


def test_certificate_is_let_in_by_its_file_and_shut_out(place: Place, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "camera-1")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = (
        builder.serial_number(7).not_valid_before(now()).not_valid_after(now() + timedelta(days=1)).sign(key, SHA256())
    )
    file = tmp_path / "camera.pem"
    file.write_bytes(made.public_bytes(Encoding.PEM))
    told = place.json("key", "add", "camera-1", "--certificate", file, "--device", "--grant", "predictor")[
        "certificate"
    ]
    assert (told["field"], told["value"], told["kind"]) == ("sha256", made.fingerprint(SHA256()).hex(), "device")
    certificates = ClientCertificates(place.open(), LoggedEvents(), now)
    shown = Certificate(
        "CN=camera-1", (), "CN=camera-1", "7", made.fingerprint(SHA256()).hex(), now() + timedelta(days=1)
    )
    assert certificates.authenticate(shown).told() == "device:camera-1"
    assert [one["name"] for one in place.json("key", "list")["certificates"]] == ["camera-1"]
    assert place.run("key", "rotate", "camera-1").code == 2
    assert place.json("key", "revoke", "camera-1") == {"revoked": told["id"]}
    assert certificates.authenticate(shown).rights.grants == ()


def test_certificate_is_known_by_subject_or_alternative_name(place: Place) -> None:
    by_subject = place.json("key", "add", "a", "--subject", "CN=camera-1,O=example", "--grant", "viewer")["certificate"]
    by_name = place.json("key", "add", "b", "--alternative-name", "DNS:camera-2")["certificate"]
    assert (by_subject["field"], by_subject["value"]) == ("subject", "CN=camera-1,O=example")
    assert (by_name["field"], by_name["value"], by_name["grants"]) == ("name", "DNS:camera-2", [])


def test_key_for_secrets_is_changed_in_two_steps(place: Place) -> None:
    """notes/security 3.7: what was encrypted before is read all the while."""
    user = place.json("user", "add", "ada")["user"]
    place.json("key", "add", "ci", "--grant", "viewer")
    old = SecretBox(load_keys(place.key, make=True))
    with place.open().write() as connection:
        connection.execute(
            insert(tables.totps).values(
                id="1",
                user_id=user["id"],
                secret=old.seal(b"seed", belongs_to="1"),
                is_confirmed=True,
                created_at=now(),
            )
        )
    assert place.json("key", "rotate-secrets")["keys"] == 2
    assert place.run("key", "rotate-secrets").code == 2
    both = load_keys(place.key)
    assert len(both) == 2
    assert place.json("key", "rotate-secrets", "--finish") == {"secrets_key": str(place.key), "keys": 1, "encrypted": 1}
    assert load_keys(place.key) == both[:1]
    with place.open().read() as connection:
        sealed = connection.execute(select(tables.totps.c.secret)).scalar_one()
    assert SecretBox(both[:1]).open(sealed, belongs_to="1") == b"seed"


@pytest.mark.parametrize("how", ["passphrase file", "variable", "key file"])
def test_backup_comes_back_somewhere_else(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("11" * 32 if how == "key file" else "correct horse battery\nanother line\n")
    secret.chmod(0o600)
    options = {"passphrase file": ["--passphrase-file", secret], "key file": ["--key-file", secret], "variable": []}[
        how
    ]
    if how == "variable":
        monkeypatch.setenv("SHIPSIGHT_BACKUP_PASSPHRASE", "correct horse battery")
    place.run("user", "add", "ada", "--grant", "admin")
    key = place.json("key", "add", "ci", "--grant", "viewer")
    file = tmp_path / "identities.backup"
    made = place.json("backup", "create", file, *options)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (made["rows"]["users"], made["rows"]["api_keys"]) == (1, 1)
    assert place.run("backup", "create", file, *options).code == 2
    assert place.run("backup", "create", file, *options, "--force").code == 0
    there = tmp_path / "there" / "access.db"
    assert place.run("backup", "restore", file, *options, "--check").code == 0
    told = place.json("backup", "restore", file, *options, "--database", there)
    assert told["rows"] == made["rows"]
    assert place.json("user", "list", "--database", there)["users"][0]["name"] == "ada"
    assert [one["id"] for one in place.json("key", "list", "--database", there)["keys"]] == [key["key"]["id"]]
    assert place.run("backup", "restore", file, *options, "--database", there).code == 2
    assert place.run("backup", "restore", file, *options, "--database", there, "--force").code == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["identities.backup", "secret", "shipsight", "there"]


def test_backup_that_was_changed_is_not_restored(place: Place, tmp_path: Path) -> None:
    place.run("user", "add", "ada")
    secret, file = tmp_path / "secret", tmp_path / "identities.backup"
    secret.write_text("correct horse battery")
    place.run("backup", "create", file, "--passphrase-file", secret)
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    place.run("user", "add", "grace")
    answer = place.run("backup", "restore", file, "--passphrase-file", secret, "--force", "--json")
    assert (answer.code, answer.json["error"]["code"]) == (2, "corrupt")
    assert [one["name"] for one in place.json("user", "list")["users"]] == ["ada", "grace"]


def test_backup_asks_for_nothing_where_nobody_is_to_be_asked(place: Place, tmp_path: Path) -> None:
    place.run("user", "add", "ada")
    answer = place.run("backup", "create", tmp_path / "x")
    assert answer.code == 2
    assert "SHIPSIGHT_BACKUP_PASSPHRASE" in answer.err
    short = tmp_path / "short"
    short.write_text("short\n")
    assert "at least 12" in place.run("backup", "create", tmp_path / "x", "--passphrase-file", short).err
    both = place.run("backup", "create", tmp_path / "x", "--passphrase-file", short, "--key-file", short)
    assert both.code == 2
    assert not (tmp_path / "x").exists()


def test_nobody_reads_a_secret_in_what_is_printed_of_people_and_keys(place: Place) -> None:
    """ASVS 14.2.4: lists tell no code and no key."""
    code = place.json("user", "add", "ada")["code"]
    secret = place.json("key", "add", "ci", "--grant", "viewer")["secret"]
    for command in (("user", "list"), ("user", "show", "ada"), ("key", "list")):
        for told in (place.run(*command), place.run(*command, "--json")):
            assert code not in told.out + told.err
            assert secret[21:] not in told.out + told.err


def test_backup_carries_identities_from_sqlite_to_postgresql_and_back(
    place: Place, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    secret, file, back = tmp_path / "secret", tmp_path / "1.backup", tmp_path / "2.backup"
    secret.write_text("correct horse battery")
    url = postgres_server.make_database()
    place.run("user", "add", "ada", "--grant", "admin")
    made = place.json("key", "add", "ci", "--grant", "viewer")
    place.json("backup", "create", file, "--passphrase-file", secret)
    assert (
        place.json("backup", "restore", file, "--passphrase-file", secret, "--database", url)["made_from"] == "sqlite"
    )
    assert place.json("user", "list", "--database", url)["users"] == place.json("user", "list")["users"]
    place.json("key", "revoke", "ci", "--database", url)
    told = place.json("backup", "create", back, "--passphrase-file", secret, "--database", url)
    assert told["made_from"] == "postgresql"
    place.json("backup", "restore", back, "--passphrase-file", secret, "--force")
    with pytest.raises(AuthenticationError):
        place.keys().authenticate(made["secret"])
