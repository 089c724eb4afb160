# SPDX-License-Identifier: Apache-2.0
"""A witness: whatever it is asked, what it has signed of a log is one tree that only grew."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.access.audit.trees import AT, Tree

from shipsight.access.audit.checkpoint import KeyKind, Signer, add_signatures, open_checkpoint
from shipsight.access.audit.merkle import consistency_proof, verify_consistency
from shipsight.access.audit.witness import Witness, parse_logs
from shipsight.errors import AuditProofError, EnvironmentLackError, UsageError

SIGNER = Signer.generate("witness.example/w1", KeyKind.COSIGNATURE)


def witness_of(folder: Path, *trees: Tree, signer: Signer = SIGNER) -> Witness:
    return Witness(folder, signer, {one.origin: (one.signer.key,) for one in trees}, lambda: AT)


def test_first_checkpoint_is_signed_without_a_proof(tmp_path: Path) -> None:
    tree = Tree(5)
    answer = witness_of(tmp_path, tree).add(tree.request(0))
    assert answer.status == 200
    signed = add_signatures(tree.checkpoint(), answer.text, [SIGNER.key])
    assert signed.cosignatures[0].at == AT


def test_tree_that_has_grown_is_signed(tmp_path: Path) -> None:
    tree = Tree(5)
    witness = witness_of(tmp_path, tree)
    assert witness.add(tree.request(0)).status == 200
    for more, old in ((0, 5), (1, 5), (100, 6), (7, 106)):
        tree.grow(more)
        assert witness.add(tree.request(old)).status == 200
    assert open_checkpoint(witness.newest(tree.origin).text, [SIGNER.key, tree.signer.key]).size == 113


def test_smaller_tree_is_never_signed(tmp_path: Path) -> None:
    tree = Tree(100)
    witness = witness_of(tmp_path, tree)
    witness.add(tree.request(0))
    for old in (0, 50, 99):
        answer = witness.add(tree.request(old, 99))
        assert (answer.status, answer.text, answer.kind) == (409, "100\n", "text/x.tlog.size")
    assert witness.add(tree.request(100, 99)).status == 400
    assert open_checkpoint(witness.newest(tree.origin).text, [tree.signer.key]).size == 100


def test_log_that_was_written_anew_is_not_signed_though_its_own_key_signs_it(tmp_path: Path) -> None:
    tree = Tree(100)
    witness = witness_of(tmp_path, tree)
    witness.add(tree.request(0))
    other = tree.changed(40).grow(20)
    answer = witness.add(other.request(100))
    assert answer.status == 422
    assert open_checkpoint(witness.newest(tree.origin).text, [tree.signer.key]).root == tree.frontier().root()


def test_two_trees_of_one_size_are_evidence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = Tree(100)
    witness = witness_of(tmp_path, tree)
    witness.add(tree.request(0))
    other = tree.changed(40)
    answer = witness.add(other.request(100))
    assert (answer.status, answer.text) == (409, "100\n")
    kept = [one.read_text() for one in tmp_path.glob("*.split-*")]
    assert len(kept) == 1
    first, second = kept[0].removesuffix("\n").split("\n\n\N{EM DASH}")[0], other.checkpoint().text
    assert first in tree.checkpoint().text
    assert second in kept[0]
    assert "two trees of one size" in caplog.text
    witness.add(other.request(100))
    assert len(list(tmp_path.glob("*.split-*"))) == 1


def test_evidence_does_not_fill_the_disk(tmp_path: Path) -> None:
    tree = Tree(30)
    witness = witness_of(tmp_path, tree)
    witness.add(tree.request(0))
    for index in range(30):
        assert witness.add(tree.changed(index).request(30)).status == 409
    assert len(list(tmp_path.glob("*.split-*"))) == 16


def test_wrong_old_size_is_told_the_right_one(tmp_path: Path) -> None:
    tree = Tree(10)
    witness = witness_of(tmp_path, tree)
    assert (witness.add(tree.request(3)).status, witness.add(tree.request(3)).text) == (409, "0\n")
    witness.add(tree.request(0))
    tree.grow(5)
    assert witness.add(tree.request(0)).text == "10\n"
    assert witness.add(tree.request(12)).text == "10\n"


def test_log_that_is_not_watched_is_not_signed(tmp_path: Path) -> None:
    answer = witness_of(tmp_path, Tree(5)).add(Tree(5, origin="shipsight/other").request(0))
    assert answer.status == 404


def test_key_that_is_not_the_logs_is_refused(tmp_path: Path) -> None:
    answer = witness_of(tmp_path, Tree(5)).add(Tree(5).request(0))
    assert answer.status == 403


def test_key_of_another_watched_log_is_refused(tmp_path: Path) -> None:
    one, two = Tree(5), Tree(5, origin="shipsight/two")
    forged = Tree(5, origin="shipsight/two", signer=one.signer)
    assert witness_of(tmp_path, one, two).add(forged.request(0)).status == 403


def test_witness_does_not_take_its_own_signature_for_the_logs(tmp_path: Path) -> None:
    tree = Tree(5)
    body = tree.checkpoint().body
    text = body + "\n" + SIGNER.sign_line(body, AT)
    assert witness_of(tmp_path, tree).add(f"old 0\n\n{text}".encode()).status == 403


def test_logs_do_not_mix(tmp_path: Path) -> None:
    one, two = Tree(5), Tree(9, origin="shipsight/two")
    witness = witness_of(tmp_path, one, two)
    assert witness.add(one.request(0)).status == 200
    assert witness.add(two.request(0)).status == 200
    assert open_checkpoint(witness.newest(one.origin).text, [SIGNER.key], needs_log=False).size == 5
    assert open_checkpoint(witness.newest(two.origin).text, [SIGNER.key], needs_log=False).size == 9


def test_proof_where_nothing_was_signed_before_is_refused(tmp_path: Path) -> None:
    tree = Tree(5)
    body = tree.request(2).replace(b"old 2", b"old 0")
    assert witness_of(tmp_path, tree).add(body).status == 422


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_of_a_request_is_signed_as_something_else(tmp_path: Path, data: st.DataObject) -> None:
    tree = Tree(11)
    folder = tmp_path / os.urandom(8).hex()
    witness = witness_of(folder, tree)
    witness.add(tree.request(0, 6))
    body = bytearray(tree.request(6))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    assert witness.add(bytes(body)).status in (400, 403, 404, 409, 422)
    assert open_checkpoint(witness.newest(tree.origin).text, [tree.signer.key]).size == 6
    witness.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"\n\n",
        b"old 0",
        b"old 0\n",
        b"old 0\n\n",
        b"old -1\n\nx\n",
        b"old 01\n\nx\n",
        b"old 99999999999999999999\n\nx\n",
        b"old 9223372036854775808\n\nx\n",
        b"OLD 0\n\nx\n",
        b"old 0\nnot base64!\n\nx\n",
        b"old 0\n" + b"AAAA\n" * 64 + b"\nx\n",
        b"\xff\xfe\n\n",
        b"old 0\r\n\r\nx",
    ],
)
def test_malformed_request_is_refused(tmp_path: Path, body: bytes) -> None:
    assert witness_of(tmp_path, Tree(1)).add(body).status == 400


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans()), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_is_asked_all_that_was_signed_is_one_growing_tree(
    tmp_path: Path, asked: list[tuple[int, int, bool]]
) -> None:
    tree = Tree(40)
    other = tree.changed(3)
    folder = tmp_path / os.urandom(8).hex()
    witness = witness_of(folder, tree)
    signed = []
    for old, size, is_other in asked:
        chosen = other if is_other else tree
        answer = witness.add(chosen.request(old, size))
        if answer.status == 200:
            signed.append((chosen, chosen.checkpoint(size)))
        if old % 3 == 0:  # ends, and begins anew with what it wrote down
            witness.close()
            witness = witness_of(folder, tree)
    witness.close()
    for (_, before), (chosen, after) in itertools.pairwise(signed):
        assert before.size <= after.size
        if before.size:
            proof = consistency_proof(chosen.read, before.size, after.size)
            verify_consistency(before.size, before.root, after.size, after.root, proof)


def test_what_was_signed_is_known_after_a_restart(tmp_path: Path) -> None:
    tree = Tree(10)
    first = witness_of(tmp_path, tree)
    first.add(tree.request(0))
    first.close()
    assert witness_of(tmp_path, tree).add(tree.request(0, 5)).text == "10\n"


def test_two_requests_at_once_do_not_roll_back(tmp_path: Path) -> None:
    tree = Tree(200)
    witness = witness_of(tmp_path, tree)
    witness.add(tree.request(0, 1))
    bodies = [tree.request(1, size) for size in range(2, 42)]
    answers: list[int] = []
    threads = [threading.Thread(target=lambda one=body: answers.append(witness.add(one).status)) for body in bodies]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(answers) == [200] + [409] * 39


def test_folder_is_kept_by_one_process(tmp_path: Path) -> None:
    tree = Tree(1)
    first = witness_of(tmp_path, tree)
    with pytest.raises(EnvironmentLackError, match="another process"):
        witness_of(tmp_path, tree)
    first.close()
    witness_of(tmp_path, tree).close()


def test_state_that_was_changed_is_refused_at_start(tmp_path: Path) -> None:
    tree = Tree(10)
    first = witness_of(tmp_path, tree)
    first.add(tree.request(0))
    first.close()
    path = next(tmp_path.glob("*.checkpoint"))
    path.write_text(path.read_text().replace("\n10\n", "\n9\n"))
    with pytest.raises(AuditProofError, match="was changed"):
        witness_of(tmp_path, tree)


def test_nothing_is_signed_when_it_cannot_be_written_down(tmp_path: Path) -> None:
    tree = Tree(10)
    witness = witness_of(tmp_path, tree)
    witness.add(tree.request(0, 5))
    name = next(tmp_path.glob("*.checkpoint")).name
    (tmp_path / f".{name}.new").mkdir()  # stands in the way of the next file
    with pytest.raises(OSError, match="Is a directory"):
        witness.add(tree.request(5))
    (tmp_path / f".{name}.new").rmdir()
    assert open_checkpoint(witness.newest(tree.origin).text, [tree.signer.key]).size == 5
    assert witness.add(tree.request(5)).status == 200


KILLED = """
import os, signal, sys
from pathlib import Path
from shipsight.access.audit.checkpoint import KeyKind, Signer, VerifierKey
from shipsight.access.audit.witness import Witness

