# SPDX-License-Identifier: Apache-2.0
"""Are the images of production those that the model was trained for? Examination 1 of `doctor accuracy`. Stable.

Production images against the training statistics in the bundle, without labels. Leaves to others: how another pipeline prepares them,
what the deployed model makes of them.
"""

from shipsight.doctor.data.deviations import Deviation
from shipsight.doctor.data.evidence import DataEvidence, Scores
from shipsight.doctor.data.examination import RULES, DataExamination

__all__ = ["RULES", "DataEvidence", "DataExamination", "Deviation", "Scores"]
