# SPDX-License-Identifier: Apache-2.0
"""Signed notes: another implementation's verify here, and nothing that was changed does."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipsight.access.audit.notes import KeyKind, Signer, VerifierKey, open_note, sign_note
from shipsight.errors import AuditProofError, EnvironmentLackError, UsageError

# From the documentation of golang.org/x/mod/sumdb/note: a key and a note that Go's package signed.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "\N{EM DASH} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The key of the Go project's checksum database: it is only said here how a key is written.
OTHER_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
AT = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
LOG = Signer.generate("shipsight/one")
WITNESS = Signer.generate("witness.example/w1", KeyKind.COSIGNATURE)
TEXT = "first\nsecond\n"


def test_note_that_go_signed_is_verified() -> None:
    note = open_note(GO_NOTE, [VerifierKey.parse(GO_KEY)])
    assert note.text.startswith("If you think")
    assert [one.key.name for one in note.signatures] == ["PeterNeumann"]


@pytest.mark.parametrize(
    "text", [GO_KEY, OTHER_KEY, LOG.key.text, WITNESS.key.text], ids=["of Go", "another", "log", "witness"]
)
def test_key_is_written_as_it_was_read(text: str) -> None:
    assert VerifierKey.parse(text).text == text


@given(st.data())
def test_no_changed_byte_of_a_note_is_taken(data: st.DataObject) -> None:
    signer = data.draw(st.sampled_from([LOG, WITNESS]))
    whole = sign_note(TEXT, signer, at=AT).encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AuditProofError):
        open_note(changed.decode("utf-8", "surrogateescape"), [signer.key])


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=50).map(lambda one: one + "\n"))
def test_text_of_any_kind_comes_back(text: str) -> None:
    note = open_note(sign_note(text, LOG), [LOG.key])
    assert note.text == text


def test_blank_lines_may_stand_in_a_text() -> None:
    note = open_note(sign_note("a\n\n\nb\n", LOG), [LOG.key])
    assert note.text == "a\n\n\nb\n"


def test_witness_signature_tells_when_it_was_made() -> None:
    note = open_note(sign_note(TEXT, LOG, WITNESS, at=AT), [LOG.key, WITNESS.key])
    assert [(one.key, one.at) for one in note.signatures] == [(LOG.key, None), (WITNESS.key, AT)]


def test_signatures_of_others_are_passed_over() -> None:
    note = open_note(sign_note(TEXT, LOG, WITNESS, at=AT), [WITNESS.key])
    assert [one.key for one in note.signatures] == [WITNESS.key]


def test_note_is_refused_when_a_trusted_signature_is_wrong_beside_a_right_one() -> None:
    right, wrong = sign_note(TEXT, LOG, at=AT), sign_note("other\n", WITNESS, at=AT)
    both = right + wrong.rpartition("\n\n")[2]
    assert open_note(both, [LOG.key]).text == TEXT
    with pytest.raises(AuditProofError, match="not over this text"):
        open_note(both, [LOG.key, WITNESS.key])


def test_note_is_refused_when_nobody_trusted_signed_it() -> None:
    with pytest.raises(AuditProofError, match="nobody trusted"):
        open_note(sign_note(TEXT, LOG), [Signer.generate("shipsight/one").key])
    with pytest.raises(AuditProofError, match="nobody trusted"):
        open_note(sign_note(TEXT, LOG), [])


def test_key_of_the_same_name_for_another_kind_is_another_key() -> None:
    same = VerifierKey(LOG.key.name, LOG.key.public, KeyKind.COSIGNATURE)
    assert same.id != LOG.key.id
    with pytest.raises(AuditProofError):
        open_note(sign_note(TEXT, LOG), [same])


LINE = sign_note(TEXT, LOG).split("\n\n")[1]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "\n\n",
        TEXT,
        f"{TEXT}\n",
        f"{TEXT}{LINE}",
        f"{TEXT}\n{LINE.rstrip()}",
        f"{TEXT}\n{LINE}\n",
        f"{TEXT}\n-{LINE[1:]}",
        f"{TEXT}\n{LINE.replace('=', '')}",
        f"{TEXT}\n{LINE.rstrip()} \n",
        f"{TEXT}\n\N{EM DASH} shipsight/one\n",
        f"{TEXT}\n\N{EM DASH} shipsight/one AAAA\n",
        f"{TEXT}\n\N{EM DASH} ship+sight AAAAAAA=\n",
        f"a\tb\n\n{LINE}",
        f"{TEXT}\r\n\n{LINE}",
        f"\ud800\n\n{LINE}",
        f"{TEXT}\n" + LINE * 65,
        "x" * 70_000 + f"\n\n{LINE}",
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(AuditProofError):
        open_note(note, [LOG.key])


@pytest.mark.parametrize("text", ["", "no line end", "a\tb\n", "a\0\n", "cosignature/v1\ntime 1\nx\n"])
def test_text_that_cannot_be_a_notes_is_not_signed(text: str) -> None:
    with pytest.raises(UsageError):
        sign_note(text, LOG)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b",
        "name+00000000+AAAA",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("Peter", "Piter"),
        GO_KEY + "AA",
        GO_KEY.replace("+ARpc", "+CRpc"),
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        VerifierKey.parse(text)


def test_key_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.key"
    first = Signer.load(path, make=True, name="shipsight/x")
    again = Signer.load(path, make=True, name="shipsight/y")
    assert first.key == again.key
    assert first.key.name == "shipsight/x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["audit.key"]
    assert open_note(sign_note(TEXT, first), [again.key]).text == TEXT


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    Signer.load(path, make=True)
    path.chmod(0o640)
    with pytest.raises(EnvironmentLackError, match="others may read"):
        Signer.load(path)


def test_key_that_is_not_there_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLackError):
        Signer.load(tmp_path / "audit.key")


def test_key_of_a_witness_does_not_sign_for_a_log(tmp_path: Path) -> None:
    Signer.load(tmp_path / "key", make=True, kind=KeyKind.COSIGNATURE)
    with pytest.raises(UsageError, match="signs something else"):
        Signer.load(tmp_path / "key")


@given(st.integers(0, 200), st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_of_a_key_file_is_taken(tmp_path: Path, at: int, bits: int) -> None:
    path = tmp_path / "key"
    if not path.exists():
        LOG.save(tmp_path / "key")
    whole = path.read_bytes()
    changed = bytearray(whole)
    at %= len(whole) - 1  # the line end may be another blank
    changed[at] ^= bits
    other = tmp_path / "changed"
    other.write_bytes(changed)
    other.chmod(0o600)
    with pytest.raises((UsageError, EnvironmentLackError)):
        Signer.load(other)


@pytest.mark.parametrize("content", [b"", b"PRIVATE+KEY+", b"PRIVATE+KEY+a+00000000+AAAA", b"\xff\xfe", b"ssk_x"])
def test_error_about_a_key_file_holds_nothing_of_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises((UsageError, EnvironmentLackError)) as caught:
        Signer.load(path)
    assert "AAAA" not in str(caught.value)
    assert "ssk_x" not in str(caught.value)


def test_signer_shows_no_private_key(tmp_path: Path) -> None:
    LOG.save(tmp_path / "key")
    secret = (tmp_path / "key").read_text().split("+")[-1].strip()
    assert secret not in repr(LOG)
    assert LOG.key.text in repr(LOG)
