# SPDX-License-Identifier: Apache-2.0
"""The key for secrets is changed: what it encrypted is encrypted with another, while servers go on.

Invariant: at each moment every secret can be opened by a box that holds both keys; killed in the middle, the work is
taken up where it was left. Private to `access`. Source: NIST SP 800-57 part 1, 5.3.5.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Column, Connection, Table, select, update

from shipsight.access.store.database import Database
from shipsight.access.store.secret_box import SecretBox
from shipsight.access.store.tables import metadata

__all__ = ["check_sealed", "reseal", "sealed_columns"]

_BATCH = 100


def sealed_columns() -> Iterator[tuple[Table, Column[bytes]]]:
    """Yields each column of encrypted secrets, with its table."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            if column.info.get("sealed"):
                yield table, column


def reseal(database: Database, box: SecretBox, *, batch: int = _BATCH) -> int:
    """Encrypts every secret with the first key of a box.

    Args:
        database: where they are.
        box: holds the key that is to encrypt, first, and those that did.
        batch: secrets a transaction.

    Returns:
        How many were encrypted anew.

    Raises:
        CorruptError: one was encrypted with a key that is not in the box; those before it are done.
    """
    done = 0
    for table, column in sealed_columns():
        after = ""
        while True:
            with database.write() as connection:
                last, count = _reseal_some(connection, box, table, column, after=after, batch=batch)
            done += count
            if last is None:
                break
            after = last
    return done


def check_sealed(connection: Connection, box: SecretBox) -> None:
    """Opens every secret.

    Raises:
        CorruptError: one cannot be opened.
    """
    for table, column in sealed_columns():
        for row in connection.execute(select(table.c.id, column)):
            box.open(row[1], belongs_to=row[0])


def _reseal_some(
    connection: Connection, box: SecretBox, table: Table, column: Column[bytes], *, after: str, batch: int
) -> tuple[str | None, int]:
    """Does a batch in the order of ids; returns the last id, None where none was left, and how many were not done already."""
    rows = connection.execute(
        select(table.c.id, column).where(table.c.id > after).order_by(table.c.id).limit(batch)
    ).all()
    count = 0
    for name, sealed in rows:
        if not box.is_current(sealed):
            anew = box.seal(box.open(sealed, belongs_to=name), belongs_to=name)
            connection.execute(update(table).where(table.c.id == name).values({column.name: anew}))
            count += 1
    return (rows[-1][0] if rows else None), count