folder, key, body = Path(sys.argv[1]), VerifierKey.parse(sys.argv[2]), sys.stdin.buffer.read()
signer = Signer.load(folder.parent / "key", kind=KeyKind.COSIGNATURE)
witness = Witness(folder, signer, {key.name: (key,)})
real, count = os.fsync, 0

def fsync(file):
    global count
    count += 1
    if count == int(sys.argv[3]):
        if len(sys.argv) > 4:
            real(file)
        os.kill(os.getpid(), signal.SIGKILL)
    real(file)

os.fsync = fsync
print(witness.add(body).text)
"""


@pytest.mark.parametrize("which", ["1", "2"], ids=["file", "folder"])
@pytest.mark.parametrize("when", [(), ("after",)], ids=["before", "after"])
def test_witness_that_is_killed_between_its_disk_and_its_answer_contradicts_nothing(
    tmp_path: Path, which: str, when: tuple[str, ...]
) -> None:
    tree = Tree(10)
    signer = Signer.load(tmp_path / "key", make=True, name="w", kind=KeyKind.COSIGNATURE)
    folder = tmp_path / "state"
    first = witness_of(folder, tree, signer=signer)
    first.add(tree.request(0, 5))
    first.close()
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), tree.signer.key.text, which, *when],
        input=tree.request(5),
        capture_output=True,
        timeout=60,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert ran.stdout == b""
    again = witness_of(folder, tree, signer=signer)
    size = open_checkpoint(again.newest(tree.origin).text, [tree.signer.key]).size
    assert size == (5 if which == "1" else 10)
    # The log's server asks again, learns the size that the witness knows, and gets its signature.
    answer = again.add(tree.request(5))
    if answer.status == 409:
        answer = again.add(tree.request(int(answer.text)))
    assert answer.status == 200
    again.close()


def test_checkpoint_that_was_signed_is_shown_with_both_signatures(tmp_path: Path) -> None:
    tree = Tree(3)
    witness = witness_of(tmp_path, tree)
    assert witness.newest(tree.origin).status == 404
    assert witness.newest("shipsight/none").status == 404
    witness.add(tree.request(0))
    shown = open_checkpoint(witness.newest(tree.origin).text, [tree.signer.key, SIGNER.key])
    assert {one.key for one in shown.signatures} == {tree.signer.key, SIGNER.key}


def test_log_whose_key_changes_is_signed_by_either(tmp_path: Path) -> None:
    tree, following = Tree(5), Signer.generate("shipsight/one")
    witness = Witness(tmp_path, SIGNER, {tree.origin: (tree.signer.key, following.key)}, lambda: datetime.now(UTC))
    assert witness.add(tree.request(0)).status == 200
    tree.signer = following
    assert witness.add(tree.grow(5).request(5)).status == 200


def test_logs_are_named_by_their_key_or_beside_it() -> None:
    one, two = Signer.generate("shipsight/one").key, Signer.generate("other").key
    assert parse_logs([one.text, f"shipsight/one={two.text}"]) == {"shipsight/one": (one, two)}
    with pytest.raises(UsageError, match="not a log's"):
        parse_logs([SIGNER.key.text])
    with pytest.raises(UsageError):
        parse_logs(["shipsight/one"])


def test_key_of_a_log_does_not_make_a_witness(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the key of a witness"):
        Witness(tmp_path, Signer.generate("x"), {})
