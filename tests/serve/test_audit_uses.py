# SPDX-License-Identifier: Apache-2.0
"""What a server tells beside decisions: that keys and certificates are used, models come and go, bundles are read, options change."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.serve.gated import Gated, Kept, gated

from shipsight.access import LOOPBACK, SERVER, Certificate, EventKind, Outcome, Principal, PrincipalKind
from shipsight.access.audit.log import AuditLog
from shipsight.access.permissions import OPEN_RIGHTS
from shipsight.errors import AuditError, EnvironmentLackError, NotFoundError, ReplayMismatchError, UsageError
from shipsight.serve.audit_opening import AuditedEvents, starts_with
from shipsight.serve.audit_options import AuditOptions
from shipsight.serve.configuration import changes_since, told_options, without_secrets
from shipsight.serve.http.principals import CLIENT_CERTIFICATE
from shipsight.serve.model_events import ModelEvents
from shipsight.serve.models import Models
from shipsight.serve.predicted import PredictionLog, recording
from shipsight.serve.request_notes import note_body
from shipsight.serve.rollout import Share
from shipsight.serve.rollout_control import RolloutControl
from shipsight.serve.rollout_record import RolloutRecord
from shipsight.serve.scheduler import Scheduler
from shipsight.serve.shadow import Shadow
from shipsight.serve.uses import Uses

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Gated]:
    with gated(tmp_path) as made:
        yield made


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    with AuditLog.open(str(tmp_path / "audit.db"), key=tmp_path / "audit.key", server="one") as made:
        yield made


# --- keys and certificates --------------------------------------------------------------------------------------------


def test_key_is_told_once_an_hour_for_each_address() -> None:
    kept, clock = Kept(), Clock()
    uses = Uses(kept, now=clock)
    key = Principal(PrincipalKind.KEY, "camera", rights=OPEN_RIGHTS, id="0123")
    for minutes, address in (
        (0, "192.0.2.1"),
        (1, "192.0.2.1"),
        (59, "192.0.2.2"),
        (59, "192.0.2.1"),
        (60, "192.0.2.1"),
    ):
        clock.at = NOON + timedelta(minutes=minutes)
        uses.note(key, address)
    told = [(one.kind, one.actor, one.subject, one.address, one.at.minute) for one in kept.events]
    name = (EventKind.KEY_USED, "key:camera", "key:0123")
    assert told == [(*name, "192.0.2.1", 0), (*name, "192.0.2.2", 59), (*name, "192.0.2.1", 0)]


def test_people_and_who_holds_nothing_are_not_told_as_uses() -> None:
    kept = Kept()
    uses = Uses(kept, now=Clock())
    for one in (
        LOOPBACK,
        SERVER,
        Principal(PrincipalKind.PERSON, "ada", rights=OPEN_RIGHTS),
        Principal(PrincipalKind.KEY, "k"),
    ):
        uses.note(one, "192.0.2.1")
    assert kept.events == []


def test_uses_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes from many addresses is told, and does not fill the memory."""
    monkeypatch.setattr("shipsight.serve.uses._MOST", 10)
    kept = Kept()
    uses = Uses(kept, now=Clock())
    key = Principal(PrincipalKind.KEY, "camera", rights=OPEN_RIGHTS, id="0123")
    for number in range(100):
        uses.note(key, f"2001:db8::{number:x}")
    assert len(kept.events) == 100
    assert len(uses._told) == 10


def test_use_of_a_key_and_of_a_certificate_over_http_is_recorded(app: Gated) -> None:
    key = app.key("reader", "viewer")
    app.access.certificates.add(SERVER, "camera", field="subject", value="CN=camera", grants=[])
    shown = Certificate("CN=camera", (), "CN=clients", "1", "ab" * 32, datetime.now(UTC) + timedelta(hours=1))
    with_rights = Certificate("CN=c2", (), "CN=clients", "2", "cd" * 32, datetime.now(UTC) + timedelta(hours=1))
    from shipsight.access import Grant

    app.access.certificates.add(SERVER, "c2", field="subject", value="CN=c2", grants=[Grant("viewer")])
    app.events.events.clear()

    async def run() -> None:
        for _ in range(3):
            assert (await app.ask("GET", "/v1/models", key)).status == 200
        assert (await app.ask("GET", "/v1/models", extensions={CLIENT_CERTIFICATE: with_rights})).status == 200
        assert (await app.ask("GET", "/v1/models", extensions={CLIENT_CERTIFICATE: shown})).status == 403

    asyncio.run(run())
    done = [one for one in app.events.events if one.outcome is Outcome.DONE]
    told = [(one.kind, one.actor.partition(".")[0], one.address) for one in done]
    assert told == [
        (EventKind.KEY_USED, "key:reader", "192.0.2.1"),
        (EventKind.CERTIFICATE_USED, "certificate:c2", "192.0.2.1"),
    ]
    assert app.events.of(EventKind.CERTIFICATE_USED)[0].details == {"sha256": "cd" * 32}


