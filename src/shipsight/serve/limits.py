# SPDX-License-Identifier: Apache-2.0
"""What a request may cost, as the operator sets it. Stable."""

from __future__ import annotations

from dataclasses import dataclass

from shipsight.errors import LimitError, UsageError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits on one request and on all together; what exceeds them is refused with an error that names the limit.

    Attributes:
        body_bytes: most bytes of a body.
        image_pixels: most pixels of an image, told from its header.
        images: most images of a request.
        windows: most windows that the images of a request may be cut into together.
        detections: most predictions of an image that a request may ask for.
        head_bytes: most bytes of a request's head.
        headers: most headers of a request.
        header_s: seconds within which a request's head must have come.
        body_s: seconds within which its body must have come, and within which a client must take some of its answer.
        connections: most open connections.
        requests: most requests that are predicted on or wait for it.
        deadline_s: seconds within which an answer must come where a request does not say.
        longest_deadline_s: most seconds that a request may give.
        streams: most streams of video that are open at once.
        stream_idle_s: seconds within which a stream's next frame must have come, and its answer been taken.
    """

    body_bytes: int = 32 * 2**20
    image_pixels: int = 50_000_000
    images: int = 16
    windows: int = 64
    detections: int = 1000
    head_bytes: int = 64 * 2**10
    headers: int = 128
    header_s: float = 10.0
    body_s: float = 30.0
    connections: int = 512
    requests: int = 256
    deadline_s: float = 10.0
    longest_deadline_s: float = 120.0
    streams: int = 32
    stream_idle_s: float = 60.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise UsageError("limit out of range", where=name, expected="above 0", got=getattr(self, name))

    @property
    def bodies_bytes(self) -> int:
        """Most bytes of all bodies that are held at once: those of sixteen of the largest."""
        return 16 * self.body_bytes

    def check_images(self, count: int) -> None:
        """Checks how many images, or tensors of a batch, a request brings; asked before any is unpacked.

        Raises:
            LimitError: too many.
        """
        _check_most("images", count, self.images)

    def check_detections(self, count: int) -> None:
        """Checks how many predictions of an image a request asks for.

        Raises:
            LimitError: too many.
        """
        _check_most("max_det", count, self.detections)

    def seconds(self, asked_s: float | None) -> float:
        """Returns within how many seconds an answer must come, None for a request that does not say.

        Raises:
            UsageError: out of range.
        """
        most = self.longest_deadline_s
        if asked_s is not None and not 0 < asked_s <= most:
            raise UsageError("deadline out of range", where="deadline", expected=f"above 0 to {most:g} s", got=asked_s)
        return self.deadline_s if asked_s is None else asked_s


def _check_most(name: str, got: int, most: int) -> None:
    if got > most:
        raise LimitError("more than this server allows", where=name, expected=f"at most {most}", got=got)
