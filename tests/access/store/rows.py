# SPDX-License-Identifier: Apache-2.0
"""Rows in every table, whatever the tables are: for tests that bring them from one shape to another."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Connection, Integer, LargeBinary, MetaData, Table, select
from sqlalchemy.types import UserDefinedType


def reflect(connection: Connection) -> MetaData:
    """Returns the tables as the database has them."""
    found = MetaData()
    found.reflect(connection)
    found.remove(found.tables["alembic_version"])
    return found


def fill(connection: Connection, tables: MetaData, *, rows: int = 3) -> None:
    """Adds rows to every table, each pointing to rows that there are."""
    for table in tables.sorted_tables:
        for _ in range(rows):
            connection.execute(table.insert().values({one.name: _value(connection, one) for one in table.columns}))


def read(connection: Connection, tables: MetaData) -> dict[str, set[tuple[tuple[str, str], ...]]]:
    """Returns every row of every table, in a form that can be compared."""
    return {
        table.name: {
            tuple(sorted((name, repr(value)) for name, value in row._mapping.items()))
            for row in connection.execute(select(table))
        }
        for table in tables.sorted_tables
    }


def common(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Compares rows where two shapes have the same tables, as far as both have the same columns: none may be lost or changed."""
    for name in before.keys() & after.keys():
        if not before[name] or not after[name]:
            assert not before[name], f"{name}: all rows were lost"
            continue
        columns = {key for row in before[name] for key, _ in row} & {key for row in after[name] for key, _ in row}
        kept = {tuple(pair for pair in row if pair[0] in columns) for row in after[name]}
        lost = {tuple(pair for pair in row if pair[0] in columns) for row in before[name]} - kept
        assert not lost, f"{name}: {lost}"


def _value(connection: Connection, column: Column[Any]) -> Any:
    for key in column.foreign_keys:
        target: Table = key.column.table
        return connection.execute(select(key.column).order_by(key.column).limit(1)).scalar_one_or_none() or target.name
    kind = column.type
    assert not isinstance(kind, UserDefinedType)
    if isinstance(kind, LargeBinary):
        return secrets.token_bytes(24)
    if isinstance(kind, JSON):
        return ["a", {"b": [1, None, "\u00e9"]}]
    if isinstance(kind, Boolean):
        return True
    if isinstance(kind, Integer):  # BigInteger, too
        return secrets.randbelow(2**40) if "BIG" in str(kind) else secrets.randbelow(2**20)
    if "FLOAT" in str(kind) or "DOUBLE" in str(kind) or "REAL" in str(kind):
        return 0.5
    return secrets.token_hex(8)
