# SPDX-License-Identifier: Apache-2.0
"""Whether a log goes on where it stood when it was last seen: nobody adds to, or signs, one that was cut or written anew. Private to the room.

What was seen last is in memory while a log is open, and in between in the newest checkpoint that this machine knows of, in a file
beside the key. Entries that others wrote since are hashed on from there, and must lead to where the log says that it stands.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from shipsight.access.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from shipsight.access.audit.merkle import Frontier, leaf_hash
from shipsight.access.audit.store.rows import Head, frontier_at, newest_checkpoint, read_after, read_keys
from shipsight.errors import AuditError, AuditProofError, CorruptError, EnvironmentLackError, UsageError

__all__ = ["NewestFile", "Seen", "follow", "newest_path", "where_seen"]

_PAGE = 2000
_VERIFY = "Somebody changed it, or put an older one in its place. Run: shipsight audit verify"


@dataclass(frozen=True)
class Seen:
    """Where a log stood.

    Attributes:
        size: entries.
        frontier: of the tree over them.
        leaf: hash of the last, in hexadecimal; None where it is not known.
    """

    size: int
    frontier: bytes
    leaf: str | None = None


def newest_path(key: Path) -> Path:
    """Returns the file of the newest checkpoint, beside that of the key."""
    return key.with_name(f"{key.name}.newest")


class NewestFile:
    """The newest checkpoint of a log that this machine knows of: a signed note, as second places have it.

    Args:
        key: file of the log's key.
    """

    def __init__(self, key: Path) -> None:
        self.path = newest_path(key)

    def text(self) -> str | None:
        """Returns the checkpoint's text, None where there is none.

        Raises:
            EnvironmentLackError: the file cannot be read.
        """
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise EnvironmentLackError("the newest checkpoint cannot be read", where=self.path, got=error) from error

    def keep(self, checkpoint: Checkpoint) -> None:
        """Puts a checkpoint in place of the one before; after its log has it.

        Raises:
            OSError: it cannot be written.
        """
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(checkpoint.text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def where_seen(
    connection: Connection, head: Head, newest: str | None, keys: Sequence[VerifierKey]
) -> tuple[Seen, int | None]:
    """Returns from where on entries have to be hashed to know that a log goes on.

    Args:
        connection: that reads it.
        head: where it says that it stands.
        newest: text of the newest checkpoint that is known, None where none is.
        keys: of the log, that are trusted.

    Returns:
        Where it was seen, and the size of the newest checkpoint that is known beside the log, None where none is.

    Raises:
        AuditError: it is shorter than it was, or its checkpoints are not its own.
    """
    if newest is None:
        return _by_own(connection, head, keys), None
    try:
        # It lies where the key lies: keys that the log names only say how it is read, since one may have been changed meanwhile.
        named = [VerifierKey.parse(one.key) for one in read_keys(connection)]
        known = open_checkpoint(newest, [*keys, *named], origin=head.origin)
    except (AuditProofError, UsageError) as error:
        raise AuditError(
            "the newest checkpoint beside the key is not this log's", got=error, hint="Run: shipsight audit verify"
        ) from error
    if known.size > head.size:
        raise AuditError(
            "the audit log is shorter than it was",
            expected=f"{head.origin}, at least {known.size} entries",
            got=f"{head.size} entries",
            hint=f"{_VERIFY}. Where an older copy was put back on purpose, move away the file *.newest beside the key.",
        )
    if known.size < head.first:
        return _by_own(connection, head, keys), known.size
    kept = frontier_at(connection, known.size)
    if kept is not None and _is_of(kept, known):
        return Seen(known.size, kept), known.size
    # Somebody changed what is kept with the checkpoint: the entries themselves tell.
    frontier, _ = _hashed(connection, Seen(head.first, head.first_frontier, head.first_prev), known.size)
    if frontier.size != known.size or frontier.root() != known.root:
        raise _another(head, known.size)
    return Seen(known.size, frontier.to_bytes()), known.size


def follow(connection: Connection, head: Head, seen: Seen, keys: Sequence[VerifierKey]) -> None:
    """Finds out whether a log goes on where it was seen.

    Args:
        connection: that reads it.
        head: where it says that it stands.
        seen: where it was.
        keys: of the log, that are trusted.

    Raises:
        AuditError: it became shorter, or another.
    """
    if head.size < seen.size:
        raise _another(head, seen.size)
    if head.first > seen.size:
        # Entries that nobody here has seen are in an archive: whoever moved them there had the key.
        seen = _by_own(connection, head, keys)
    if head.size == seen.size:
        if head.frontier != seen.frontier or seen.leaf not in {None, head.leaf}:
            raise _another(head, seen.size)
        return
    frontier, leaf = _hashed(connection, seen, head.size)
    if (frontier.size, frontier.to_bytes(), leaf) != (head.size, head.frontier, head.leaf):
        raise _another(head, seen.size)


def _by_own(connection: Connection, head: Head, keys: Sequence[VerifierKey]) -> Seen:
    """Returns where a log stood by the newest checkpoint that lies in its own place."""
    try:
        kept = newest_checkpoint(connection)
        if kept is None:
            if head.first or head.size > 1:
                raise AuditError("the checkpoints of the audit log are gone", got=f"{head.size} entries", hint=_VERIFY)
            return Seen(0, head.first_frontier, head.first_prev)
        found = open_checkpoint(kept.text, keys, origin=head.origin)
        if _is_of(kept.frontier, found):
            return Seen(found.size, kept.frontier)
    except (AuditProofError, CorruptError) as error:
        raise AuditError(
            "the newest checkpoint of the audit log is not its own", expected=head.origin, got=error, hint=_VERIFY
        ) from error
    raise _another(head, found.size)


def _is_of(frontier: bytes, checkpoint: Checkpoint) -> bool:
    with contextlib.suppress(AuditProofError):
        made = Frontier.from_bytes(frontier)
        return made.size == checkpoint.size and made.root() == checkpoint.root
    return False


def _hashed(connection: Connection, seen: Seen, end: int) -> tuple[Frontier, str | None]:
    """Returns the frontier after entries that follow what was seen, as far as they are there, and the hash of the last."""
    frontier, leaf = Frontier.from_bytes(seen.frontier), seen.leaf
    after = seen.size - 1
    while rows := read_after(connection, after, end, _PAGE):
        for row in rows:
            one = leaf_hash(row.record.encode("ascii"))
            frontier.append(one)
            leaf = one.hex()
        after = rows[-1].seq
    return frontier, leaf


def _another(head: Head, size: int) -> AuditError:
    return AuditError(
        "the audit log is not the one that was written",
        expected=f"{head.origin}, at least {size} entries that are what they were",
        got=f"{head.size} entries",
        hint=_VERIFY,
    )
