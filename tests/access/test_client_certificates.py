# SPDX-License-Identifier: Apache-2.0
"""Who a client's certificate stands for. What TLS refuses before is tested where TLS is (`tests/serve`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from tests.access.conftest import Clock, KeptEvents

from shipsight.access import SERVER, Action, Certificate, EventKind, Grant, Principal, PrincipalKind, Role
from shipsight.access.client_certificates import ClientCertificates
from shipsight.access.directory import Directory
from shipsight.access.store import Database, tables
from shipsight.errors import AuthenticationError, ForbiddenError, NotFoundError, UsageError

PREDICTOR = Grant("predictor", ("cars",))


@dataclass
class House:
    db: Database
    clock: Clock
    events: KeptEvents
    directory: Directory
    certificates: ClientCertificates

    def certificate(self, subject: str = "CN=camera-1", **changes: object) -> Certificate:
        """A certificate that TLS has verified."""
        made = Certificate(
            subject=subject,
            alternative_names=("DNS:camera-1", "URI:urn:camera:1"),
            issuer="CN=our authority",
            serial="2a",
            sha256="ab" * 32,
            not_after=self.clock() + timedelta(days=1),
        )
        return replace(made, **changes)  # type: ignore[arg-type]

    def why(self) -> str | None:
        return self.events.kept[-1].why if self.events.kept[-1].kind is EventKind.CERTIFICATE_REFUSED else None


@pytest.fixture
def house(database: Database, clock: Clock, events: KeptEvents) -> House:
    directory = Directory(database, events, clock)
    return House(database, clock, events, directory, ClientCertificates(database, events, clock))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "ab" * 32),
        ("sha256", ":".join(["AB"] * 32)),
        ("subject", "CN=camera-1"),
        ("name", "DNS:camera-1"),
        ("name", "URI:urn:camera:1"),
    ],
)
def test_certificate_is_found_by_digest_subject_or_name(house: House, field: str, value: str) -> None:
    added = house.certificates.add(
        SERVER, "camera-1", field=field, value=value, kind="device", grants=[PREDICTOR], rate="5/second", quota="9/day"
    )
    found = house.certificates.authenticate(house.certificate())
    assert (found.kind, found.name, found.id) == (PrincipalKind.DEVICE, "camera-1", added.id)
    assert found.told() == "device:camera-1"
    assert found.certificate == house.certificate()
    assert (found.rate, found.quota) == ("5/second", "9/day")
    assert found.may(Action.MODELS_PREDICT, "cars")
    assert not found.may(Action.MODELS_PREDICT, "ships")


@pytest.mark.parametrize(
    "other",
    [
        {"subject": "CN=camera-2", "alternative_names": ("DNS:camera-2",), "sha256": "cd" * 32},
        {"subject": "", "alternative_names": (), "sha256": "cd" * 32},
        {"subject": "cn=CAMERA-1", "alternative_names": ("DNS:Camera-1",), "sha256": "cd" * 32},
        {"subject": "CN=camera-1,O=else", "alternative_names": ("DNS:camera-10",), "sha256": "cd" * 32},
        {"subject": "DNS:camera-1", "alternative_names": ("email:camera-1",), "sha256": "cd" * 32},
    ],
    ids=["another", "nameless", "case", "longer", "another kind of name"],
)
def test_a7_unknown_device_of_the_right_authority_has_no_rights(house: House, other: dict[str, object]) -> None:
    """Attack case A7, ASVS 12.1.3: signed well is not yet known."""
    for field, value in (("sha256", "ab" * 32), ("subject", "CN=camera-1"), ("name", "DNS:camera-1")):
        house.certificates.add(SERVER, f"by-{field}", field=field, value=value, grants=[PREDICTOR])
    found = house.certificates.authenticate(house.certificate(**other))
    assert found.kind is PrincipalKind.CERTIFICATE
    assert found.rights.grants == ()
    assert found.id is None
    assert house.why() == "unknown"


def test_a7_revoked_certificate_has_no_rights_also_where_its_subject_is_known(house: House) -> None:
    """Attack case A7, ASVS 12.1.4 and 6.5.6: one device of many is shut out by its digest."""
    house.certificates.add(SERVER, "fleet", field="subject", value="CN=camera-1", kind="device", grants=[PREDICTOR])
    stolen = house.certificates.add(SERVER, "stolen", field="sha256", value="ab" * 32, grants=[])
    house.certificates.remove(SERVER, stolen.id)
    found = house.certificates.authenticate(house.certificate())
    assert (found.kind, found.rights.grants, house.why()) == (PrincipalKind.CERTIFICATE, (), "revoked")
    assert house.certificates.authenticate(house.certificate(sha256="cd" * 32)).may(Action.MODELS_READ, "cars")


def test_a7_removed_entry_ends_at_once_and_can_be_added_again(house: House) -> None:
    """Attack case A7."""
    first = house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[PREDICTOR])
    assert house.certificates.authenticate(house.certificate()).may(Action.MODELS_READ, "cars")
    house.certificates.remove(SERVER, first.id)
    assert house.certificates.authenticate(house.certificate()).rights.grants == ()
    assert house.certificates.list() == []
    assert house.directory.grants("certificate", first.id) == ()
    with pytest.raises(NotFoundError):
        house.certificates.remove(SERVER, first.id)
    second = house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[PREDICTOR])
    assert house.certificates.authenticate(house.certificate()).id == second.id != first.id


def test_a7_certificate_that_ended_on_an_open_connection_is_refused(house: House) -> None:
    """Attack case A7: TLS looked when the connection was made, we look with each request."""
    house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[PREDICTOR])
    certificate = house.certificate()
    house.clock.pass_s(86399)
    assert house.certificates.authenticate(certificate).may(Action.MODELS_READ, "cars")
    house.clock.pass_s(1)
    with pytest.raises(AuthenticationError, match="this certificate is not accepted"):
        house.certificates.authenticate(certificate)
    assert house.why() == "expired"


def test_surest_entry_speaks_for_a_certificate(house: House) -> None:
    for field, value in (("name", "DNS:camera-1"), ("subject", "CN=camera-1"), ("sha256", "ab" * 32)):
        house.certificates.add(SERVER, f"by-{field}", field=field, value=value, grants=[PREDICTOR])
        assert house.certificates.authenticate(house.certificate()).name == f"by-{field}"


def test_sure_entry_stands_where_a_wider_one_was_removed(house: House) -> None:
    wide = house.certificates.add(SERVER, "wide", field="subject", value="CN=camera-1", grants=[PREDICTOR])
    house.certificates.add(SERVER, "sure", field="sha256", value="ab" * 32, grants=[PREDICTOR])
    house.certificates.remove(SERVER, wide.id)
    assert house.certificates.authenticate(house.certificate()).name == "sure"


def test_no_certificate_is_named_like_an_unknown_one(house: House) -> None:
    """Records tell them apart: names of ours have no `=` and no `:`."""
    for name in ("CN=camera-1", "DNS:camera-1", "", "a b"):
        with pytest.raises(UsageError, match="not a name"):
            house.certificates.add(SERVER, name, field="subject", value="CN=x", grants=[])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "ab" * 31),
        ("sha256", "xy" * 32),
        ("subject", "camera-1"),
        ("subject", ""),
        ("name", "camera-1"),
        ("name", "DNS:"),
        ("name", "DNS:a b"),
        ("serial", "2a"),
    ],
)
def test_value_must_be_of_its_field(house: House, field: str, value: str) -> None:
    with pytest.raises(UsageError):
        house.certificates.add(SERVER, "camera-1", field=field, value=value, grants=[])


def test_name_and_value_stand_for_one_entry(house: House) -> None:
    house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[])
    for name, value in (("camera-1", "CN=camera-2"), ("camera-2", "CN=camera-1")):
        with pytest.raises(UsageError, match="stands for another"):
            house.certificates.add(SERVER, name, field="subject", value=value, grants=[])
    with pytest.raises(UsageError, match="kind"):
        house.certificates.add(SERVER, "camera-2", field="subject", value="CN=camera-2", kind="person", grants=[])


@pytest.mark.parametrize("role", ["admin", "auditor"])
def test_machine_holds_nothing_of_access_or_audit(house: House, role: str) -> None:
    """ASVS 6.3.4: what people need two factors for is not open to one."""
    with pytest.raises(UsageError):
        house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[Grant(role)])
    assert house.certificates.list() == []
    added = house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[PREDICTOR])
    with house.db.write() as connection:
        connection.execute(tables.grants.update().where(tables.grants.c.holder_id == added.id).values(role=role))
    rights = house.certificates.authenticate(house.certificate()).rights
    assert not any(rights.allows_somewhere(one) for one in Action if one.startswith(("access.", "audit.")))


def test_only_who_may_change_access_adds_and_removes(house: House) -> None:
    added = house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[PREDICTOR])
    machine = house.certificates.authenticate(house.certificate())
    person = Principal(PrincipalKind.PERSON, "ada", rights=machine.rights, id="0" * 16)
    for actor in (machine, person):
        with pytest.raises(ForbiddenError):
            house.certificates.add(actor, "camera-2", field="subject", value="CN=camera-2", grants=[])
        with pytest.raises(ForbiddenError):
            house.certificates.remove(actor, added.id)


def test_change_of_a_role_counts_at_once(house: House) -> None:
    """ASVS 8.3.2."""
    house.directory.apply_role(SERVER, Role("labels", frozenset({Action.LABELS_READ})))
    house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[Grant("labels")])
    assert house.certificates.authenticate(house.certificate()).may(Action.LABELS_READ, "cars")
    house.directory.apply_role(SERVER, Role("labels", frozenset({Action.GOLDEN_READ})))
    assert not house.certificates.authenticate(house.certificate()).may(Action.LABELS_READ, "cars")


def test_use_is_told_once_a_minute(house: House) -> None:
    added = house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[PREDICTOR])
    first = house.clock()
    for seconds in (0, 59):
        house.clock.time = first + timedelta(seconds=seconds)
        house.certificates.authenticate(house.certificate())
        assert house.certificates.get(added.id).used_at == first
    house.clock.pass_s(1)
    house.certificates.authenticate(house.certificate())
    assert house.certificates.get(added.id).used_at == house.clock()


@pytest.mark.parametrize("act", ["add", "remove"])
def test_nothing_is_done_when_it_cannot_be_told(house: House, act: str) -> None:
    """ASVS 16.5.3: fail closed."""
    added = house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[PREDICTOR])
    house.events.fails = True
    acts = {
        "add": lambda: house.certificates.add(SERVER, "camera-2", field="subject", value="CN=camera-2", grants=[]),
        "remove": lambda: house.certificates.remove(SERVER, added.id),
    }
    with pytest.raises(OSError, match="no space"):
        acts[act]()
    house.events.fails = False
    assert [one.id for one in house.certificates.list()] == [added.id]
    assert house.certificates.authenticate(house.certificate()).id == added.id


def test_each_change_makes_the_revision_grow(house: House) -> None:
    seen = [house.directory.revision()]
    added = house.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[])
    seen.append(house.directory.revision())
    house.certificates.remove(SERVER, added.id)
    seen.append(house.directory.revision())
    assert seen == sorted(set(seen))


def test_certificate_with_characters_that_databases_refuse_is_unknown(house: House) -> None:
    """Attack case A7: what a certificate says comes from outside."""
    hostile = house.certificate("CN=camera\x001", alternative_names=("DNS:camera-1\x00.example", "URI:\ud800"))
    assert house.certificates.authenticate(hostile).rights.grants == ()
    for field, value in (("subject", "CN=a\x00"), ("name", "DNS:a\x00"), ("name", "DNS:\ud800")):
        with pytest.raises(UsageError):
            house.certificates.add(SERVER, "camera-1", field=field, value=value, grants=[])
    for entry in ("\x00", "\ud800", ""):
        with pytest.raises(NotFoundError):
            house.certificates.remove(SERVER, entry)
        with pytest.raises(NotFoundError):
            house.certificates.get(entry)
