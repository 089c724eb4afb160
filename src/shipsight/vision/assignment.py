# SPDX-License-Identifier: Apache-2.0
"""Assignment: which rows go with which columns at the least cost, none of them above a limit.

Rules: the sum of (cost - limit) over the pairs is as small as it can be, so a pair is made only where it is cheaper than
leaving both alone. Pairs below the limit are few where boxes lie apart: the matrix falls into parts that are solved one
by one, which is why no library for large problems is needed. Stable.

Source: Kuhn's and Munkres' method with shortest augmenting paths (Jonker and Volgenant, 1987).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pairs", "assign"]

FloatArray = NDArray[np.float64]
Pairs = list[tuple[int, int]]


def assign(costs: NDArray[np.floating], *, limit: float) -> Pairs:
    """Pairs rows with columns.

    Args:
        costs: (N, M), finite, smaller is better.
        limit: a pair must cost less.

    Returns:
        (row, column) pairs in order of rows; no row and no column stands in two.
    """
    gains = np.asarray(costs, dtype=np.float64) - limit
    pairs: Pairs = []
    for rows, columns in _parts(np.argwhere(gains < 0).tolist()):
        if len(rows) == len(columns) == 1:
            pairs.append((rows[0], columns[0]))
            continue
        part = np.minimum(gains[np.ix_(rows, columns)], 0.0)
        is_tall = len(rows) > len(columns)
        for row, column in enumerate(_solve(part.T if is_tall else part)):
            i, j = (rows[column], columns[row]) if is_tall else (rows[row], columns[column])
            if gains[i, j] < 0:
                pairs.append((i, j))
    return sorted(pairs)


def _parts(edges: list[list[int]]) -> list[tuple[list[int], list[int]]]:
    """Returns rows and columns of each connected part of a bipartite graph."""
    by_row: dict[int, list[int]] = {}
    by_column: dict[int, list[int]] = {}
    for row, column in edges:
        by_row.setdefault(row, []).append(column)
        by_column.setdefault(column, []).append(row)
    parts = []
    seen: set[int] = set()
    for first in by_row:
        if first in seen:
            continue
        rows, columns, waiting = {first}, set[int](), [first]
        while waiting:
            for column in by_row[waiting.pop()]:
                if column not in columns:
                    columns.add(column)
                    fresh = [row for row in by_column[column] if row not in rows]
                    rows.update(fresh)
                    waiting.extend(fresh)
        seen |= rows
        parts.append((sorted(rows), sorted(columns)))
    return parts


def _solve(costs: FloatArray) -> list[int]:
    """Returns each row's column; (N, M) with N <= M, every row gets one."""
    count, width = costs.shape
    row_price, column_price = np.zeros(count), np.zeros(width)
    owner = np.full(width, -1)
    for start in range(count):
        # Grows a tree of shortest alternating paths from the row until it meets a column that is free.
        distance = np.full(width, np.inf)
        before = np.full(width, -1)
        is_done = np.zeros(width, dtype=np.bool_)
        row, reached, column = start, 0.0, -1
        while True:
            reduced = reached + costs[row] - row_price[row] - column_price
            is_nearer = ~is_done & (reduced < distance)
            distance[is_nearer], before[is_nearer] = reduced[is_nearer], column
            column = int(np.where(is_done, np.inf, distance).argmin())
            reached = float(distance[column])
            if owner[column] < 0:
                break
            is_done[column] = True
            row = int(owner[column])
        row_price[start] += reached
        row_price[owner[is_done]] += reached - distance[is_done]
        column_price[is_done] -= reached - distance[is_done]
        while column >= 0:
            previous = int(before[column])
            owner[column] = start if previous < 0 else owner[previous]
            column = previous
    return [int(np.flatnonzero(owner == row)[0]) for row in range(count)]
