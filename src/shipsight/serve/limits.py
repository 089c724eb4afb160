# SPDX-License-Identifier: Apache-2.0
"""What a request may cost, as the operator sets it. Stable."""

from __future__ import annotations

from dataclasses import dataclass

from shipsight.errors import UsageError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits on one request and on all together; what exceeds them is refused with an error that names the limit.

    Attributes:
        body_bytes: most bytes of a body.
        image_pixels: most pixels of an image, told from its header.
        images: most images of a request.
        detections: most predictions of an image that a request may ask for.
        header_s: seconds within which a request's head must have come.
        body_s: seconds within which its body must have come.
        connections: most open connections.
        deadline_s: seconds within which an answer must come where a request does not say.
        longest_deadline_s: most seconds that a request may give.
    """

    body_bytes: int = 32 * 2**20
    image_pixels: int = 50_000_000
    images: int = 16
    detections: int = 1000
    header_s: float = 10.0
    body_s: float = 30.0
    connections: int = 512
    deadline_s: float = 10.0
    longest_deadline_s: float = 120.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise UsageError("limit out of range", where=name, expected="above 0", got=getattr(self, name))
