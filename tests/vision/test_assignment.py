# SPDX-License-Identifier: Apache-2.0
"""Assignment against SciPy's solver, and its own laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.vision.assignment import assign


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    rows=st.integers(0, 25),
    columns=st.integers(0, 25),
    limit=st.sampled_from([0.05, 0.3, 0.8, 2.0]),
    sparse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_pairs_cost_as_little_as_scipys(rows: int, columns: int, limit: float, sparse: bool, seed: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(seed)
    costs = rng.random((rows, columns))
    if sparse:
        costs[rng.random((rows, columns)) < 0.8] = 1.0
    pairs = assign(costs, limit=limit)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(costs[i, j] < limit for i, j in pairs)
    gains = np.minimum(costs - limit, 0)
    best = gains[optimize.linear_sum_assignment(gains)].sum()
    assert sum(gains[i, j] for i, j in pairs) == pytest.approx(best, abs=1e-12)


def test_a_pair_at_the_limit_is_not_made() -> None:
    assert assign(np.array([[0.5]]), limit=0.5) == []
    assert assign(np.array([[0.49]]), limit=0.5) == [(0, 0)]


def test_a_dear_pair_is_made_where_it_frees_a_cheap_one() -> None:
    assert assign(np.array([[0.1, 0.2], [0.15, 0.9]]), limit=0.8) == [(0, 1), (1, 0)]
