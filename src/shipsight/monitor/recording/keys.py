# SPDX-License-Identifier: Apache-2.0
"""The keys of recordings: one each, wrapped by the store's key, in a table of their own that no backup of ours holds.

Whose a recording is stands here and nowhere else, beside its key, as an HMAC: both go together. Destroying a key is what erasing a recording
means: its file, and every copy of the file, is then noise. Leaves to others: what is sealed (`record`), and when keys go (`erasing`,
`store`). Safe to use from several threads and processes. Stable. Sources: NIST SP 800-38F (wrapping), NIST SP 800-88r1, 2.5 (erasing by
destroying keys).
"""

from __future__ import annotations

import hmac
import secrets
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from shipsight.access.store.secret_box import SecretBox, load_keys, write_keys
from shipsight.errors import CorruptError, EnvironmentLackError, NotFoundError
from shipsight.monitor.recording._sqlite import make_database, reading, writing
from shipsight.monitor.recording.record import KEY_BYTES

__all__ = ["KeyTable", "NewKey", "Place"]

_SCHEMA = """
CREATE TABLE roots (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE keys (id TEXT PRIMARY KEY, day TEXT NOT NULL, subject BLOB, wrapped BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX keys_of_day ON keys (day);
CREATE INDEX keys_of_subject ON keys (subject) WHERE subject IS NOT NULL
"""


class Place(NamedTuple):
    """Where a recording is: its id, and the day that it was made on."""

    id: str
    day: str


NewKey = tuple[Place, bytes | None, bytes]
"""A recording, tag of whom it is of, its key."""


