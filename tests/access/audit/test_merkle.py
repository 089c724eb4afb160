# SPDX-License-Identifier: Apache-2.0
"""The tree over the audit log: other projects' proofs, true and forged, and a naive tree to compare with."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import REPOSITORY

from shipsight.access.audit import merkle
from shipsight.access.audit.merkle import Frontier, leaf_hash, node_hash
from shipsight.errors import AuditProofError

VECTORS = REPOSITORY.parent / "shared/vectors/merkle-proofs.jsonl"
COUNT = 518
SIZES = st.integers(1, 300)


def vectors() -> list[dict[str, Any]]:
    if not VECTORS.parent.parent.exists():
        return []
    # A folder without its file fails here: nothing is skipped that could have been run.
    return [json.loads(line) for line in VECTORS.read_text().splitlines()]


def verify_vector(one: dict[str, Any]) -> None:
    def raw(name: str) -> bytes:
        return base64.b64decode(one[name] or "")

    proof = [base64.b64decode(each) for each in one["proof"] or ()]
    match one["name"].partition("/")[0]:
        case "inclusion":
            merkle.verify_inclusion(raw("leafHash"), one["leafIdx"], one["treeSize"], proof, raw("root"))
        case "consistency":
            merkle.verify_consistency(one["size1"], raw("root1"), one["size2"], raw("root2"), proof)
        case "subtreeinclusion":
            merkle.verify_subtree_inclusion(
                raw("leafHash"), one["leafIdx"], one["start"], one["end"], proof, raw("root")
            )
        case "subtreeconsistency":
            merkle.verify_subtree_consistency(one["start"], one["end"], one["size"], raw("root1"), raw("root2"), proof)
        case _:
            raise ValueError(one["name"])


@pytest.mark.skipif(not VECTORS.parent.parent.exists(), reason="no shared data beside the repository")
def test_every_vector_is_there() -> None:
    assert len({one["name"] for one in vectors()}) == COUNT


@pytest.mark.parametrize("one", vectors(), ids=lambda one: one["name"].removesuffix(".json"))
def test_proof_of_another_project_is_taken_or_refused_as_it_says(one: dict[str, Any]) -> None:
    if one["wantErr"]:
        with pytest.raises(AuditProofError):
            verify_vector(one)
    else:
        verify_vector(one)


def leaves_of(count: int, seed: bytes = b"") -> list[bytes]:
    return [leaf_hash(seed + str(number).encode()) for number in range(count)]


def naive_root(leaves: list[bytes]) -> bytes:
    """As RFC 6962, 2.1 defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(naive_root(leaves[:split]), naive_root(leaves[split:]))


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """As RFC 6962, 2.1.1 defines it."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*naive_path(index, leaves[:split]), naive_root(leaves[split:])]
    return [*naive_path(index - split, leaves[split:]), naive_root(leaves[:split])]


def naive_consistency(first: int, leaves: list[bytes], *, whole: bool = True) -> list[bytes]:
    """As RFC 6962, 2.1.2 defines it."""
    if first == len(leaves):
        return [] if whole else [naive_root(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if first <= split:
        return [*naive_consistency(first, leaves[:split], whole=whole), naive_root(leaves[split:])]
    return [*naive_consistency(first - split, leaves[split:], whole=False), naive_root(leaves[:split])]


def reader(leaves: list[bytes]) -> merkle.Leaves:
    def read(begin: int, end: int) -> Iterator[bytes]:
        return iter(leaves[begin:end])

    return read


@given(st.integers(0, 300))
def test_root_of_a_frontier_is_that_of_the_naive_tree(size: int) -> None:
    leaves = leaves_of(size)
    frontier = Frontier()
    frontier.extend(leaves)
    assert frontier.root() == naive_root(leaves)
    assert (frontier.size, len(frontier.hashes)) == (size, size.bit_count())


@given(st.integers(0, 200), st.integers(0, 100))
def test_frontier_goes_on_where_its_bytes_ended(size: int, more: int) -> None:
    leaves = leaves_of(size + more)
    whole, first = Frontier(), Frontier()
    whole.extend(leaves)
    first.extend(leaves[:size])
    second = Frontier.from_bytes(first.to_bytes())
    second.extend(leaves[size:])
    assert second.to_bytes() == whole.to_bytes()


def test_copy_of_a_frontier_grows_alone() -> None:
    one = Frontier()
    one.extend(leaves_of(5))
    other = one.copy()
    other.append(leaf_hash(b"x"))
    assert (one.size, other.size) == (5, 6)
    assert one.root() == naive_root(leaves_of(5))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 7, b"\0" * 8 + b"x" * 32, b"\0" * 7 + b"\3" + b"x" * 32, b"\xff" * 8 + b"x" * 64 * 32, b"\0" * 9],
    ids=["empty", "short", "hash-of-nothing", "hash-missing", "size-too-large", "torn"],
)
def test_bytes_that_are_no_frontier_are_refused(data: bytes) -> None:
    with pytest.raises(AuditProofError):
        Frontier.from_bytes(data)


@given(SIZES, st.data())
def test_inclusion_is_proved_as_the_naive_tree_does(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(reader(leaves), index, size)
    assert proof == naive_path(index, leaves)
    merkle.verify_inclusion(leaves[index], index, size, proof, naive_root(leaves))


def test_consistency_is_proved_as_the_naive_tree_does_for_all_small_sizes() -> None:
    leaves = leaves_of(40)
    for first, second in itertools.combinations_with_replacement(range(1, 41), 2):
        proof = merkle.consistency_proof(reader(leaves), first, second)
        assert proof == naive_consistency(first, leaves[:second]), (first, second)
        merkle.verify_consistency(first, naive_root(leaves[:first]), second, naive_root(leaves[:second]), proof)


@given(SIZES, SIZES)
def test_consistency_is_proved_from_the_first_trees_frontier_and_the_leaves_after_it(one: int, other: int) -> None:
    first, second = sorted((one, other))
    leaves = leaves_of(second)
    before = Frontier()
    before.extend(leaves[:first])

    def only_after(begin: int, end: int) -> Iterator[bytes]:
        assert begin >= first
        return iter(leaves[begin:end])

    proof = merkle.consistency_proof_after(before, only_after, first, second)
    assert proof == naive_consistency(first, leaves)


@given(SIZES, st.data())
def test_no_changed_bit_of_an_inclusion_is_taken(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    parts = [leaves[index], naive_root(leaves), *naive_path(index, leaves)]
    which, bit = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 255))
    parts[which] = (int.from_bytes(parts[which], "big") ^ (1 << bit)).to_bytes(32, "big")
    with pytest.raises(AuditProofError):
        merkle.verify_inclusion(parts[0], index, size, parts[2:], parts[1])


@given(SIZES, SIZES, st.data())
def test_no_changed_bit_of_a_consistency_is_taken(one: int, other: int, data: st.DataObject) -> None:
    first, second = sorted((one, other))
    leaves = leaves_of(second)
    parts = [naive_root(leaves[:first]), naive_root(leaves), *naive_consistency(first, leaves)]
    which, bit = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 255))
    parts[which] = (int.from_bytes(parts[which], "big") ^ (1 << bit)).to_bytes(32, "big")
    with pytest.raises(AuditProofError):
        merkle.verify_consistency(first, parts[0], second, parts[1], parts[2:])


@given(SIZES, SIZES, st.data())
def test_no_proof_leads_from_a_tree_that_was_changed_since(one: int, other: int, data: st.DataObject) -> None:
    first, second = sorted((one, other))
    leaves = leaves_of(second)
    told = naive_root(leaves[:first])
    leaves[data.draw(st.integers(0, first - 1))] = leaf_hash(b"rewritten")
    with pytest.raises(AuditProofError):
        merkle.verify_consistency(
            first, told, second, naive_root(leaves), merkle.consistency_proof(reader(leaves), first, second)
        )


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 4), (4, 4)], ids=["empty", "negative", "after-the-end"])
def test_inclusion_of_no_entry_is_not_proved(index: int, size: int) -> None:
    with pytest.raises(AuditProofError):
        merkle.inclusion_proof(reader(leaves_of(size)), index, size)


@pytest.mark.parametrize(("first", "second"), [(0, 4), (5, 4), (-1, 4)], ids=["empty", "larger", "negative"])
def test_consistency_of_no_two_trees_is_not_proved(first: int, second: int) -> None:
    with pytest.raises(AuditProofError):
        merkle.consistency_proof(reader(leaves_of(8)), first, second)


def test_proof_is_refused_when_leaves_are_missing() -> None:
    with pytest.raises(AuditProofError, match="entries are missing"):
        merkle.inclusion_proof(reader(leaves_of(5)), 0, 8)
    with pytest.raises(AuditProofError, match="entries are missing"):
        merkle.consistency_proof(reader(leaves_of(5)), 3, 8)


@given(SIZES, st.data())
def test_inclusion_is_proved_where_a_beginning_of_the_leaves_is_gone(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    gone = data.draw(st.integers(0, index))
    before = Frontier()
    before.extend(leaves[:gone])

    def only_after(begin: int, end: int) -> Iterator[bytes]:
        assert begin >= gone
        return iter(leaves[begin:end])

    assert merkle.inclusion_proof(only_after, index, size, before=before) == naive_path(index, leaves)


def test_inclusion_of_a_leaf_that_is_gone_is_not_proved() -> None:
    before = Frontier()
    before.extend(leaves_of(5))
    with pytest.raises(AuditProofError, match="no such entry"):
        merkle.inclusion_proof(reader(leaves_of(8)), 4, 8, before=before)
