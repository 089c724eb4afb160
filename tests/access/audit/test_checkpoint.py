# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what they say comes back, nothing changed is taken, and a witness alone does not speak for a log."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.access.audit import checkpoint as module
from shipsight.access.audit.checkpoint import KeyKind, Signer, add_signatures, open_checkpoint, sign, sign_note
from shipsight.errors import AuditProofError, UsageError

LOG = Signer.generate("shipsight/one")
NEXT = Signer.generate("shipsight/one")
WITNESS = Signer.generate("witness.example/w1", KeyKind.COSIGNATURE)
ORIGIN = "shipsight/one"
ROOT = hashlib.sha256(b"root").digest()
AT = datetime(2026, 3, 1, 12, 30, 15, 42, UTC)


def body(*lines: str) -> str:
    return "".join(f"{one}\n" for one in lines)


def test_checkpoint_has_the_lines_that_other_tools_read() -> None:
    made = sign(LOG, origin=ORIGIN, size=20852163, root=ROOT, at=AT)
    lines = made.text.split("\n")
    assert lines[:5] == [ORIGIN, "20852163", base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15.000042Z", ""]
    assert lines[5].startswith("\N{EM DASH} shipsight/one ")
    assert lines[6:] == [""]


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32), st.datetimes(datetime(1971, 1, 1)))  # noqa: DTZ001 - its zone is given below
def test_checkpoint_comes_back(size: int, root: bytes, at: datetime) -> None:
    made = sign(LOG, origin=ORIGIN, size=size, root=root, at=at.replace(tzinfo=UTC))
    opened = open_checkpoint(made.text, [LOG.key], origin=ORIGIN)
    assert opened == made
    assert (opened.size, opened.root, opened.at) == (size, root, at.replace(tzinfo=UTC))
    assert made.text.startswith(made.body)


def test_time_of_another_zone_is_told_in_utc() -> None:
    made = sign(LOG, origin=ORIGIN, size=1, root=ROOT, at=AT.astimezone(timezone(timedelta(hours=5))))
    assert made.at == AT
    assert "T12:30:15" in made.text


@given(st.data())
def test_no_changed_byte_of_a_checkpoint_is_taken(data: st.DataObject) -> None:
    whole = sign(LOG, origin=ORIGIN, size=7, root=ROOT, at=AT).text.encode()
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AuditProofError):
        open_checkpoint(changed.decode("utf-8", "surrogateescape"), [LOG.key])


@pytest.mark.parametrize(
    "text",
    [
        body(ORIGIN, "7", base64.b64encode(ROOT).decode()),
        body(ORIGIN, "07", base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15.000000Z"),
        body(ORIGIN, "+7", base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15.000000Z"),
        body(
            ORIGIN, "\N{ARABIC-INDIC DIGIT SEVEN}", base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15.000000Z"
        ),
        body(ORIGIN, str(1 << 63), base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15.000000Z"),
        body(ORIGIN, "7", base64.b64encode(ROOT[:31]).decode(), "time 2026-03-01T12:30:15.000000Z"),
        body(ORIGIN, "7", base64.b64encode(ROOT).decode().rstrip("="), "time 2026-03-01T12:30:15.000000Z"),
        body(ORIGIN, "7", base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15Z"),
        body(ORIGIN, "7", base64.b64encode(ROOT).decode(), "time 2026-02-30T12:30:15.000000Z"),
        body(ORIGIN, "7", base64.b64encode(ROOT).decode(), "2026-03-01T12:30:15.000000Z"),
        body(ORIGIN, "7", base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15.000000Z", "", "x"),
        body("", "7", base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15.000000Z"),
    ],
    ids=[
        "no-time",
        "leading-zero",
        "plus",
        "other-digits",
        "too-large",
        "short-root",
        "other-base64",
        "no-micro",
        "no-day",
        "no-word",
        "blank-line",
        "no-origin",
    ],
)
def test_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(AuditProofError):
        open_checkpoint(sign_note(text, LOG), [LOG.key])


def test_further_lines_are_kept_and_signed() -> None:
    text = body(ORIGIN, "7", base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15.000000Z", "more to come")
    assert "more to come" in open_checkpoint(sign_note(text, LOG), [LOG.key]).body


def test_checkpoint_of_another_log_is_refused() -> None:
    made = sign(LOG, origin="shipsight/two", size=7, root=ROOT, at=AT)
    with pytest.raises(AuditProofError, match="another log"):
        open_checkpoint(made.text, [LOG.key], origin=ORIGIN)


def test_checkpoint_of_another_key_is_refused() -> None:
    with pytest.raises(AuditProofError, match="nobody trusted"):
        open_checkpoint(sign(LOG, origin=ORIGIN, size=7, root=ROOT, at=AT).text, [NEXT.key])


def test_witness_alone_does_not_sign_for_a_log() -> None:
    text = body(ORIGIN, "7", base64.b64encode(ROOT).decode(), "time 2026-03-01T12:30:15.000000Z")
    with pytest.raises(AuditProofError, match="not by its log"):
        open_checkpoint(sign_note(text, WITNESS, at=AT), [LOG.key, WITNESS.key])


def test_both_keys_sign_while_keys_change() -> None:
    made = sign(NEXT, origin=ORIGIN, size=7, root=ROOT, at=AT, also=[LOG])
    for keys in ([LOG.key], [NEXT.key], [LOG.key, NEXT.key]):
        assert open_checkpoint(made.text, keys).size == 7


def cosign(made: module.Checkpoint, witness: Signer = WITNESS) -> str:
    return witness.sign_line(made.body, AT)


def test_signature_of_a_witness_is_added_and_verified_again() -> None:
    made = sign(LOG, origin=ORIGIN, size=7, root=ROOT, at=AT)
    both = add_signatures(made, cosign(made), [WITNESS.key])
    assert both.text.startswith(made.text)
    opened = open_checkpoint(both.text, [LOG.key, WITNESS.key])
    assert [one.key for one in opened.cosignatures] == [WITNESS.key]
    assert opened.cosignatures[0].at == AT.replace(microsecond=0)
    assert open_checkpoint(both.text, [LOG.key]).cosignatures == ()


def test_signatures_of_unknown_witnesses_are_left_out() -> None:
    made = sign(LOG, origin=ORIGIN, size=7, root=ROOT, at=AT)
    stranger = Signer.generate("stranger", KeyKind.COSIGNATURE)
    both = add_signatures(made, cosign(made, stranger) + cosign(made), [WITNESS.key])
    assert both.text == made.text + cosign(made)
    with pytest.raises(AuditProofError, match="nobody trusted"):
        add_signatures(made, cosign(made, stranger), [WITNESS.key])


def test_signature_of_a_witness_over_another_checkpoint_is_refused() -> None:
    made, other = (sign(LOG, origin=ORIGIN, size=size, root=ROOT, at=AT) for size in (7, 8))
    with pytest.raises(AuditProofError):
        add_signatures(made, cosign(other), [WITNESS.key])


def test_signature_that_is_there_already_is_not_added_twice() -> None:
    made = sign(LOG, origin=ORIGIN, size=7, root=ROOT, at=AT)
    once = add_signatures(made, cosign(made), [WITNESS.key])
    assert add_signatures(once, cosign(made), [WITNESS.key]) == once


@pytest.mark.parametrize("origin", ["", "a\nb", "a\tb", "cosignature/v1"])
def test_origin_that_is_none_is_not_signed(origin: str) -> None:
    with pytest.raises((UsageError, AuditProofError)):
        sign(LOG, origin=origin, size=1, root=ROOT, at=AT)
