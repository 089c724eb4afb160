# SPDX-License-Identifier: Apache-2.0
"""The audit log: what happened, in an order that nobody can change unseen (`docs/formats/audit-log.md`). Stable.

What stands here is light; `log`, `reading` and `verify` bring SQLAlchemy, and are imported by those that have a log.
"""

from shipsight.access.audit.entry import Entry
from shipsight.access.audit.settings import AuditSettings, AuditState

__all__ = ["AuditSettings", "AuditState", "Entry"]
