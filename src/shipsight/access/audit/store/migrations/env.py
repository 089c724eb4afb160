# SPDX-License-Identifier: Apache-2.0
"""Alembic runs this; the connection, and the transaction, are the caller's."""

from alembic import context

from shipsight.access.audit.store.tables import LINEAGE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=LINEAGE.version_table,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
