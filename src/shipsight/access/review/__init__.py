# SPDX-License-Identifier: Apache-2.0
"""The review of the audit log: rules over its entries, reports, who signed them off, and when the next one is due.

Rules are pure (`reviewing`, `rules`): entries in, findings out. `store` keeps reports and needs cryptography; it is imported by who makes or
reads one. Stable.
"""

from shipsight.access.review.due import Due, due, overdue_s
from shipsight.access.review.findings import Finding, Severity
from shipsight.access.review.report import Chain, Report
from shipsight.access.review.reviewing import Reviewed, Reviewer, review
from shipsight.access.review.rules import RULES
from shipsight.access.review.settings import ReviewSettings

__all__ = [
    "RULES",
    "Chain",
    "Due",
    "Finding",
    "Report",
    "ReviewSettings",
    "Reviewed",
    "Reviewer",
    "Severity",
    "due",
    "overdue_s",
    "review",
]
