# SPDX-License-Identifier: Apache-2.0
"""Alerts as a whole, with real receivers: nobody waits, nothing is lost, nothing is told twice, whatever ends in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.monitor.alerts.receivers import KEY, PASSWORD, Trust, mail_server, secret, silent, webhook
from tests.monitor.alerts.signals import FIRES, NOON, QUIET, after, settings
from tests.small_disk import mounted

from shipsight.errors import CorruptError, EnvironmentLackError, UsageError
from shipsight.monitor.alerts import Alerts, Email, Key, Message, Pace, Phase, Webhook, try_receivers
from shipsight.monitor.signal import Signal

SOURCE = Path(__file__).resolve().parents[3] / "src"
SOON = Pace(first_wait_s=0.05, longest_wait_s=0.2)
SLOW = Pace(first_wait_s=60, longest_wait_s=60)


def hooked(folder: Path, url: str, trust: Trust, name: str = "ops", **told: Any) -> Webhook:
    return Webhook(
        name=name, url=url, key_file=secret(folder, KEY, "key"), ca_file=trust.ca, **{"timeout_s": 5, **told}
    )


@contextmanager
def opened(folder: Path, *receivers: Any, pace: Pace = SOON, **told: Any) -> Iterator[Alerts]:
    """Alerts whose messages are as old as their evaluations."""
    made = Alerts(settings(*receivers, **told), folder / "state" / "alerts.json", pace=pace, now=lambda: NOON)
    try:
        yield made
    finally:
        made.close(0.2)


def named(number: int, subject: str = FIRES.subject) -> Signal:
    return replace(FIRES, name=f"drift-{number}", subject=subject)


def wait_until(is_so: Any, timeout_s: float = 20.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < until_s, "it did not come true in time"
        time.sleep(0.01)


def test_alert_begins_goes_on_and_ends_at_every_receiver(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook, mail_server(trust) as post:
        duty = Email(
            name="duty",
            host="localhost",
            port=post.port,
            sender="shipsight@example.com",
            to=("ops@example.com",),
            user="ops",
            password_file=secret(tmp_path, PASSWORD, "password"),
            ca_file=trust.ca,
        )
        with opened(tmp_path, hooked(tmp_path, hook.url, trust), duty) as alerts:
            made: list[Message] = []
            for seconds, one in ((0, FIRES), (60, FIRES), (3600, FIRES), (3700, QUIET), (3760, QUIET), (3800, QUIET)):
                made += alerts.take([one], after(seconds))
            assert alerts.close(20)
    assert [[one.reason.value for one in message.alerts] for message in made] == [["new"], ["again"], ["quiet"]]
    assert [json.loads(one.body)["id"] for one in hook.asked] == [one.id for one in made]
    assert [post.letter(index)["Subject"] for index in range(3)] == [one.title for one in made]
    assert [(one.name, one.sent, one.failed, one.dropped, one.waiting) for one in alerts.state.receivers] == [
        ("ops", 3, 0, 0, 0),
        ("duty", 3, 0, 0, 0),
    ]


def test_alerts_of_one_evaluation_and_subject_are_one_message(tmp_path: Path, trust: Trust) -> None:
    told = [named(1), named(2), named(3, "other/x")]
    with webhook(trust) as hook, opened(tmp_path, hooked(tmp_path, hook.url, trust)) as alerts:
        messages = alerts.take(told, NOON)
        hook.wait(2)
    assert [(one.subject, len(one.alerts)) for one in messages] == [("gate/openvino-int8-640", 2), ("other/x", 1)]


def test_alerts_are_messages_of_their_own_where_that_is_wanted(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook, opened(tmp_path, hooked(tmp_path, hook.url, trust), group=False) as alerts:
        assert [len(one.alerts) for one in alerts.take([named(1), named(2)], NOON)] == [1, 1]
        hook.wait(2)


def test_message_names_the_bundle(tmp_path: Path) -> None:
    bundles = {FIRES.subject: "sha256:beef"}
    told = settings(Webhook(name="ops", url="https://localhost:9/", key_file=secret(tmp_path, KEY, "key")))
    alerts = Alerts(told, tmp_path / "alerts.json", bundle_of=bundles.get, pace=SLOW)
    try:
        found = {one.subject: one.bundle for one in alerts.take([FIRES, named(1, "other/x")], datetime.now(UTC))}
    finally:
        alerts.close(0.1)
    assert found == {FIRES.subject: "sha256:beef", "other/x": None}


def test_receiver_that_fails_gets_the_message_later_with_the_same_id_and_a_new_time(
    tmp_path: Path, trust: Trust
) -> None:
    with webhook(trust) as hook:
        hook.answers = [500, None, 503, 200]
        with opened(tmp_path, hooked(tmp_path, hook.url, trust)) as alerts:
            [message] = alerts.take([FIRES], NOON)
            hook.wait(4)
            wait_until(lambda: alerts.state.receivers[0].sent == 1)
            assert alerts.state.receivers[0].error is None
    assert hook.ids == [message.id] * 4


def test_refused_message_is_counted_and_not_tried_again(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        hook.answers = [404]
        with opened(tmp_path, hooked(tmp_path, hook.url, trust)) as alerts:
            [first] = alerts.take([FIRES], NOON)
            wait_until(lambda: alerts.state.receivers[0].failed == 1)
            assert "404" in str(alerts.state.receivers[0].error)
            [second] = alerts.take([named(1)], NOON)
            hook.wait(2)
    assert hook.ids == [first.id, second.id]


def test_message_that_is_too_old_is_given_up(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        hook.answers = [500] * 100
        with opened(tmp_path, hooked(tmp_path, hook.url, trust), pace=replace(SOON, give_up_s=100)) as alerts:
            alerts.take([FIRES], after(-100))
            wait_until(lambda: alerts.state.receivers[0].failed == 1)
            [young] = alerts.take([named(1)], after(-99))
            wait_until(lambda: len(hook.asked) > 4)
            assert alerts.state.receivers[0].waiting == 1
    assert set(hook.ids[1:]) == {young.id}


def test_waits_between_tries_double_and_differ(tmp_path: Path, trust: Trust) -> None:
    from shipsight.monitor.alerts.delivering import Deliverer

    deliverer = Deliverer("ops", None, None, None, [], pace=Pace(2, 300), now=lambda: NOON)  # type: ignore[arg-type]
    for tries, most_s in ((1, 2), (2, 4), (5, 32), (9, 300), (10_000, 300)):
        deliverer._tries = tries
        waits = [deliverer._wait_s() for _ in range(200)]
        assert all(most_s / 2 <= one <= most_s for one in waits)
        assert len(set(waits)) > 100


def test_receiver_that_hangs_holds_up_neither_the_caller_nor_other_receivers(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook, silent() as port:
        stuck = Webhook(name="stuck", url=f"https://127.0.0.1:{port}/", key_file=secret(tmp_path, KEY, "key"))
        with opened(tmp_path, stuck, hooked(tmp_path, hook.url, trust)) as alerts:
            begin_s = time.monotonic()
            for number in range(20):
                alerts.take([named(number)], after(number))
            assert time.monotonic() - begin_s < 5
            hook.wait(20)
            assert alerts.state.receivers[0].waiting == 20
            begin_s = time.monotonic()
            assert not alerts.close(0.5)
            assert time.monotonic() - begin_s < 3


def test_oldest_that_wait_are_dropped_and_counted(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        hook.is_let.clear()
        pace = replace(SOON, most_waiting=3)
        with opened(tmp_path, hooked(tmp_path, hook.url, trust, timeout_s=30), pace=pace) as alerts:
            made = list(alerts.take([named(0)], NOON))
            hook.wait(1)  # it is being sent
            for number in range(1, 7):
                made += alerts.take([named(number)], after(number))
            assert (alerts.state.receivers[0].dropped, alerts.state.receivers[0].waiting) == (4, 3)
            hook.is_let.set()
            wait_until(lambda: alerts.state.receivers[0].sent == 3)
    assert hook.ids == [made[0].id, made[5].id, made[6].id]


def test_restart_neither_repeats_nor_loses_an_alert(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        receiver = hooked(tmp_path, hook.url, trust)
        with opened(tmp_path, receiver, for_s=300) as alerts:
            assert alerts.take([FIRES, named(1)], NOON) == ()
            assert alerts.close(5)
        with opened(tmp_path, receiver, for_s=300) as alerts:
            assert len(alerts.take([FIRES], after(300))) == 1
            assert alerts.close(5)
        with opened(tmp_path, receiver, for_s=300) as alerts:
            assert alerts.state.standings[Key(FIRES.subject, FIRES.name)].phase is Phase.FIRING
            assert alerts.take([FIRES], after(360)) == ()
            assert alerts.take([QUIET], after(400)) == ()
            assert alerts.close(5)
        with opened(tmp_path, receiver, for_s=300) as alerts:
            [resolved] = alerts.take([QUIET], after(460))
            assert alerts.close(5)
    assert len(hook.ids) == 2
    assert hook.ids[1] == resolved.id


def test_what_waits_is_sent_after_a_restart_in_order(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        hook.answers = [503, 503]
        receiver = hooked(tmp_path, hook.url, trust)
        with opened(tmp_path, receiver, pace=SLOW) as alerts:
            made = [one for number in range(3) for one in alerts.take([named(number)], after(number))]
            hook.wait(1)
            assert not alerts.close(5)
        assert not alerts.state.receivers[0].sent
        hook.answers = []
        before = len(hook.asked)
        with opened(tmp_path, receiver):
            hook.wait(before + 3)
    assert hook.ids[before:] == [one.id for one in made]


def test_message_waits_for_those_receivers_alone_that_do_not_have_it(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as one, webhook(trust) as other:
        other.answers = [503, 503]
        receivers = hooked(tmp_path, one.url, trust), hooked(tmp_path, other.url, trust, "other")
        with opened(tmp_path, *receivers, pace=SLOW) as alerts:
            alerts.take([FIRES], NOON)
            other.wait(1)
            assert not alerts.close(5)
        other.answers = []
        before = len(other.asked)
        with opened(tmp_path, *receivers):
            other.wait(before + 1)
    assert (len(one.asked), set(one.ids)) == (1, set(other.ids))


def test_receiver_that_the_settings_name_no_more_gets_nothing(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook, silent() as port:
        gone = Webhook(name="gone", url=f"https://127.0.0.1:{port}/", key_file=secret(tmp_path, KEY, "key"))
        with opened(tmp_path, gone, pace=SLOW) as alerts:
            alerts.take([FIRES], NOON)
        with opened(tmp_path, hooked(tmp_path, hook.url, trust)) as alerts:
            assert alerts.state.receivers[0].waiting == 0
            alerts.take([FIRES], after(60))
            assert alerts.close(5)
    assert hook.asked == []


CHILD = """
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from shipsight.monitor.alerts import Alerts, AlertSettings, Pace, Webhook
from shipsight.monitor.signal import Signal