# --- models and rollouts ----------------------------------------------------------------------------------------------


class Refusing(Kept):
    """A sink as the log is where it cannot be written."""

    def record(self, event: Any) -> None:
        if self.fails and event.outcome is Outcome.DONE:
            raise AuditError("the audit log cannot be written", got="no space left on device")
        self.events.append(event)


@pytest.fixture
def kept() -> Refusing:
    return Refusing()


@pytest.fixture
def models(kept: Refusing) -> Iterator[Models]:
    scheduler = Scheduler(1)
    made = Models(scheduler, events=ModelEvents(kept, late=kept.events.append))
    yield made
    made.close()
    scheduler.close()


ADA = Principal(PrincipalKind.PERSON, "ada", rights=OPEN_RIGHTS, id="1")


def test_models_that_come_and_leave_are_told_with_their_digest_and_by_whom(
    models: Models, kept: Refusing, digits_bundle: Path
) -> None:
    loaded = models.load(digits_bundle, actor=ADA)
    models.reload("digits", "1", actor=ADA)
    models.unload("digits", actor=ADA)
    kinds = [one.kind for one in kept.events]
    both = [EventKind.BUNDLE_READ, EventKind.MODEL_LOADED]
    assert kinds == [*both, *both, EventKind.MODEL_UNLOADED]
    for one in kept.events:
        assert (one.actor, one.subject) == ("person:ada", "model:digits")
        assert (one.details["version"], one.details["digest"]) == ("1", loaded.digest)
    assert kept.events[3].details["instead_of"] == loaded.digest
    assert kept.events[0].details["variants"] == [loaded.default_variant]


def test_a_model_that_cannot_be_recorded_is_neither_read_nor_loaded_nor_taken_away(
    models: Models, kept: Refusing, digits_bundle: Path
) -> None:
    """ASVS 16.5.3."""
    kept.fails = True
    with pytest.raises(AuditError):
        models.load(digits_bundle, actor=ADA)
    assert models.all() == [] or not models.all()[0].answers
    kept.fails = False
    models.load(digits_bundle, actor=ADA)
    kept.fails = True
    with pytest.raises(AuditError):
        models.unload("digits", actor=ADA)
    assert models.get("digits").answers


def test_a_model_that_was_pushed_out_comes_back_also_where_it_cannot_be_recorded(
    models: Models, kept: Refusing, digits_bundle: Path, second_version: Path
) -> None:
    """Predictions go on."""
    first, second = models.load(digits_bundle), models.load(second_version)
    models.memory_bytes = max(first.memory_bytes, second.memory_bytes) + 1
    kept.events.clear()
    kept.fails = True
    with models._changing:
        models._make_room(second)
    evicted = next(one for one in models.all() if not one.runners)
    models.memory_bytes = None
    assert models.wake(evicted).result(60).answers
    assert [one.kind for one in kept.events] == [
        EventKind.MODEL_UNLOADED, EventKind.BUNDLE_READ, EventKind.MODEL_LOADED,
    ]  # fmt: skip
    assert kept.events[0].details["reason"] == "memory"


def test_a_bundle_that_is_refused_was_read_and_not_loaded(
    models: Models, kept: Refusing, digits_bundle: Path, tmp_path: Path
) -> None:
    from tests.serve.conftest import rewritten

    other = rewritten(digits_bundle, tmp_path / "other.bundle", weights_scale=3.0)
    with pytest.raises(ReplayMismatchError):
        models.load(other, actor=ADA)
    assert [one.kind for one in kept.events] == [EventKind.BUNDLE_READ]


def control(models: Models, kept: Refusing, folder: Path | None = None) -> RolloutControl:
    return RolloutControl(models, Shadow(models, models._scheduler), RolloutRecord(folder), events=kept)


