# SPDX-License-Identifier: Apache-2.0
"""Recordings of production, by policy: sampled images and answers, encrypted, that end, can be erased, and are looked at by right alone.

`policy` says what may be; `enforcement` holds to it; `recorder` takes what was answered, `store` keeps it; `reading`, `erasing` and `backup`
are what people do with it; `inventory` tells all of that to who answers for it. Knows no HTTP. Stable.
"""

from shipsight.monitor.recording.backup import BackedUp, Restored, back_up, restore
from shipsight.monitor.recording.enforcement import Enforcement, Finder
from shipsight.monitor.recording.erasing import erase_day, erase_recordings, erase_subject, rotate_key, sweep
from shipsight.monitor.recording.index import Entry, KeptErasure
from shipsight.monitor.recording.inventory import Inventory, make_page, take_inventory
from shipsight.monitor.recording.policy import Policy, read_policy
from shipsight.monitor.recording.reading import (
    Exported,
    export_images,
    export_statistics,
    list_recordings,
    show_recording,
)
from shipsight.monitor.recording.record import Label, Recording
from shipsight.monitor.recording.recorder import Answered, Recorder, RecorderState
from shipsight.monitor.recording.redactor import open_redactor
from shipsight.monitor.recording.store import Store

__all__ = [
    "Answered",
    "BackedUp",
    "Enforcement",
    "Entry",
    "Exported",
    "Finder",
    "Inventory",
    "KeptErasure",
    "Label",
    "Policy",
    "Recorder",
    "RecorderState",
    "Recording",
    "Restored",
    "Store",
    "back_up",
    "erase_day",
    "erase_recordings",
    "erase_subject",
    "export_images",
    "export_statistics",
    "list_recordings",
    "make_page",
    "open_redactor",
    "read_policy",
    "restore",
    "rotate_key",
    "show_recording",
    "sweep",
    "take_inventory",
]
