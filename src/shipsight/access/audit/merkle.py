# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree over the audit log: its root, and proofs that an entry is in it or that it only grew.

Pure: no file, no clock. A tree is never held whole: a `Frontier` keeps one hash for each bit of its size, and proofs read
leaves as a stream. Invariants: hashes are SHA-256 (32 bytes); a verification returns or raises, and refuses every proof
that is longer or shorter than it must be. Stable.
Sources: RFC 6962, 2.1; RFC 9162, 2.1; for subtrees draft-ietf-plants-merkle-tree-certs, 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from hmac import compare_digest

from shipsight.errors import AuditProofError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Frontier",
    "consistency_proof",
    "consistency_proof_after",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "verify_consistency",
    "verify_inclusion",
    "verify_subtree_consistency",
    "verify_subtree_inclusion",
]

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""

_LARGEST = 1 << 63
_SIZE_BYTES = 8

Leaves = Callable[[int, int], Iterator[bytes]]
"""From and to (exclusive) -> the leaf hashes of these entries, in order."""


def leaf_hash(record: bytes) -> bytes:
    """Returns the hash of an entry's bytes."""
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Returns the hash of a node over its two children's hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that only grows, by the hashes of its complete subtrees: at most one for each bit of its size.

    Attributes:
        size: number of leaves.
        hashes: of the complete subtrees from left to right, largest first.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Continues a tree.

        Raises:
            AuditProofError: the hashes are not as many as the size has bits set, or are no hashes.
        """
        if not 0 <= size < _LARGEST or len(hashes) != size.bit_count() or any(len(one) != HASH_BYTES for one in hashes):
            raise AuditProofError("not the frontier of a tree", expected=f"{size.bit_count()} hashes", got=len(hashes))
        self.size = size
        self._hashes = list(hashes)

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The hashes of the complete subtrees, largest first."""
        return tuple(self._hashes)

    def append(self, leaf: bytes) -> None:
        """Adds a leaf by its hash."""
        self._push(leaf, self.size)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Adds leaves by their hashes."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """Returns the tree's root hash."""
        return _join(self._hashes) if self._hashes else EMPTY_ROOT

    def copy(self) -> Frontier:
        """Returns one that grows on its own."""
        return Frontier(self.size, self._hashes)

    def to_bytes(self) -> bytes:
        """Returns 8 bytes size, big-endian, and the hashes."""
        return self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self._hashes)

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """Reads what `to_bytes` wrote.

        Raises:
            AuditProofError: it did not write this.
        """
        body = data[_SIZE_BYTES:]
        if len(data) < _SIZE_BYTES or len(body) % HASH_BYTES:
            raise AuditProofError("not the frontier of a tree", got=f"{len(data)} bytes")
        hashes = [body[at : at + HASH_BYTES] for at in range(0, len(body), HASH_BYTES)]
        return cls(int.from_bytes(data[:_SIZE_BYTES], "big"), hashes)

    def _push(self, leaf: bytes, size: int) -> None:
        # A subtree is complete as often as the size before ends in ones.
        while size & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            size >>= 1
        self._hashes.append(leaf)

    def __repr__(self) -> str:
        return f"Frontier(size={self.size}, root={self.root().hex()})"


def inclusion_proof(leaves: Leaves, index: int, size: int, *, before: Frontier | None = None) -> list[bytes]:
    """Returns the proof that one leaf is in a tree; reads all others once, and holds few of them.

    Args:
        leaves: gives leaf hashes.
        index: of the leaf, from 0.
        size: of the tree.
        before: frontier of a beginning whose leaves are not here; None where all are.

    Raises:
        AuditProofError: there is no such leaf, or fewer leaves than that.
    """
    before = Frontier() if before is None else before
    if not before.size <= index < size:
        raise AuditProofError("no such entry in this tree", expected=f"{before.size} to {size - 1}", got=index)
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(_root(leaves, middle, end, before))
            end = middle
        else:
            proof.append(_root(leaves, begin, middle, before))
            begin = middle
    return proof[::-1]


