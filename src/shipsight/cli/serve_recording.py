# SPDX-License-Identifier: Apache-2.0
"""The options of `serve` that say what is recorded of production, where, and who is told of it. Private to `cli`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from shipsight.cli.recordings import key_path, recordings_place

if TYPE_CHECKING:
    from shipsight.serve import RecordingOptions

__all__ = ["checked_alerts", "read_recording", "shown_alerts", "shown_policy"]


def read_recording(policy: Path | None, folder: Path | None, key: Path | None) -> RecordingOptions:
    """Returns what a server records, as the options of the command line have it.

    Where the policy keeps samples they lie where `shipsight recordings` looks for them.

    Raises:
        UsageError: an option does not fit, or the policy cannot be read or held to.
    """
    from shipsight.serve import RecordingOptions

    if policy is None:
        return RecordingOptions(None, folder, key)
    from shipsight.monitor.recording import read_policy
    from shipsight.monitor.recording.policy import Mode

    held = read_policy(policy)
    if held.mode is not Mode.SAMPLES:
        return RecordingOptions(held.to_dict())
    place = recordings_place(folder).absolute()
    return RecordingOptions(held.to_dict(), place, key_path(key, place).absolute())


def shown_policy(file: Path | None, options: RecordingOptions) -> str | None:
    """Returns a policy as the audit log tells it: its file and its digest, so that a change of what it says is seen; None where there is none."""
    if file is None or options.policy is None:
        return None
    from shipsight.monitor.recording import Policy

    return f"{file} {Policy.from_dict(options.policy).digest}"


def checked_alerts(file: Path | None) -> Path | None:
    """Returns where alert settings lie, once they have been read: what does not fit is said before anything is started.

    Raises:
        UsageError, CorruptError, LimitError: they do not fit.
    """
    if file is None:
        return None
    from shipsight.monitor.alerts import read_settings

    read_settings(file)
    return file.absolute()


def shown_alerts(file: Path | None) -> str | None:
    """Returns alert settings as the audit log tells them: their file and its digest, so that a change is seen; None where there are none."""
    return None if file is None else f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}"
