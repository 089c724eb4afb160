# SPDX-License-Identifier: Apache-2.0
"""Recording what a model gives for a golden input, small enough to ship, sharp enough to tell another model.

A recording keeps, of every table of outputs (`subject.views`): full rows at the positions that scored best and at
positions spread over the table, and mean and root mean square of every channel over all positions; and the
predictions. Leaves to others: which inputs (`golden`), what follows from a difference (`replay`). Invariants:
comparing needs only the recording; scores are compared as log odds, so that a model that sees nothing is told from
another one that sees nothing too. Stable; the form on disk is described in `docs/formats/bundle.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CorruptError, TensorError
from shipsight.proof.matching import Found

__all__ = [
    "Deviation",
    "Recording",
    "TableRecording",
    "compare_tables",
    "record_tables",
    "recordings_from",
    "recordings_to_arrays",
]

FloatArray = NDArray[np.float32]

_TOP = 32
_LOGIT_LIMIT = 9.0
_LOG_ODDS_TABLES = frozenset({"scores", "probabilities"})


@dataclass(frozen=True, eq=False)
class TableRecording:
    """What is kept of one table of outputs.

    Attributes:
        positions: (P,) int32 rows that are kept.
        values: (P, K) float32.
        mean: (K,) float32 over all rows.
        rms: (K,) float32 over all rows.
    """

    positions: NDArray[np.int32]
    values: FloatArray
    mean: FloatArray
    rms: FloatArray


@dataclass(frozen=True, eq=False)
class Recording:
    """What is kept of one golden input.

    Attributes:
        tables: table name -> what is kept.
        found: the predictions, down to the low threshold of the golden set.
    """

    tables: Mapping[str, TableRecording]
    found: Found


@dataclass(frozen=True)
class Deviation:
    """How far outputs are from a recording, in the unit of the table (pixels, log odds, ...).

    Attributes:
        p99: 99th percentile of absolute differences of the kept values.
        most: the largest of them.
        moment: largest difference of a channel's mean or root mean square.
    """

    p99: float
    most: float
    moment: float

    def within(self, tolerance: Deviation) -> bool:
        """Whether each number is at most the tolerance's."""
        return self.p99 <= tolerance.p99 and self.most <= tolerance.most and self.moment <= tolerance.moment

    def joined(self, other: Deviation) -> Deviation:
        """Returns the larger of each number."""
        return Deviation(max(self.p99, other.p99), max(self.most, other.most), max(self.moment, other.moment))

    def to_dict(self) -> dict[str, float]:
        """Returns the numbers, rounded to seven significant digits."""
        return {"p99": _short(self.p99), "max": _short(self.most), "moment": _short(self.moment)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Deviation:
        """Reads what `to_dict` returned.

        Raises:
            CorruptError: keys are unknown or missing, or not numbers.
        """
        if set(data) != {"p99", "max", "moment"} or not all(isinstance(data[key], int | float) for key in data):
            raise CorruptError("a tolerance does not fit", where="golden.json", got=sorted(map(str, data)))
        return cls(float(data["p99"]), float(data["max"]), float(data["moment"]))


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def record_tables(tables: Mapping[str, FloatArray]) -> dict[str, TableRecording]:
    """Keeps of each table what a recording holds.

    Args:
        tables: from `subject.views`.
    """
    strength = _strength(tables)
    kept: dict[str, TableRecording] = {}
    for name, table in tables.items():
        is_aligned = strength is not None and len(strength) == len(table)
        positions = _positions(len(table), strength if is_aligned else None)
        values = _scaled(name, table)
        kept[name] = TableRecording(positions, table[positions], *_moments(values))
    return kept


def compare_tables(recorded: Mapping[str, TableRecording], tables: Mapping[str, FloatArray]) -> dict[str, Deviation]:
    """Compares outputs with a recording of the same input.

    Returns:
        Table name -> how far off.

    Raises:
        TensorError: the tables have other names or shapes than those recorded.
    """
    if set(recorded) != set(tables):
        raise TensorError("other outputs than recorded", where="outputs", expected=sorted(recorded), got=sorted(tables))
    result: dict[str, Deviation] = {}
    for name, kept in recorded.items():
        table = tables[name]
        if table.shape[1] != kept.values.shape[1] or len(table) <= int(kept.positions.max(initial=0)):
            raise TensorError("another shape than recorded", where=name, expected=kept.values.shape, got=table.shape)
        off = np.abs(_scaled(name, table[kept.positions]) - _scaled(name, kept.values))
        mean, rms = _moments(_scaled(name, table))
        moment = max(float(np.abs(mean - kept.mean).max()), float(np.abs(rms - kept.rms).max()))
        result[name] = Deviation(float(np.quantile(off, 0.99)), float(off.max()), moment)
    return result


def _scaled(name: str, table: FloatArray) -> NDArray[np.float64]:
    """Returns scores as log odds, limited to +-9, other tables as they are."""
    values = table.astype(np.float64)
    if name not in _LOG_ODDS_TABLES:
        return values
    inside = np.clip(values, 1e-9, 1 - 1e-9)
    log_odds: NDArray[np.float64] = np.clip(np.log(inside) - np.log1p(-inside), -_LOGIT_LIMIT, _LOGIT_LIMIT)
    return log_odds


def _moments(values: NDArray[np.float64]) -> tuple[FloatArray, FloatArray]:
    return values.mean(axis=0).astype(np.float32), np.sqrt((values**2).mean(axis=0)).astype(np.float32)


def _strength(tables: Mapping[str, FloatArray]) -> FloatArray | None:
    scores = tables.get("scores")
    return None if scores is None else scores.max(axis=1)


def _positions(count: int, strength: FloatArray | None) -> NDArray[np.int32]:
    """Rows that scored best, and rows spread evenly over all, the last quarter and the last twentieth.

    The last rows are those of the coarse feature maps: few, and each the end of a path of its own through the network.
    """
    if count <= 2 * _TOP:
        return np.arange(count, dtype=np.int32)
    spread = [np.linspace(count * start, count - 1, number) for start, number in ((0, 16), (0.75, 12), (0.95, 8))]
    picked = np.concatenate(spread).astype(np.int32)
    if strength is not None:
        picked = np.concatenate((picked, np.argsort(-strength, kind="stable")[:_TOP].astype(np.int32)))
    return np.unique(picked).astype(np.int32)


def recordings_to_arrays(recordings: Mapping[str, Recording]) -> dict[str, NDArray[Any]]:
    """Lays recordings out as arrays named `<input>/<part>`."""
    arrays: dict[str, NDArray[Any]] = {}
    for key, recording in recordings.items():
        for name, table in recording.tables.items():
            arrays[f"{key}/{name}/positions"] = table.positions.astype(np.int32)
            arrays[f"{key}/{name}/values"] = table.values.astype(np.float32)
            arrays[f"{key}/{name}/mean"] = table.mean
            arrays[f"{key}/{name}/rms"] = table.rms
        arrays[f"{key}/predictions/class_ids"] = recording.found.class_ids.astype(np.int32)
        arrays[f"{key}/predictions/scores"] = recording.found.scores.astype(np.float32)
        arrays[f"{key}/predictions/corners_xy"] = recording.found.corners_xy.astype(np.float32)
    return arrays


def recordings_from(arrays: Mapping[str, NDArray[Any]], keys: Sequence[str], *, where: str) -> dict[str, Recording]:
    """Reads recordings of the inputs named from arrays.

    Raises:
        CorruptError: a part is missing or does not fit.
    """
    parts: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
    for name, array in arrays.items():
        pieces = name.split("/")
        if len(pieces) != 3:
            raise CorruptError("an array has an unknown name", where=where, got=repr(name[:100]))
        parts.setdefault(pieces[0], {}).setdefault(pieces[1], {})[pieces[2]] = array
    result: dict[str, Recording] = {}
    for key in keys:
        try:
            tables = {table: TableRecording(**kept) for table, kept in parts[key].items() if table != "predictions"}
            found = parts[key]["predictions"]
            class_ids = found["class_ids"].astype(np.int64)
            result[key] = Recording(tables, Found(class_ids, found["scores"], found["corners_xy"]))
        except (KeyError, TypeError) as error:
            raise CorruptError("a recording does not fit", where=where, got=f"{key}: {error}") from error
        _check(result[key], f"{where} {key}")
    return result


def _check(recording: Recording, where: str) -> None:
    found = recording.found
    fits = found.scores.shape == (len(found.class_ids),) and found.corners_xy.shape == (len(found.class_ids), 4, 2)
    for table in recording.tables.values():
        count = len(table.positions)
        fits = fits and table.values.ndim == 2 and len(table.values) == count > 0
        fits = fits and table.mean.shape == table.rms.shape == table.values.shape[1:]
        fits = fits and int(table.positions.min()) >= 0
    if not fits:
        raise CorruptError("a recording does not fit", where=where)
