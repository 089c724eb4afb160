# SPDX-License-Identifier: Apache-2.0
"""What a monitor knows, and its file: one JSON object under the digest of its text (`docs/formats/monitor-state.md`). Private.

Invariants: a file is replaced whole or not at all; a changed byte is refused; a state is only taken up by the subject and
the settings that it was made with.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from shipsight.errors import CorruptError, UnsupportedError, UsageError
from shipsight.monitor.drift import Drift, Estimate, MonitorSettings
from shipsight.monitor.features import Observation

__all__ = ["State", "read_state", "write_state"]

_VERSION = 3
_REMEDY = "Take the file from a backup, or delete it: the monitor then learns anew"


@dataclass(eq=False)
class State:
    """Everything but settings.

    Attributes:
        seen: images told of.
        taken: looked at.
        unreadable: of them, not measured.
        step: how many images apart those that are taken are, at least.
        passing: how many are passed over before the next is taken.
        is_learned: whether the reference is complete.
        reference: images in it, in order.
        window: images in the window being filled.
        windows: compared so far.
        drifts: of the latest.
        trends: what is known of each number (`Trends.kept`).
        estimate: precision of the latest window; None where it is not estimated.
    """

    seen: int = 0
    taken: int = 0
    unreadable: int = 0
    step: int = 1
    passing: int = 0
    is_learned: bool = False
    reference: list[Observation] = field(default_factory=list)
    window: list[Observation] = field(default_factory=list)
    windows: int = 0
    drifts: tuple[Drift, ...] = ()
    trends: Mapping[str, tuple[int, list[list[float]]]] = field(default_factory=dict)
    estimate: Estimate | None = None

    def copy(self) -> State:
        """Returns a state that later images do not change."""
        return replace(self, reference=list(self.reference), window=list(self.window))


def write_state(path: Path, subject: str, settings: MonitorSettings, state: State) -> None:
    """Writes a state.

    Raises:
        OSError: it cannot be written; the file before stands.
    """
    content = {"version": _VERSION, "subject": subject, "settings": asdict(settings), **asdict(state)}
    text = json.dumps(content, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{digest}\n{text}\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_state(path: Path, subject: str, settings: MonitorSettings) -> State:
    """Reads a state.

    Raises:
        CorruptError: the file is not what `write_state` wrote.
        UnsupportedError: another version of it did.
        UsageError: it is another subject's, or was made with other settings.
    """
    digest, _, rest = path.read_bytes().partition(b"\n")
    text = rest[:-1]
    if rest[-1:] != b"\n" or hashlib.sha256(text).hexdigest().encode() != digest:
        raise CorruptError("a monitor's state does not fit its digest", where=str(path), hint=_REMEDY)
    content: dict[str, Any] = json.loads(text)
    if content["version"] != _VERSION:
        raise UnsupportedError(
            "a monitor's state is of another version",
            where=str(path),
            expected=_VERSION,
            got=content["version"],
            hint=_REMEDY,
        )
    wanted = {"subject": subject, "settings": asdict(settings)}
    for name, value in wanted.items():
        if content[name] != value:
            raise UsageError(
                f"a monitor's state was made with another {name}",
                where=str(path),
                expected=value,
                got=content[name],
                hint="Name another file, or delete this one: the monitor then learns anew",
            )
    return _state(content)


def _state(content: dict[str, Any]) -> State:
    reference, window = ([_observation(one) for one in content[name]] for name in ("reference", "window"))
    plain = {
        name: content[name] for name in ("seen", "taken", "unreadable", "step", "passing", "is_learned", "windows")
    }
    drifts = tuple(Drift(**one) for one in content["drifts"])
    estimate = None if content["estimate"] is None else Estimate(**content["estimate"])
    return State(
        **plain, reference=reference, window=window, drifts=drifts, trends=content["trends"], estimate=estimate
    )


def _observation(told: dict[str, Any]) -> Observation:
    scores, embedding = (None if told[name] is None else tuple(told[name]) for name in ("scores", "embedding"))
    return Observation(tuple(told["numbers"]), tuple(told["counts"]), scores, embedding)
