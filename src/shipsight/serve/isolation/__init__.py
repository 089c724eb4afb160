# SPDX-License-Identifier: Apache-2.0
"""Work in processes of its own: how they are started, spoken with, seen to end and started again.

`channel` carries messages, `process` is a worker as the server sees it, `worker` as it sees itself, `keeper` keeps one
alive; `engine` and `engine_worker` run a model's engines in one. Rules: nothing that crosses is ever unpickled; arrays
go through shared memory; a worker ends with the process that started it. Linux only. Stable.
"""

from shipsight.serve.isolation.channel import Channel, ChannelClosedError
from shipsight.serve.isolation.engine import ENGINE_WORKER, IsolatedSession, open_session
from shipsight.serve.isolation.keeper import Keeper, Pauses
from shipsight.serve.isolation.process import WorkerEndedError, WorkerProcess
from shipsight.serve.isolation.worker import answer_connections, end_with_parent

__all__ = [
    "ENGINE_WORKER",
    "Channel",
    "ChannelClosedError",
    "IsolatedSession",
    "Keeper",
    "Pauses",
    "WorkerEndedError",
    "WorkerProcess",
    "answer_connections",
    "end_with_parent",
    "open_session",
]
