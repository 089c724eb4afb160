# SPDX-License-Identifier: Apache-2.0
"""The table of rules (`docs/security/audit-review.md` tells each). Stable."""

from __future__ import annotations

from shipsight.access.review.configuration import Backups, NewServer, Weakened
from shipsight.access.review.data import CopiedByAsking, FirstOfItsKind, RecordingsChanged, Volume
from shipsight.access.review.hours import OffHours
from shipsight.access.review.keys import DormantKey, KeyGuessed, KeyMoved, KeyOfLeaver, Probing, TwoSecrets
from shipsight.access.review.log_itself import ClockBackwards, KeysOfTheLog, Lost, ReviewOverdue, SequenceGap, Silent
from shipsight.access.review.models import LoadedByAnother, PromotedUntried, ReplacedModel
from shipsight.access.review.people import (
    FirstAdministration,
    GivenAndTaken,
    OwnGrant,
    Removals,
    ResetThenChange,
    StrongGrant,
    YoungAccount,
)
from shipsight.access.review.rule import Rule
from shipsight.access.review.sign_ins import Burst, ClonedPasskey, Elsewhere, Guessed, Spray

__all__ = ["RULES"]

RULES: tuple[type[Rule], ...] = (
    Burst,
    Spray,
    Guessed,
    Elsewhere,
    ClonedPasskey,
    ResetThenChange,
    OwnGrant,
    StrongGrant,
    GivenAndTaken,
    FirstAdministration,
    YoungAccount,
    Removals,
    OffHours,
    DormantKey,
    KeyMoved,
    KeyGuessed,
    KeyOfLeaver,
    Probing,
    TwoSecrets,
    FirstOfItsKind,
    Volume,
    CopiedByAsking,
    RecordingsChanged,
    ReplacedModel,
    PromotedUntried,
    LoadedByAnother,
    Weakened,
    Backups,
    NewServer,
    SequenceGap,
    ClockBackwards,
    Silent,
    Lost,
    KeysOfTheLog,
    ReviewOverdue,
)
"""All rules, in the order in which each entry is shown to them."""
