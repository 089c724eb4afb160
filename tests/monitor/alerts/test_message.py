# SPDX-License-Identifier: Apache-2.0
"""What a message says, to people and to machines, whatever names and figures are in it."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.monitor.alerts.signals import FIRES, NOON, settings

from shipsight.errors import CorruptError
from shipsight.monitor.alerts import Alert, Message, Reason
from shipsight.monitor.alerts.message import make_message, one_line, trial_message
from shipsight.monitor.alerts.standings import Key, advance

NOW = NOON.timestamp()
ALERT = advance({}, [FIRES], NOW, settings())[1][Key(FIRES.subject, FIRES.name)]
TEXT = """drift-brightness: warning since 2026-11-23T12:00:00Z
What:     Images are darker than those of the training.
Evidence: Median brightness 61 against 118, 400 images, p < 0.001.
Do this:  Look at the lamp of the camera.

Model:    gate/openvino-int8-640
Bundle:   sha256:beef
Time:     2026-11-23T12:00:00Z
Message:  {id}
"""


def made(*alerts: Alert, subject: str = FIRES.subject, bundle: str | None = "sha256:beef") -> Message:
    return make_message(subject, alerts or (ALERT,), now=NOW, source="here", bundle=bundle)


def test_text_says_what_how_one_knows_and_what_to_do() -> None:
    message = made()
    assert message.text == TEXT.format(id=message.id)
    assert message.title == "[shipsight] warning: drift-brightness (gate/openvino-int8-640)"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.AGAIN, "warning since 2026-11-23T12:00:00Z, still"),
        (Reason.WORSE, "warning since 2026-11-23T12:00:00Z, worse"),
        (Reason.QUIET, "resolved"),
        (Reason.UNSEEN, "resolved: nobody looks at it any more"),
    ],
)
def test_text_says_how_the_alert_stands(reason: Reason, status: str) -> None:
    assert made(replace(ALERT, reason=reason)).text.splitlines()[0] == f"drift-brightness: {status}"


def test_message_of_several_alerts_begins_with_the_worst_that_fires() -> None:
    over = replace(ALERT, name="a", severity="error", reason=Reason.QUIET)
    worst = replace(ALERT, name="z", severity="error")
    message = made(over, ALERT, worst)
    assert [one.name for one in message.alerts] == ["z", "drift-brightness", "a"]
    assert message.title == "[shipsight] error: z and 2 more (gate/openvino-int8-640)"
    assert made(over).title == "[shipsight] resolved: a (gate/openvino-int8-640)"


def test_message_of_one_happening_has_one_id_and_of_another_another() -> None:
    same = {made().id, make_message(FIRES.subject, [ALERT], now=NOW, source="here", bundle=None).id}
    others = {
        make_message(FIRES.subject, [ALERT], now=NOW, source="elsewhere", bundle=None).id,
        make_message(FIRES.subject, [ALERT], now=NOW + 1, source="here", bundle=None).id,
        make_message("other/x", [ALERT], now=NOW, source="here", bundle=None).id,
        make_message(FIRES.subject, [replace(ALERT, reason=Reason.QUIET)], now=NOW, source="here", bundle=None).id,
    }
    assert (len(same), len(others), same & others) == (1, 4, set())


def test_test_message_says_so() -> None:
    message = trial_message(NOW, "here")
    assert message.to_dict()["test"] is True
    assert message.title == "[shipsight] test: test (no model)"


@given(st.text(max_size=900))
def test_text_from_outside_becomes_one_harmless_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 500
    assert all(one == " " or unicodedata.category(one)[0] not in "CZ" for one in line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain text", "plain text"),
        ("two\r\nlines", "two lines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("half \ud800", "half \\ud800"),
        ("é ü 漢", "é ü 漢"),
        ("", ""),
    ],
)
def test_one_line_escapes_what_moves_things(text: str, line: str) -> None:
    assert one_line(text) == line


def test_message_survives_being_kept() -> None:
    message = made(ALERT, replace(ALERT, name="b", value=None))
    assert Message.from_state(json.loads(json.dumps(message.to_state()))) == message


@pytest.mark.parametrize(
    "change",
    [
        {"alerts": []},
        {"at": "yesterday"},
        {"at": 1e300},
        {"other": 1},
        {"alerts": [{"name": "x"}]},
        {"alerts": 3},
    ],
    ids=["none", "time", "far", "key", "short", "number"],
)
def test_kept_message_that_is_none_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(CorruptError):
        Message.from_state({**made().to_state(), **change})


def test_figures_that_json_has_not_are_left_out() -> None:
    strange = replace(FIRES, value=float("nan"), threshold=float("inf"))
    [alert] = advance({}, [strange], NOW, settings())[1].values()
    told = json.loads(json.dumps(made(alert).to_dict(), allow_nan=False))
    assert (told["alerts"][0]["value"], told["alerts"][0]["threshold"]) == (None, None)