url, ca, key, state, begin = sys.argv[1:]
signal = Signal(name="", severity="error", what="w", evidence="e", remedy="r", is_firing=True, value=None, threshold=None, subject="m/v")
hook = Webhook(name="ops", url=url, ca_file=Path(ca), key_file=Path(key))
settings = AlertSettings(receivers=(hook,), for_s=0, repeat_s=86400)
alerts = Alerts(settings, Path(state), pace=Pace(0.01, 0.05, most_waiting=1000))
print("open", flush=True)
number = int(begin)
while True:
    alerts.take([replace(signal, name=f"drift-{number}")], datetime.now(UTC))
    print(number, flush=True)
    number += 1
"""


def test_killed_process_loses_no_alert_and_tells_none_under_two_ids(tmp_path: Path, trust: Trust) -> None:
    state, begin, kills = tmp_path / "alerts.json", 0, 0
    key = secret(tmp_path, KEY, "key")
    with webhook(trust) as hook:
        for lives_s in (0.0, 0.03, 0.11, 0.2, 0.31):
            command = [sys.executable, "-c", CHILD, hook.url, str(trust.ca), str(key), str(state), str(begin)]
            environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "open\n"
                time.sleep(lives_s)
                process.send_signal(signal.SIGKILL)
                said = [int(one) for one in process.stdout.read().split()]
                kills += process.wait(30) == -signal.SIGKILL
            # The one that it was taking is told of again, as by an evaluation that comes once more.
            begin = said[-1] + 1 if said else begin
        receiver = Webhook(name="ops", url=hook.url, key_file=key, ca_file=trust.ca)
        last = Alerts(
            settings(receiver, repeat_s=86400, least_severity="error"), state, pace=replace(SOON, most_waiting=1000)
        )
        assert last.close(60)
        assert last.state.receivers[0].failed == 0
    assert kills == 5
    assert begin > 10
    told = [(json.loads(one.body)["alerts"][0]["name"], one.headers["webhook-id"]) for one in hook.asked]
    names = {name for name, _ in told}
    assert {f"drift-{number}" for number in range(begin)} <= names
    assert len(names) == len(set(told)), "an alert was told under two ids"
    again = Counter(told)
    assert sum(count - 1 for count in again.values()) <= kills
    # Nothing was left behind half written.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alerts.json", "alerts.json.lock", "key"]


def test_one_process_at_a_time_has_a_state(tmp_path: Path, trust: Trust) -> None:
    receiver = hooked(tmp_path, "https://localhost:9/", trust)
    with opened(tmp_path, receiver), pytest.raises(UsageError, match="another process"), opened(tmp_path, receiver):
        pass
    with opened(tmp_path, receiver) as alerts:
        assert alerts.state.is_kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"schema": 2, "source": "a", "standings": [], "waiting": []}',
        '{"schema": 1, "source": 3, "standings": [], "waiting": []}',
        '{"schema": 1, "source": "a", "standings": [["a", "b", {"phase": "firing"}]], "waiting": []}',
        '{"schema": 1, "source": "a", "standings": [], "waiting": [[{}, ["ops"]]]}',
        "[" * 100_000,
    ],
    ids=["empty", "torn", "list", "schema", "source", "standing", "message", "deep"],
)
def test_state_that_is_none_is_refused_with_what_to_do(tmp_path: Path, trust: Trust, text: str) -> None:
    path = tmp_path / "state" / "alerts.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(CorruptError) as caught, opened(tmp_path, hooked(tmp_path, "https://localhost:9/", trust)):
        pass
    assert caught.value.where == str(path)
    assert caught.value.hint is not None
    path.unlink()
    with opened(tmp_path, hooked(tmp_path, "https://localhost:9/", trust)) as alerts:  # the lock was let go
        assert alerts.state.standings == {}


def test_state_is_its_owners_alone(tmp_path: Path, trust: Trust) -> None:
    with opened(tmp_path, hooked(tmp_path, "https://localhost:9/", trust)):
        path = tmp_path / "state" / "alerts.json"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_place_where_nothing_can_be_kept_is_refused_at_the_start(tmp_path: Path, trust: Trust) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(EnvironmentLackError), opened(tmp_path, hooked(tmp_path, "https://localhost:9/", trust)):
        pass


def test_alerts_are_sent_where_the_disk_is_full_and_that_is_said(tmp_path: Path, trust: Trust) -> None:
    with (
        mounted(tmp_path / "disk") as disk,
        webhook(trust) as hook,
        opened(disk, hooked(tmp_path, hook.url, trust)) as alerts,
    ):
        filler = disk / "filler"
        fill(filler)
        alerts.take([named(number) for number in range(200)], NOON)
        hook.wait(1)
        wait_until(lambda: alerts.state.receivers[0].sent == 1)
        assert not alerts.state.is_kept
        filler.unlink()
        alerts.take([], after(60))
        assert alerts.state.is_kept


def fill(path: Path) -> None:
    """Writes a file until the disk is full."""

    def write(file: Any) -> None:
        while file.write(bytes(4096)):
            pass

    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        write(file)


def test_closed_alerts_take_nothing(tmp_path: Path, trust: Trust) -> None:
    with opened(tmp_path, hooked(tmp_path, "https://localhost:9/", trust)) as alerts:
        assert alerts.close()
        assert alerts.close()
        with pytest.raises(UsageError, match="closed"):
            alerts.take([FIRES], NOON)


def test_test_message_is_sent_once_to_each_receiver_and_says_what_became_of_it(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as one, webhook(trust) as other:
        other.answers = [500, 200]
        receivers = (
            hooked(tmp_path, one.url, trust),
            hooked(tmp_path, other.url, trust, "other"),
            Webhook(name="third", url="https://localhost:9/", key_file=tmp_path / "absent"),
        )
        found = try_receivers(settings(*receivers), now=NOON)
    assert [one.receiver for one in found] == ["ops", "other", "third"]
    assert found[0].error is None
    assert "500" in str(found[1].error)
    assert "absent" in str(found[2].error)
    assert (len(one.asked), len(other.asked)) == (1, 1)
    assert json.loads(one.asked[0].body)["test"] is True
