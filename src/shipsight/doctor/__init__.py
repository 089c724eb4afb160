# SPDX-License-Identifier: Apache-2.0
"""Why is it worse, why is it slow: examinations of a model in production, their rules, and what they say. Stable.

Each examination is a folder of its own: what it collects, and one file a family of rules.
"""

from shipsight.doctor.accuracy import diagnose_accuracy
from shipsight.doctor.case import Case, Told
from shipsight.doctor.diagnosis import Diagnosis, Examined, examine
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure, Finding, Picture, Severity, by_weight
from shipsight.doctor.rule import Rule

__all__ = [
    "Case",
    "Diagnosis",
    "Examination",
    "Examined",
    "Figure",
    "Finding",
    "Picture",
    "Rule",
    "Severity",
    "Told",
    "by_weight",
    "diagnose_accuracy",
    "examine",
]