def consistency_proof(leaves: Leaves, size1: int, size2: int) -> list[bytes]:
    """Returns the proof that a tree is the beginning of another; reads all leaves once, and holds few of them.

    Raises:
        AuditProofError: the first is empty or larger than the second, or there are fewer leaves than that.
    """
    before = Frontier()
    if 0 < size1 <= size2:
        before.extend(_exactly(leaves, 0, size1))
    return consistency_proof_after(before, leaves, size1, size2)


def consistency_proof_after(before: Frontier, leaves: Leaves, size1: int, size2: int) -> list[bytes]:
    """Like `consistency_proof`, reading only leaves from the first size on.

    Args:
        before: frontier of the first tree.
        leaves: gives leaf hashes.
        size1: of the first tree, above 0.
        size2: of the second.

    Raises:
        AuditProofError: the first is empty or larger than the second, or there are fewer leaves than that.
    """
    if not 0 < size1 <= size2 or before.size != size1:
        raise AuditProofError("no proof leads from one size to the other", expected=f"1 to {size2}", got=size1)
    if size1 == size2:
        return []
    complete: dict[tuple[int, int], bytes] = {}
    at = 0
    for one in before.hashes:
        width = 1 << ((size1 - at).bit_length() - 1)
        complete[at, at + width] = one
        at += width
    proof: list[bytes] = []
    begin, end = 0, size2
    # RFC 6962, 2.1.2: what lies left of the first tree's end is one of its complete subtrees, all else lies right of it.
    while end != size1:
        middle = begin + _split(end - begin)
        if size1 <= middle:
            proof.append(_root(leaves, middle, end))
            end = middle
        else:
            proof.append(complete[begin, middle])
            begin = middle
    if begin or (begin, end) not in complete:
        proof.append(complete[begin, end])
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verifies that a leaf is in a tree.

    Args:
        leaf: its hash.
        index: of it, from 0.
        size: of the tree.
        proof: the hashes beside its way up, lowest first.
        root: of the tree.

    Raises:
        AuditProofError: the proof does not show it.
    """
    verify_subtree_inclusion(leaf, index, 0, size, proof, root)


# Long, with its promises: five numbers and hashes that could be mistaken for one another.
def verify_subtree_inclusion(
    leaf: bytes, index: int, start: int, end: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Verifies that a leaf is in a part of a tree.

    Args:
        leaf: its hash.
        index: of it in the whole tree, from 0.
        start: of the part.
        end: of the part, exclusive.
        proof: the hashes beside the leaf's way up, lowest first.
        root: of the part.

    Raises:
        AuditProofError: the proof does not show it, or no such part can be one.
    """
    if not _is_subtree(start, end) or not start <= index < end:
        raise AuditProofError("no such entry in this tree", expected=f"{start} to {end - 1}", got=index)
    _check_hashes(leaf, *proof)
    at, last = index - start, end - start - 1
    got = leaf
    for one in proof:
        if last == 0:
            raise AuditProofError("the proof of inclusion is too long", got=f"{len(proof)} hashes")
        if at & 1 or at == last:
            got = node_hash(one, got)
            while not at & 1:
                at, last = at >> 1, last >> 1
        else:
            got = node_hash(got, one)
        at, last = at >> 1, last >> 1
    if last:
        raise AuditProofError("the proof of inclusion is too short", got=f"{len(proof)} hashes")
    if not compare_digest(got, root):
        raise AuditProofError("the entry is not in this tree", expected=root.hex(), got=got.hex())


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """Verifies that a tree is the beginning of another: nothing of it was changed, taken away or moved.

    Args:
        size1: of the first; above 0 unless both are empty, since the empty tree is the beginning of every tree.
        root1: of it.
        size2: of the second.
        root2: of it.
        proof: hashes, lowest first.

    Raises:
        AuditProofError: the proof does not show it.
    """
    if size1 == 0 and (size2 or not compare_digest(root1, root2)):
        raise AuditProofError("no proof leads from one size to the other", expected=f"1 to {size2}", got=size1)
    verify_subtree_consistency(0, size1, size2, root1, root2, proof)


