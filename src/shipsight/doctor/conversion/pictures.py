# SPDX-License-Identifier: Apache-2.0
"""Drawings of a conversion: the signal by layer, and scores beside the source's. Pure. Private to the room."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from shipsight.doctor.conversion.evidence import Layer
from shipsight.doctor.finding import Picture

__all__ = ["draw_layers", "draw_scores"]

_MOST_DB = 60.0


def draw_layers(layers: Sequence[Layer], broken: int | None) -> Picture:
    """Draws one bar a group of layers, to 60 dB; the one that breaks is red."""
    row, left, width = 18, 90, 420
    parts = []
    for number, one in enumerate(layers):
        length = width * min(max(one.sqnr_db, 0.0), _MOST_DB) / _MOST_DB
        colour = "#c62828" if number == broken else "#607d8b"
        y = number * row
        parts.append(f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{escape(one.name[-14:])}</text>')
        parts.append(f'<rect x="{left}" y="{y + 3}" width="{max(length, 1):.1f}" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + max(length, 1) + 5:.1f}" y="{y + 13}">{one.sqnr_db:.0f} dB</text>')
    size = f'viewBox="0 0 {left + width + 70} {len(layers) * row + 6}"'
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-size="11" font-family="sans-serif">{"".join(parts)}</svg>'
    )
    told = "" if broken is None else f"; {layers[broken].name} is the first that breaks"
    return Picture(f"Signal to noise of each group of layers against the source (bars end at 60 dB){told}", svg=svg)


def draw_scores(pairs: Sequence[tuple[float, float]]) -> Picture:
    """Draws the suspect's score over the source's; on the line they are equal."""
    side, pad = 260, 34
    dots = "".join(
        f'<circle cx="{pad + a * side:.1f}" cy="{6 + (1 - b) * side:.1f}" r="2.5" fill="#1565c0" fill-opacity="0.45"/>'
        for a, b in pairs
    )
    frame = f'<rect x="{pad}" y="6" width="{side}" height="{side}" fill="none" stroke="#999"/>'
    line = f'<line x1="{pad}" y1="{6 + side}" x2="{pad + side}" y2="6" stroke="#c62828"/>'
    words = f'<text x="{pad + side / 2}" y="{side + 26}" text-anchor="middle">score of the source</text>'
    words += f'<text x="14" y="{side / 2}" text-anchor="middle" transform="rotate(-90 14 {side / 2})">score here</text>'
    head = f'viewBox="0 0 {side + pad + 10} {side + 34}" font-size="12" font-family="sans-serif"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {head}>{frame}{line}{dots}{words}</svg>'
    return Picture(f"Scores of {len(pairs)} predictions, here and in the source; on the line they are equal", svg=svg)
