# SPDX-License-Identifier: Apache-2.0
"""Where the audit log is kept: SQLite or PostgreSQL, apart from identities. Leaves to others: what the rows mean. Stable."""

from shipsight.access.audit.store.tables import LINEAGE, metadata

__all__ = ["LINEAGE", "metadata"]
