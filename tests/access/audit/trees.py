# SPDX-License-Identifier: Apache-2.0
"""Logs of the tests: leaves, their frontiers, and signed checkpoints, without a database under them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from shipsight.access.audit.checkpoint import Checkpoint, Signer, sign
from shipsight.access.audit.merkle import Frontier, consistency_proof, leaf_hash

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Tree:
    """A log of which only the leaves matter."""

    def __init__(self, size: int = 0, *, origin: str = "shipsight/one", signer: Signer | None = None) -> None:
        self.origin = origin
        self.signer = signer or Signer.generate(origin)
        self.leaves = [leaf_hash(f"{origin} {number}".encode()) for number in range(size)]

    def grow(self, count: int) -> Tree:
        at = len(self.leaves)
        self.leaves += [leaf_hash(f"{self.origin} {number}".encode()) for number in range(at, at + count)]
        return self

    def changed(self, index: int, *, size: int | None = None) -> Tree:
        """The same log by the same key, written anew with another entry."""
        other = Tree(origin=self.origin, signer=self.signer)
        other.leaves = self.leaves[:size]
        other.leaves[index] = leaf_hash(b"written anew")
        return other

    def read(self, begin: int, end: int) -> Iterator[bytes]:
        return iter(self.leaves[begin:end])

    def frontier(self, size: int | None = None) -> Frontier:
        frontier = Frontier()
        frontier.extend(self.leaves[:size])
        return frontier

    def consistency(self, size1: int, size2: int) -> list[bytes]:
        return consistency_proof(self.read, size1, size2)

    def checkpoint(self, size: int | None = None, *, seconds: float = 0) -> Checkpoint:
        frontier = self.frontier(size)
        at = AT + timedelta(seconds=seconds)
        return sign(self.signer, origin=self.origin, size=frontier.size, root=frontier.root(), at=at)

    def request(self, old: int, size: int | None = None) -> bytes:
        """What a witness is asked, with an honest proof where there can be one."""
        checkpoint = self.checkpoint(size)
        proof = self.consistency(old, checkpoint.size) if 0 < old <= checkpoint.size else []
        lines = [f"old {old}", *(base64.b64encode(one).decode() for one in proof), "", checkpoint.text]
        return "\n".join(lines).encode()
