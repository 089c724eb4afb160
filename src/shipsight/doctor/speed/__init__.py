# SPDX-License-Identifier: Apache-2.0
"""Why is it slow: examinations of a bundle's variant on this machine, and of a running server. Stable.

Leaves to others: how time is taken (`build.measure.timing`), who says what was found (`doctor.diagnosis`, `cli`). Invariants: every
gain that is told was measured in the same run, in turns with what runs now, and its interval's lower bound beats a stated limit;
what could not be measured is a note without weight.
"""

from shipsight.doctor.speed.case import ServerCase, SpeedCase
from shipsight.doctor.speed.diagnosing import (
    DEFAULT_SECONDS,
    SERVER_EXAMINATIONS,
    SPEED_EXAMINATIONS,
    diagnose_server_speed,
    diagnose_speed,
)

__all__ = [
    "DEFAULT_SECONDS",
    "SERVER_EXAMINATIONS",
    "SPEED_EXAMINATIONS",
    "ServerCase",
    "SpeedCase",
    "diagnose_server_speed",
    "diagnose_speed",
]
