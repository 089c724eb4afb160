# SPDX-License-Identifier: Apache-2.0
"""The tables of the audit log, as the newest migration leaves them; a test compares the two. Private to the room.

They share no table with identities, so that both may lie in one database. What `records.record` says is what counts; the
columns beside it are what may be erased, and copies that filters look at.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from shipsight.access.store.migrating import Lineage

__all__ = ["LINEAGE", "checkpoints", "head", "keys", "metadata", "records", "sessions"]

LINEAGE = Lineage("shipsight.access.audit.store", "audit_version", 7_407_086, 7_407_085, "--audit", "0001")

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"},
)

head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1: there is one row
    Column("log", Text, nullable=False),
    Column("first", BigInteger, nullable=False),  # entry that is here: those before are in archives
    Column("first_frontier", LargeBinary, nullable=False),
    Column("first_prev", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("leaf", Text, nullable=False),
    Column("written", Text, nullable=False),
)

records = Table(
    "audit_records",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),
    Column("actor", Text, index=True),
    Column("address", Text),
    Column("details", Text),
    Column("subject", Text, index=True),
    Column("salts", LargeBinary, nullable=False),
    Column("erased", Text),
    Column("at", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("server", Text, nullable=False),
    Index("ix_audit_records_kind", "kind", "seq"),
)

checkpoints = Table(
    "audit_checkpoints",
    metadata,
    # Several of one size: a server that has nothing new to tell still tells that it is there.
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False, index=True),
    Column("at", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
)

keys = Table(
    "audit_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("added", BigInteger, nullable=False),  # size of the log then
    Column("retired", BigInteger),  # likewise
)

sessions = Table(
    "audit_sessions",
    metadata,
    Column("server", Text, primary_key=True),
    Column("session", Text, nullable=False),
    Column("began", Text, nullable=False),
    Column("heartbeat_s", Text, nullable=False),
)
