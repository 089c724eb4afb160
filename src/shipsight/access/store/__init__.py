# SPDX-License-Identifier: Apache-2.0
"""Where identities are kept: SQLite by default, PostgreSQL for several servers; secrets are encrypted before they get here.

Leaves to others: what the rows mean (the files of `access` beside this folder). Stable.
"""

from shipsight.access.store.database import Database, open_database
from shipsight.access.store.resealing import reseal
from shipsight.access.store.revision import grow_revision, read_revision, write_revision
from shipsight.access.store.secret_box import SecretBox, load_keys, write_keys
from shipsight.access.store.tables import metadata

__all__ = [
    "Database",
    "SecretBox",
    "grow_revision",
    "load_keys",
    "metadata",
    "open_database",
    "read_revision",
    "reseal",
    "write_keys",
    "write_revision",
]
