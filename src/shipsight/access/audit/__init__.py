# SPDX-License-Identifier: Apache-2.0
"""The audit log: what happened, in an order that nobody can change unseen (`docs/formats/audit-log.md`). Stable."""

from shipsight.access.audit.entry import Entry

__all__ = ["Entry"]
