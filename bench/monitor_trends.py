# SPDX-License-Identifier: Apache-2.0
"""What trends tell beside windows: how steadily small shifts are told, and how often nothing is called a change.

Four numbers an image, drawn: one normal, one skewed, one counted (ties), one constant; references of 300, windows of 100. The normal one is shifted by a
share of its standard deviation. After 400 images under the shift each further 100 are looked at once by both.

    OMP_NUM_THREADS=1 python bench/monitor_trends.py --out bench/results/monitor-trends.md

About a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from shipsight.monitor.drift import MonitorSettings
from shipsight.monitor.permuting import compare
from shipsight.monitor.trends import Trends

SETTINGS = MonitorSettings()
Rows = dict[str, np.ndarray]


def stretch(seed: int, count: int, shift: float = 0.0) -> Rows:
    draw = np.random.default_rng(seed)
    return {
        "normal": draw.normal(shift, 1, count),
        "skewed": draw.gamma(2, 10, count),
        "counted": draw.poisson(3, count).astype(np.float64),
        "constant": np.full(count, 640.0),
    }


def feed(trends: Trends, rows: Rows) -> None:
    for place in range(len(rows["normal"])):
        trends.add({name: float(values[place]) for name, values in rows.items()})


def alarming(reference: Rows, shift: float, seed: int, *, looks: int, before: int) -> tuple[int, int]:
    """Returns in how many looks a trend alarmed, and a window."""
    trends = Trends(reference, SETTINGS)
    by_trend = by_window = 0
    for part in range(before + looks):
        rows = stretch(10_000_000 + 1000 * seed + part, 100, shift)
        feed(trends, rows)
        if part >= before:
            by_trend += any(one.is_alarm for one in trends.found())
            found = compare(reference, rows, seed=part)
            by_window += any(
                one.p_family <= SETTINGS.error and one.effect >= SETTINGS.least_effect for one in found.values()
            )
    return by_trend, by_window


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        "# Trends beside windows",
        "",
        f"`bench/monitor_trends.py`, {arguments.seeds} references, 10 looks each after 400 images.",
        "",
        "| shift, in standard deviations | looks in which a trend alarms | windows that alarm |",
        "|---|---|---|",
    ]
    for shift in (0.0, 0.2, 0.3, 0.4, 0.5):
        told = [alarming(stretch(seed, 300), shift, seed, looks=10, before=4) for seed in range(arguments.seeds)]
        shares = [sum(one[which] for one in told) / (10 * arguments.seeds) for which in (0, 1)]
        lines.append(f"| {shift} | {shares[0]:.1%} | {shares[1]:.1%} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