def test_rollouts_tell_what_was_and_what_is(
    models: Models, kept: Refusing, digits_bundle: Path, second_version: Path
) -> None:
    models.load(digits_bundle)
    models.load(second_version)
    rollouts = control(models, kept)
    rollouts.share(ADA, "digits", {"canary": Share("2", 0.25)}, reason="try it")
    rollouts.promote(ADA, "digits")
    rollouts.roll_back(ADA, "digits")
    rollouts.share(ADA, "digits", {"shadow": Share("2", 1.0)})
    rollouts.end(ADA, "digits")
    rollouts.close()
    told = [one for one in kept.events if one.kind is EventKind.ROLLOUT_CHANGED]
    assert {(one.actor, one.subject, one.outcome) for one in told} == {("person:ada", "model:digits", Outcome.DONE)}
    both = {"current": "1", "current_was": "1", "previous": "2", "previous_was": "2"}
    assert [dict(one.details) for one in told] == [
        {"action": "share", "reason": "try it", "current": "1", "current_was": "1", "canary": "2=0.25"},
        {"action": "promote", "current": "2", "current_was": "1", "previous": "1", "canary_was": "2=0.25"},
        {"action": "rollback", "current": "1", "current_was": "2", "previous": "2", "previous_was": "1"},
        {"action": "share", **both, "shadow": "2=1"},
        {"action": "end", **both, "shadow_was": "2=1"},
    ]


def test_a_rollout_that_cannot_be_recorded_does_not_change(
    models: Models, kept: Refusing, digits_bundle: Path, second_version: Path
) -> None:
    """ASVS 16.5.3."""
    models.load(digits_bundle)
    models.load(second_version)
    rollouts = control(models, kept)
    kept.fails = True
    with pytest.raises(AuditError):
        rollouts.promote(ADA, "digits", "2")
    assert models.current("digits") == "1"
    rollouts.close()


def test_a_rollout_that_its_own_record_refuses_is_told_as_refused(
    models: Models, kept: Refusing, digits_bundle: Path, second_version: Path, tmp_path: Path
) -> None:
    models.load(digits_bundle)
    models.load(second_version)
    (tmp_path / "file").write_text("")
    rollouts = control(models, kept, tmp_path / "file" / "folder")
    with pytest.raises(EnvironmentLackError):
        rollouts.promote(ADA, "digits", "2")
    assert models.current("digits") == "1"
    told = [one for one in kept.events if one.kind is EventKind.ROLLOUT_CHANGED]
    assert [(one.outcome, one.why) for one in told] == [(Outcome.DONE, None), (Outcome.REFUSED, "environment")]


# --- predictions ------------------------------------------------------------------------------------------------------


def test_predictions_tell_digest_and_counts_and_keep_no_pixels() -> None:
    kept = Kept()
    predictions = PredictionLog(kept, now=Clock())

    async def run() -> None:
        note_body(b"pixels of a face")
        with recording(predictions, ADA, "digits", None, 2) as asked:
            asked.answered("1", "fp32", 7)

    asyncio.run(run())
    predictions.close()
    (event,) = kept.events
    assert (event.kind, event.outcome, event.actor, event.subject, event.at) == (
        EventKind.PREDICTED, Outcome.DONE, "person:ada", "model:digits", NOON,
    )  # fmt: skip
    assert dict(event.details) == {
        "version": "1", "variant": "fp32", "images": 2, "predictions": 7, "bytes": 16, "id": "1",
        "sha256": hashlib.sha256(b"pixels of a face").hexdigest(),
    }  # fmt: skip
    assert "face" not in repr(event)


@pytest.mark.parametrize(
    ("error", "why"),
    [(NotFoundError("no"), "not-found"), (ValueError("bug"), "internal"), (asyncio.CancelledError(), "client-left")],
)
def test_refused_predictions_are_told_with_why(error: BaseException, why: str) -> None:
    kept = Kept()
    predictions = PredictionLog(kept, now=Clock())
    with pytest.raises(type(error)), recording(predictions, ADA, "x" * 500, "y" * 500, 1):
        raise error
    predictions.close()
    (event,) = kept.events
    assert (event.outcome, event.why) == (Outcome.REFUSED, why)
    assert event.subject == f"model:{'x' * 100}"


