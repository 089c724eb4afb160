# SPDX-License-Identifier: Apache-2.0
"""Proofs of single entries, made from the log (`entry_proof` says what they are). Stable."""

from __future__ import annotations

from shipsight.access.audit.checkpoint import Checkpoint
from shipsight.access.audit.entry_proof import write_proof
from shipsight.access.audit.merkle import Frontier, inclusion_proof
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.store.rows import read_range
from shipsight.errors import AuditError, AuditProofError, NotFoundError

__all__ = ["prove"]


def prove(reader: AuditReader, seq: int, *, checkpoint: Checkpoint | None = None, with_values: bool = True) -> str:
    """Returns the proof that an entry is in the log.

    Args:
        reader: of the log.
        seq: number of the entry.
        checkpoint: that it is proved against, such as one that a witness has signed; the newest where none is given.
        with_values: whether personal values are in it.

    Raises:
        NotFoundError: there is no such entry, or it is in an archive.
        AuditError: no checkpoint covers it yet, or this one is of another log.
        AuditProofError: the log is not what the checkpoint says.
    """
    head = reader.head()
    if not head.first <= seq < head.size:
        where = f"entries {head.first} to {head.size - 1}"
        raise NotFoundError("no such entry here; older ones are in archives", where=where, got=seq)
    newest = reader.last_checkpoint if checkpoint is None else checkpoint
    if newest is None or newest.size <= seq or newest.origin != head.origin:
        raise AuditError("no checkpoint covers this entry", got=f"entry {seq}", hint="Run: shipsight audit checkpoint")
    if newest.size > head.size:
        raise AuditProofError("the checkpoint covers more than this log has", got=head.size, expected=newest.size)
    before = Frontier.from_bytes(head.first_frontier)
    proof = inclusion_proof(reader.leaves, seq, newest.size, before=before)
    with reader.database.read() as connection:
        row = read_range(connection, seq, seq + 1)[0]
    return write_proof(row, proof, newest, with_values=with_values)
