# SPDX-License-Identifier: Apache-2.0
"""One entry, proved to somebody who has no log: what is in the file is in the log, and nothing else is taken for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.access.audit.logs import Place, make_log

from shipsight.access.audit.checkpoint import Signer
from shipsight.access.audit.entry_proof import check_proof
from shipsight.access.audit.proving import prove
from shipsight.access.audit.reading import AuditReader
from shipsight.errors import AuditError, AuditProofError, NotFoundError


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("log")
    return make_log(str(folder / "log.db"), folder / "log.key")


def proof_of(place: Place, seq: int, *, with_values: bool = True) -> str:
    reader = AuditReader.open(place.url)
    try:
        return prove(reader, seq, with_values=with_values)
    finally:
        reader.close()


def size_of(place: Place) -> int:
    return int(place.rows("SELECT size FROM audit_head")[0][0])


def test_every_entry_of_a_log_is_proved(log: Place) -> None:
    entries = {one[0]: one[1] for one in log.rows("SELECT seq, kind FROM audit_records")}
    assert len(entries) == size_of(log)
    for seq, kind in entries.items():
        found = check_proof(proof_of(log, seq), [log.key])
        assert (found.entry.seq, found.entry.event.kind, found.withheld) == (seq, kind, ())
        assert found.checkpoint.size == size_of(log)


def test_entry_is_proved_without_what_is_personal(log: Place) -> None:
    whole = check_proof(proof_of(log, 5), [log.key])
    text = proof_of(log, 5, with_values=False)
    bare = check_proof(text, [log.key])
    event = whole.entry.event
    there = {"actor": event.actor, "address": event.address, "details": event.details, "subject": event.subject}
    assert bare.withheld == tuple(name for name, value in there.items() if value)
    assert "actor" in bare.withheld
    assert (bare.entry.event.kind, bare.entry.event.at) == (whole.entry.event.kind, whole.entry.event.at)
    assert whole.entry.event.actor not in text
    assert bare.entry.event.actor == ""


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_of_a_proof_is_taken(log: Place, data: st.DataObject) -> None:
    whole = proof_of(log, 5).encode()
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AuditProofError):
        check_proof(changed.decode("utf-8", "surrogateescape"), [log.key])


def test_value_of_another_entry_is_not_taken(log: Place) -> None:
    one, other = proof_of(log, 1).split("\n"), proof_of(log, 5).split("\n")
    one[2] = other[2]
    with pytest.raises(AuditProofError, match="not what was written"):
        check_proof("\n".join(one), [log.key])


def test_record_of_another_log_is_not_taken(log: Place, tmp_path: Path) -> None:
    other = make_log(str(tmp_path / "other.db"), tmp_path / "other.key")
    with pytest.raises(AuditProofError):
        check_proof(proof_of(other, 5), [log.key])
    mixed = proof_of(log, 5).partition("\n\n")[0] + "\n\n" + proof_of(other, 5).partition("\n\n")[2]
    with pytest.raises(AuditProofError, match="another place or log"):
        check_proof(mixed, [other.key])


def test_key_of_somebody_else_proves_nothing(log: Place) -> None:
    with pytest.raises(AuditProofError, match="nobody trusted"):
        check_proof(proof_of(log, 5), [Signer.generate(log.key.name).key])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "shipsight/audit-proof/v1",
        "shipsight/audit-proof/v1\n\n",
        "shipsight/audit-proof/v1\n{}\n{}\nindex 0\n\n",
    ],
)
def test_what_is_no_proof_is_refused(log: Place, text: str) -> None:
    with pytest.raises(AuditProofError):
        check_proof(text, [log.key])


@pytest.mark.parametrize(
    "values", ["[" * 100_000, "NaN", "[1]", '{"actor":["00","\\"x\\""]}', '{"other":1}', '{"actor":1}']
)
def test_values_that_are_none_are_refused(log: Place, values: str) -> None:
    lines = proof_of(log, 5).split("\n")
    lines[2] = values
    with pytest.raises(AuditProofError):
        check_proof("\n".join(lines), [log.key])


def test_entry_that_is_not_there_is_not_proved(log: Place) -> None:
    for seq in (-1, size_of(log)):
        with pytest.raises(NotFoundError):
            proof_of(log, seq)


def test_entry_that_no_checkpoint_covers_is_not_proved(tmp_path: Path) -> None:
    place = make_log(str(tmp_path / "log.db"), tmp_path / "log.key")
    place.run("DELETE FROM audit_checkpoints WHERE size > 12")
    assert check_proof(proof_of(place, 5), [place.key]).checkpoint.size == 12
    with pytest.raises(AuditError, match="no checkpoint covers"):
        proof_of(place, 20)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shipsight", "audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_proof_goes_to_somebody_without_the_log(log: Place, tmp_path: Path) -> None:
    file = tmp_path / "entry.proof"
    made = run("prove", "5", "--out", str(file), "--audit", log.url)
    assert made.returncode == 0, made.stderr
    assert run("prove", "5", "--out", str(file), "--audit", log.url).returncode == 2  # nothing is overwritten
    shown = run("check-proof", str(file), "--key", log.key.text)
    assert shown.returncode == 0, shown.stderr
    assert f"is entry 5 of {log.key.name}" in shown.stdout
    told = json.loads(run("check-proof", str(file), "--key", log.key.text, "--json").stdout)
    assert (told["entry"]["seq"], told["checkpoint"]["signed_by"]) == (5, [log.key.name])
    file.write_text(file.read_text().replace("done", "dona"))
    assert run("check-proof", str(file), "--key", log.key.text).returncode == 1


def test_checking_a_proof_needs_no_database() -> None:
    code = "import sys, shipsight.access.audit.entry_proof; print('sqlalchemy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "False\n"