def verify_subtree_consistency(
    start: int, end: int, size: int, subroot: bytes, root: bytes, proof: Sequence[bytes]
) -> None:
    """Verifies that a tree is the part of another that it is said to be; the empty one is part of every tree.

    Args:
        start: of the part.
        end: of the part, exclusive.
        size: of the whole tree.
        subroot: root of the part.
        root: of the whole tree.
        proof: hashes, lowest first.

    Raises:
        AuditProofError: the proof does not show it, or no such part can be one.
    """
    _check_hashes(*proof)
    if 0 <= start == end <= size:
        if proof or not compare_digest(subroot, EMPTY_ROOT):
            raise AuditProofError("not the tree without entries", expected=EMPTY_ROOT.hex(), got=subroot.hex())
        return
    if not _is_subtree(start, end) or end > size:
        raise AuditProofError("no proof leads from one size to the other", expected=f"1 to {size}", got=end)
    low, at, last = start, end - 1, size - 1
    while low != at and (at == last or at & 1):
        low, at, last = low >> 1, at >> 1, last >> 1
    rest = list(proof)
    if low == at:
        part = whole = subroot
    elif rest:
        part = whole = rest.pop(0)
    else:
        raise AuditProofError("the proof of consistency is too short", got="no hash")
    for one in rest:
        if last == 0:
            raise AuditProofError("the proof of consistency is too long", got=f"{len(proof)} hashes")
        if at & 1 or at == last:
            part = node_hash(one, part) if low < at else part
            whole = node_hash(one, whole)
            while not at & 1:
                low, at, last = low >> 1, at >> 1, last >> 1
        else:
            whole = node_hash(whole, one)
        low, at, last = low >> 1, at >> 1, last >> 1
    if last:
        raise AuditProofError("the proof of consistency is too short", got=f"{len(proof)} hashes")
    if not compare_digest(part, subroot):
        raise AuditProofError("the tree before is not the one that was told", expected=subroot.hex(), got=part.hex())
    if not compare_digest(whole, root):
        raise AuditProofError("the tree is not the one before, grown", expected=root.hex(), got=whole.hex())


def _is_subtree(start: int, end: int) -> bool:
    """Whether a tree has a part from one to the other: it begins at a multiple of the power of two that holds it."""
    return 0 <= start < end < _LARGEST << 1 and start % (1 << (end - start - 1).bit_length()) == 0


def _check_hashes(*hashes: bytes) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise AuditProofError("not a hash", expected=f"{HASH_BYTES} bytes each")


def _split(size: int) -> int:
    """Returns the largest power of two below a size above 1."""
    return 1 << ((size - 1).bit_length() - 1)


def _join(hashes: Sequence[bytes]) -> bytes:
    got = hashes[-1]
    for one in hashes[-2::-1]:
        got = node_hash(one, got)
    return got


def _root(leaves: Leaves, begin: int, end: int, before: Frontier | None = None) -> bytes:
    """Returns the root of a part of a tree, of whose first leaves only a frontier may be there."""
    hashes, at = [], 0
    gone = 0 if before is None else before.size
    for one in () if before is None else before.hashes:
        width = 1 << ((gone - at).bit_length() - 1)
        if begin <= at and at + width <= end:
            hashes.append(one)
        at += width
    part = Frontier(max(min(gone, end) - begin, 0), hashes)
    if begin + part.size < end:
        part.extend(_exactly(leaves, begin + part.size, end))
    return part.root()


def _exactly(leaves: Leaves, begin: int, end: int) -> Iterator[bytes]:
    count = 0
    for leaf in leaves(begin, end):
        count += 1
        yield leaf
    if count != end - begin:
        raise AuditProofError("entries are missing", expected=f"{begin} to {end - 1}", got=f"{count} of them")
