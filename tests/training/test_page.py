# SPDX-License-Identifier: Apache-2.0
"""The page beside a pruned checkpoint says what was measured, fetches nothing, and escapes what others wrote."""

from __future__ import annotations

from typing import Any

import pytest

from shipsight.training.page import render_pruning

FACTS = {"size": "320", "epochs": "30", "seeds": "0, 1", "data": "<script>alert(1)</script>"}


def told(difference: dict[str, float] | None) -> dict[str, Any]:
    return {
        "share": 0.55,
        "metric": "map50_95",
        "images_measured": 87,
        "source": 0.59,
        "pruned": {0: 0.58, 1: 0.57},
        "controls": {} if difference is None else {0: 0.585, 1: 0.58},
        "difference": difference,
        "latency_ms": {"source": 8.0, "pruned": 6.0},
        "speedup": 1.33,
        "units": [
            {"name": "model.0", "channels": 16, "kept": 16, "sensitivity": 3.2},
            {"name": "model.<b>", "channels": 64, "kept": 32, "sensitivity": 0.01},
        ],
    }


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-0.02, -0.001, "Pruning costs 0.0100"), (0.001, 0.02, "Pruning gains"), (-0.02, 0.01, "No loss is to be seen")],
)
def test_the_verdict_is_the_intervals(low: float, high: float, word: str) -> None:
    value = 0.01 if low > 0 else -0.01
    page = render_pruning(told({"value": value, "low": low, "high": high}), FACTS, name="cells", measured=64)
    assert word in page
    assert f"{low:+.4f} to {high:+.4f} over 87 images and 2 seeds" in page


def test_without_a_control_nothing_is_claimed() -> None:
    page = render_pruning(told(None), FACTS, name="cells", measured=64)
    assert "What pruning costs is not known" in page


def test_names_are_escaped_and_nothing_is_fetched() -> None:
    page = render_pruning(told(None), FACTS, name="<img src=x>", measured=64)
    assert "<script>" not in page
    assert "<img" not in page
    assert "model.&lt;b&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_layers_that_all_matter_alike_are_drawn() -> None:
    given = told(None)
    for one in given["units"]:
        one["sensitivity"] = 0.5
    assert render_pruning(given, FACTS, name="cells", measured=64).count("<svg") == 4