class KeyTable:
    """The keys of a store.

    Args:
        path: of the database, made where there is none.
        key_file: of the store's key, 64 hexadecimal digits a line, made where there is none and no database either.

    Raises:
        EnvironmentLackError: one of them is not there, cannot be used, or others may read the key.
        CorruptError: the key is another store's.
    """

    def __init__(self, path: Path, key_file: Path) -> None:
        self.path, self.key_file = path, key_file
        self._lock = threading.Lock()
        self._seen: tuple[tuple[int, int, int], SecretBox] | None = None
        is_new = not path.exists()
        if is_new:
            load_keys(key_file, make=True)
        make_database(path, _SCHEMA, version=1)
        with writing(path) as connection:
            found = dict(connection.execute("SELECT name, value FROM roots").fetchall())
            if not found:
                found = {"store": secrets.token_hex(8).encode(), "root": b""}
                found["root"] = self._box().seal(secrets.token_bytes(32), belongs_to=_root_name(found["store"]))
                connection.executemany("INSERT INTO roots VALUES (?, ?)", found.items())
        self.store = found["store"].decode()
        self._root = self._box().open(found["root"], belongs_to=_root_name(found["store"]))

    def tag(self, subject: str) -> bytes:
        """Returns what stands for somebody here: 32 bytes that only this store's root makes of the name.

        Args:
            subject: as requests name them; forms of one text in Unicode are one.
        """
        return self._derived("subject", unicodedata.normalize("NFC", subject).encode())

    def seal_of(self, data: bytes) -> bytes:
        """Returns 32 bytes that say that this store wrote something with a digest."""
        return self._derived("backup", data)

    def add(self, keys: Sequence[NewKey]) -> None:
        """Keeps keys, all or none.

        Raises:
            EnvironmentLackError: they cannot be written.
        """
        with writing(self.path) as connection:
            box = self._box()  # within the transaction: a rotation is before it, or after
            rows = [
                (one, day, tag, box.seal(key, belongs_to=self._owner(one, day, tag))) for (one, day), tag, key in keys
            ]
            connection.executemany("INSERT INTO keys VALUES (?, ?, ?, ?)", rows)

    def get(self, name: str) -> bytes:
        """Returns the key of a recording.

        Raises:
            NotFoundError: it was destroyed.
            CorruptError: it was changed, or the store's key is another's.
        """
        try:
            return self._get(name)
        except CorruptError:
            # Between the row and the key file a rotation may have ended: once more, with both as they are now.
            self._seen = None
            return self._get(name)

    def _get(self, name: str) -> bytes:
        with reading(self.path) as connection:
            row = connection.execute("SELECT day, subject, wrapped FROM keys WHERE id = ?", (name,)).fetchone()
        if row is None:
            raise NotFoundError("erased, or its time has passed", where="recording", got=name)
        return self._box().open(row[2], belongs_to=self._owner(name, row[0], row[1]))

    def places(self, *, day: str | None = None, tag: bytes | None = None) -> list[Place]:
        """Returns the recordings that there are keys of, in order of day and id.

        Args:
            day: of this day; of any where None.
            tag: of whom `tag` told; of anybody where None.
        """
        asked = (
            "SELECT id, day FROM keys WHERE (?1 IS NULL OR day = ?1) AND (?2 IS NULL OR subject = ?2) ORDER BY day, id"
        )
        with reading(self.path) as connection:
            return [Place(*row) for row in connection.execute(asked, (day, tag))]

    def destroy(self, names: Iterable[str]) -> None:
        """Destroys keys, all or none; those that are gone already stay so.

        Raises:
            EnvironmentLackError: they cannot be.
        """
        with writing(self.path) as connection:
            connection.executemany("DELETE FROM keys WHERE id = ?", [(one,) for one in names])

    def rotate(self) -> int:
        """Wraps all keys anew under a new key of the store, and drops those before it; returns how many keys there are.

        A key file of several lines is a rotation that was begun: it is ended, with the first line. A process that ends in the middle leaves a
        file of both keys, which opens all; the next rotation ends it.

        Raises:
            EnvironmentLackError: the key file or the table cannot be written.
        """
        with writing(self.path) as connection:
            keys = load_keys(self.key_file)
            if len(keys) == 1:
                keys = [secrets.token_bytes(KEY_BYTES), *keys]
                write_keys(self.key_file, keys)
            count = self._rewrap(connection, SecretBox(keys))
        # After what is wrapped anew is kept, and within a transaction, so that two who rotate do not overwrite each other's file.
        with writing(self.path):
            if load_keys(self.key_file) == keys:
                write_keys(self.key_file, keys[:1])
        return count

    def _rewrap(self, connection: sqlite3.Connection, box: SecretBox) -> int:
        rows = connection.execute("SELECT id, day, subject, wrapped FROM keys").fetchall()
        changed = []
        for name, day, tag, wrapped in rows:
            owner = self._owner(name, day, tag)
            changed.append((box.seal(box.open(wrapped, belongs_to=owner), belongs_to=owner), name))
        connection.executemany("UPDATE keys SET wrapped = ? WHERE id = ?", changed)
        root = box.seal(self._root, belongs_to=_root_name(self.store.encode()))
        connection.execute("UPDATE roots SET value = ? WHERE name = 'root'", (root,))
        return len(rows)

    def _box(self) -> SecretBox:
        """Returns what wraps, from the file as it is now: another process may have changed it."""
        try:
            found = self.key_file.stat()
        except OSError as error:
            raise EnvironmentLackError(
                "the key of the recordings is not there", where=self.key_file, got=error.strerror
            ) from error
        sign = (found.st_mtime_ns, found.st_ino, found.st_size)
        with self._lock:
            if self._seen is None or self._seen[0] != sign:
                self._seen = (sign, SecretBox(load_keys(self.key_file)))
            return self._seen[1]

    def _owner(self, name: str, day: str, tag: bytes | None) -> str:
        """Returns what a wrapped key is bound to: moved to another recording, day or person it opens nothing."""
        return f"recording {self.store} {name} {day} {'-' if tag is None else tag.hex()}"

    def _derived(self, purpose: str, data: bytes) -> bytes:
        return hmac.digest(hmac.digest(self._root, b"shipsight recordings " + purpose.encode(), sha256), data, sha256)


def _root_name(store: bytes) -> str:
    return f"recordings {store.decode()}"
