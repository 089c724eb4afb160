# SPDX-License-Identifier: Apache-2.0
"""Places labels beside points so that none covers a point or another label. Private to the room."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Box", "Labeller"]


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, `x` and `y` its top left."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle_y(self) -> float:
        """Height of the middle."""
        return self.y + self.height / 2

    def overlap(self, other: Box) -> float:
        """Returns the area that both cover, in square pixels."""
        wide = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        high = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(wide, 0.0) * max(high, 0.0)

    def is_inside(self, other: Box) -> bool:
        """Whether this rectangle lies within the other."""
        return (
            self.x >= other.x
            and self.y >= other.y
            and self.x + self.width <= other.x + other.width
            and self.y + self.height <= other.y + other.height
        )


class Labeller:
    """Finds room for labels, the most important first.

    Args:
        room: where labels may stand.
    """

    def __init__(self, room: Box) -> None:
        self._room = room
        self._blocked: list[Box] = []
        self._discouraged: list[tuple[Box, float]] = []

    def block(self, box: Box) -> None:
        """Forbids a rectangle to later labels."""
        self._blocked.append(box)

    def discourage(self, box: Box, cost: float) -> None:
        """Makes a rectangle a place of last resort: a label that touches it costs as much as `cost` pixels away."""
        self._discouraged.append((box, cost))

    def place(self, x: float, y: float, width: float, height: float) -> Box | None:
        """Finds room for a label near a point and keeps it.

        Returns:
            The label's rectangle, or None where every place tried would cover a point or a label.
        """
        best: tuple[float, Box] | None = None
        for distance in (12.0, 18.0, 28.0, 42.0, 60.0, 84.0):
            for left, top, cost in self._sides(x, y, width, height, distance):
                box = Box(left, top, width, height)
                if not box.is_inside(self._room) or any(box.overlap(other) > 0 for other in self._blocked):
                    continue
                total = cost + distance + sum(price for other, price in self._discouraged if box.overlap(other) > 0)
                if best is None or total < best[0]:
                    best = (total, box)
        if best is None:
            return None
        self._blocked.append(best[1])
        return best[1]

    @staticmethod
    def _sides(
        x: float, y: float, width: float, height: float, distance: float
    ) -> tuple[tuple[float, float, float], ...]:
        slant = distance * 0.72
        return (
            (x + distance, y - height / 2, 0),
            (x - distance - width, y - height / 2, 1),
            (x + slant, y - slant - height, 2),
            (x + slant, y + slant, 2),
            (x - slant - width, y - slant - height, 3),
            (x - slant - width, y + slant, 3),
            (x - width / 2, y - distance - height, 4),
            (x - width / 2, y + distance, 4),
        )
