# SPDX-License-Identifier: Apache-2.0
"""The operator's own steps before and after a model, run in worker processes of their own.

`pool` keeps the workers of one file and asks them, `worker` is one from the inside and the only place where the file is
imported, `mapping` brings predictions back to the original image, `reading` checks what a step returns, `table` says
which model has which. Rule: whatever a step does, it costs its own request alone. Guide: `docs/steps.md`. Stable.
"""

from shipsight.serve.steps.pool import Seen, StepPool
from shipsight.serve.steps.table import StepTable

__all__ = ["Seen", "StepPool", "StepTable"]