def test_bodies_that_wait_for_their_digest_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the thread cannot keep up, the caller makes the digest: none is left out, and memory does not grow."""
    monkeypatch.setattr("shipsight.serve.predicted._MOST_BYTES", 10)
    kept = Kept()
    predictions = PredictionLog(kept, now=Clock())

    async def run() -> None:
        for number in range(50):
            note_body(bytes([number]) * 11, is_next=True)
            with recording(predictions, ADA, "digits", None, 1):
                assert predictions._bytes <= 10

    asyncio.run(run())
    predictions.close()
    assert len({one.details["sha256"] for one in kept.events}) == 50


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_are_compared_with_the_start_before_of_the_same_server(log: AuditLog) -> None:
    events = AuditedEvents(log)
    from shipsight.access import Event

    def start(server: str, **options: str) -> dict[str, str]:
        told = tuple((f"--{name}", value) for name, value in options.items())
        changes = changes_since(log, server, told)
        details = {"options": told_options(told)}
        events.record(Event(NOON, EventKind.STARTED, Outcome.DONE, SERVER.told(), details=details))
        return changes

    assert start("one", host="127.0.0.1", behind="") == {}
    assert start("one", host="127.0.0.1", behind="") == {}
    assert start("one", host="0.0.0.0", behind="proxy", rate="5/second") == {
        "--host": "127.0.0.1 -> 0.0.0.0",
        "--behind": "none -> proxy",
        "--rate": "none -> 5/second",
    }
    assert changes_since(log, "two", (("--host", "::1"),)) == {}


def test_start_under_another_name_or_port_is_compared_with_the_newest_of_its_machine(log: AuditLog) -> None:
    from shipsight.access import Event

    events = AuditedEvents(log)
    for machine, behind in ((socket.gethostname(), "proxy"), ("elsewhere", "kserve")):
        details = {"options": [f"--behind={behind}"], "machine": machine}
        events.record(Event(NOON, EventKind.STARTED, Outcome.DONE, SERVER.told(), details=details))
    now = (("--behind", ""),)
    assert changes_since(log, "two", now) == {"--behind": "proxy -> none"}
    assert changes_since(log, "one:8001", now) == {"--behind": "kserve -> none"}


def test_changed_options_are_recorded_before_a_server_starts(log: AuditLog) -> None:
    from shipsight.access import Event

    events = AuditedEvents(log)
    details = {"options": ["--require-access=yes", "--tls-cert=/a=b"]}
    events.record(Event(NOON, EventKind.STARTED, Outcome.DONE, SERVER.told(), details=details))
    now = (("--require-access", "no"), ("--tls-cert", "/a=b"))
    starts_with(log, events, AuditOptions(server="one", configuration=now))
    (entry,) = log.entries(kinds=(EventKind.CONFIGURATION_CHANGED,))
    assert entry.event.details["--require-access"] == "yes -> no"
    assert set(entry.event.details) == {"--require-access", "user"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "postgresql://ada:s3cret@db/x?sslpassword=s3cret&sslmode=require",
            "postgresql://ada@db/x?sslpassword&sslmode",
        ),
        ("rediss://:s3cret@host:6379/0", "rediss://@host:6379/0"),
        ("https://user:s3cret@collector:4318", "https://user@collector:4318"),
        ("https://s3cret:@[::1", "an address that cannot be read"),
        ("/a/path", "/a/path"),
        ("postgresql://ada:s3cret#1@db:5432/x?sslpassword=s3cret", "postgresql://ada@db:5432/x?sslpassword"),
        ("postgresql://ada:/s3cret/@db/x", "postgresql://ada@db/x"),
        ("postgresql+psycopg://ada:s3cret?=s3cret@db/x", "postgresql+psycopg://..."),
        ("postgresql://db:5432/x?password=a@s3cret", "postgresql://..."),
        ("postgresql:///x?password=a@s3cret", "postgresql://..."),
        ("https://user:s3cret#1@collector:4318", "https://..."),
        ("https://user:/s3cret@collector", "https://..."),
        ("https://collector/x?token=a@s3cret", "https://..."),
    ],
)
def test_no_secret_of_an_address_is_told(given: str, told: str) -> None:
    assert without_secrets(given) == told
    assert "s3cret" not in without_secrets(given).replace("s3cret@[", "")


@pytest.mark.parametrize(
    "wrong",
    [{"server": "a b"}, {"server": ""}, {"server": "x" * 65}, {"every": 0}, {"seconds": 0.0}, {"copies": ("file:x",)},
     {"predictions": True}],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        AuditOptions(**wrong)


def test_options_survive_the_way_to_the_serving_process(tmp_path: Path) -> None:
    from dataclasses import asdict

    options = AuditOptions(
        "/a", tmp_path, ("file:/b",), 5, 2.0, predictions=True, server="one", configuration=(("--a", "b"),)
    )
    assert AuditOptions.from_dict(json.loads(json.dumps(asdict(options), default=str))) == options
