# SPDX-License-Identifier: Apache-2.0
"""Tracking: which predictions of successive frames are the same object. ByteTrack (arXiv:2110.06864).

Boxes are joined to the tracks by overlap with where a filter of constant velocity expects them: first those of high score,
then, to tracks that still lack one, those of low score. Classes play no part, so a track survives a change of mind about
the class. Leaves to others: prediction itself; telling apart who looks alike. Rules: the same frames give the same tracks
as Ultralytics' `BYTETracker`, number by number; a track that was seen once counts only when the next frame confirms it,
but for those of the first frame; frames come in order, one tracker a stream; not for several threads. Stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import UsageError
from shipsight.model import ImagePredictions
from shipsight.vision._motion import Motion
from shipsight.vision.assignment import Pairs, assign
from shipsight.vision.obb import corners_to_rotated
from shipsight.vision.suppression import probabilistic_iou

__all__ = ["TRACK_CONF", "ByteTrack", "TrackSettings", "TrackedBoxes", "Tracker"]

TRACK_CONF = 0.1
"""Least score to predict with where tracking is wanted: boxes of low score keep tracks alive."""

FloatArray = NDArray[np.float64]

_LOW_LIMIT = 0.5
_UNCONFIRMED_LIMIT = 0.7
_TWIN_DISTANCE = 0.15
_EPSILON = np.float32(1e-7)


@dataclass(frozen=True)
class TrackSettings:
    """The thresholds, with Ultralytics' names in brackets and its defaults.

    Attributes:
        high: least score of the first round, 0 to 1 (`track_high_thresh`).
        low: score above which the second round takes a box, 0 to 1 (`track_low_thresh`).
        new: least score that begins a track, 0 to 1 (`new_track_thresh`).
        match: most 1 - overlap of the first round, 0 to 1 (`match_thresh`).
        buffer_frames: frames that a lost track is kept (`track_buffer`).
        fuse_score: whether the overlap is weighed with the score (`fuse_score`).
    """

    high: float = 0.25
    low: float = TRACK_CONF
    new: float = 0.25
    match: float = 0.8
    buffer_frames: int = 30
    fuse_score: bool = True

    def __post_init__(self) -> None:
        for name in ("high", "low", "new", "match"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError("threshold out of range", where=name, expected="0 to 1", got=getattr(self, name))
        if self.buffer_frames < 1:
            raise UsageError("too few frames", where="buffer_frames", expected="1 or more", got=self.buffer_frames)


@dataclass(frozen=True, eq=False)
class TrackedBoxes:
    """What a frame's boxes belong to.

    Attributes:
        track_ids: (T,) int64, from 1.
        boxes: (T, 4) float64 x0, y0, x1, y1 as the filter has them, or (T, 5) x, y, width, height, angle.
        indices: (T,) int64, which of the frame's boxes each track was seen in.
    """

    track_ids: NDArray[np.int64]
    boxes: FloatArray
    indices: NDArray[np.int64]


class _State(Enum):
    TRACKED = auto()
    LOST = auto()


@dataclass(eq=False)
class _Track:
    track_id: int
    motion: Motion
    angle: float | None
    score: float
    index: int
    first_frame: int
    last_frame: int
    is_confirmed: bool
    is_expired: bool = False
    state: _State = _State.TRACKED

    def box(self) -> FloatArray:
        """Returns x0, y0, x1, y1, or x, y, width, height, angle."""
        if self.angle is None:
            return self.motion.box_xyxy()
        x, y, aspect, height = self.motion.place_xyah
        return np.array([x, y, aspect * height, height, self.angle])


@dataclass(frozen=True, eq=False)
class _Seen:
    index: int
    box: FloatArray
    score: float

    @property
    def angle(self) -> float | None:
        return float(self.box[4]) if len(self.box) == 5 else None

    def xyah(self) -> FloatArray:
        if len(self.box) == 5:
            x, y, width, height = self.box[:4]
        else:
            x0, y0, x1, y1 = self.box
            x, y, width, height = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
        return np.array([x, y, width / height, height])


class ByteTrack:
    """The tracks of one stream of boxes.

    Args:
        settings: thresholds.

    Attributes:
        confirmed: how many tracks were confirmed so far.
    """

    def __init__(self, settings: TrackSettings = TrackSettings()) -> None:
        self.settings = settings
        self.confirmed = 0
        self._frame = 0
        self._last_id = 0
        self._tracked: list[_Track] = []
        self._lost: list[_Track] = []

    def update(self, boxes: NDArray[np.floating], scores: NDArray[np.floating]) -> TrackedBoxes:
        """Joins a frame's boxes to the tracks.

        Args:
            boxes: (N, 4) x0, y0, x1, y1, or (N, 5) centre x, y, width, height, angle in radians; always the same of
                the two. Boxes without height are left out.
            scores: (N,) in [0, 1].

        Returns:
            The confirmed tracks that this frame showed.
        """
        self._frame += 1
        high, low = self._split(boxes, scores)
        confirmed = [one for one in self._tracked if one.is_confirmed]
        unconfirmed = [one for one in self._tracked if not one.is_confirmed]
        pool = [*confirmed, *self._lost]
        for one in pool:
            if one.state is not _State.TRACKED:
                one.motion.speed_xyah[3] = 0.0
            one.motion.step()
        pairs = self._pair(pool, high, limit=self.settings.match, fuse=self.settings.fuse_score)
        left, high = self._join(pool, high, pairs)
        missed = [one for one in left if one.state is _State.TRACKED]
        missed, _ = self._join(missed, low, self._pair(missed, low, limit=_LOW_LIMIT, fuse=False))
        for one in missed:
            one.state = _State.LOST
        pairs = self._pair(unconfirmed, high, limit=_UNCONFIRMED_LIMIT, fuse=self.settings.fuse_score)
        doubted, high = self._join(unconfirmed, high, pairs)
        begun = [self._begin(one) for one in high if one.score >= self.settings.new]
        self._keep(pool, [one for one in unconfirmed if one not in doubted], begun)
        return self._told()

    def _split(self, boxes: NDArray[np.floating], scores: NDArray[np.floating]) -> tuple[list[_Seen], list[_Seen]]:
        """Returns the boxes of high and of low score."""
        exact = np.asarray(boxes, dtype=np.float64)
        if exact.shape[1] == 5:
            # The longer side is the width: a model may turn the same box by a quarter from frame to frame.
            is_tall = exact[:, 3] > exact[:, 2]
            turned = exact[:, [0, 1, 3, 2, 4]] + (0, 0, 0, 0, np.pi / 2)
            exact = np.where(is_tall[:, None], turned, exact)
        heights = exact[:, 3] if exact.shape[1] == 5 else exact[:, 3] - exact[:, 1]
        high, low = [], []
        for index in np.flatnonzero(heights > 0).tolist():
            seen = _Seen(index, exact[index], float(scores[index]))
            if seen.score >= self.settings.high:
                high.append(seen)
            elif seen.score > self.settings.low:
                low.append(seen)
        return high, low

    def _pair(self, tracks: Sequence[_Track], seen: Sequence[_Seen], *, limit: float, fuse: bool) -> Pairs:
        if not tracks or not seen:
            return []
        overlaps = _overlaps([one.box() for one in tracks], [one.box for one in seen])
        if fuse:
            overlaps = overlaps * np.array([one.score for one in seen])
        return assign(1 - overlaps, limit=limit)

    def _join(self, tracks: Sequence[_Track], seen: Sequence[_Seen], pairs: Pairs) -> tuple[list[_Track], list[_Seen]]:
        """Gives the tracks what they were paired with; returns what is left of both."""
        for i, j in pairs:
            track, one = tracks[i], seen[j]
            self.confirmed += not track.is_confirmed
            track.motion.correct(one.xyah())
            track.angle, track.score, track.index = one.angle, one.score, one.index
            track.last_frame, track.state, track.is_confirmed = self._frame, _State.TRACKED, True
        rows, columns = {i for i, _ in pairs}, {j for _, j in pairs}
        return (
            [one for i, one in enumerate(tracks) if i not in rows],
            [one for j, one in enumerate(seen) if j not in columns],
        )

    def _begin(self, seen: _Seen) -> _Track:
        self._last_id += 1
        self.confirmed += self._frame == 1
        return _Track(
            self._last_id,
            Motion.begin(seen.xyah()),
            seen.angle,
            seen.score,
            seen.index,
            first_frame=self._frame,
            last_frame=self._frame,
            is_confirmed=self._frame == 1,
        )

    def _keep(self, pool: Sequence[_Track], confirmed_now: Sequence[_Track], begun: Sequence[_Track]) -> None:
        """Sorts the tracks anew, forgets those lost too long, and of two that lie on each other the younger."""
        tracked = [one for one in pool if one.state is _State.TRACKED]
        self._tracked = [*tracked, *confirmed_now, *begun]
        self._lost = [one for one in pool if one.state is _State.LOST and not one.is_expired]
        for one in self._lost:
            # As in Ultralytics' tracker, one whose time is over has the next frame as its last chance, and where that
            # finds it, it is not kept when it is lost again.
            one.is_expired = self._frame - one.last_frame > self.settings.buffer_frames
        if not self._tracked or not self._lost:
            return
        overlaps = _overlaps([one.box() for one in self._tracked], [one.box() for one in self._lost])
        gone: set[_Track] = set()
        for i, j in np.argwhere(1 - overlaps < _TWIN_DISTANCE).tolist():
            seen, lost = self._tracked[i], self._lost[j]
            is_older = seen.last_frame - seen.first_frame > lost.last_frame - lost.first_frame
            gone.add(lost if is_older else seen)
        self._tracked = [one for one in self._tracked if one not in gone]
        self._lost = [one for one in self._lost if one not in gone]

    def _told(self) -> TrackedBoxes:
        told = [one for one in self._tracked if one.is_confirmed]
        width = 4 if not told or told[0].angle is None else 5
        return TrackedBoxes(
            np.array([one.track_id for one in told], dtype=np.int64),
            np.array([one.box() for one in told], dtype=np.float64).reshape(-1, width),
            np.array([one.index for one in told], dtype=np.int64),
        )


class Tracker:
    """Follows the predictions of one stream of frames.

    Args:
        settings: thresholds.
    """

    def __init__(self, settings: TrackSettings = TrackSettings()) -> None:
        self._tracks = ByteTrack(settings)

    @property
    def confirmed(self) -> int:
        """Tells how many objects were followed so far."""
        return self._tracks.confirmed

    def update(self, predictions: ImagePredictions) -> ImagePredictions:
        """Follows the next frame.

        Args:
            predictions: of the frame, made with a least score of `TRACK_CONF` so that weak ones keep tracks alive.

        Returns:
            Those of them that belong to a confirmed track, with `track_ids`, in the order given; boxes, masks and
            keypoints stay as the model gave them.

        Raises:
            UsageError: the predictions have no boxes.
        """
        if predictions.corners_xy is not None:
            boxes: NDArray[np.floating] = corners_to_rotated(predictions.corners_xy)
        elif predictions.boxes_xyxy is not None:
            boxes = predictions.boxes_xyxy
        else:
            raise UsageError(
                "a classifier's answers cannot be tracked", where="track", expected="detect, segment, pose or obb"
            )
        found = self._tracks.update(boxes, predictions.scores)
        order = np.argsort(found.indices)
        return replace(predictions.select(found.indices[order]), track_ids=found.track_ids[order])


def _overlaps(one: Sequence[FloatArray], other: Sequence[FloatArray]) -> FloatArray:
    """Returns (N, M) intersections over unions, in float32 as Ultralytics has them; of rotated boxes probabilistic."""
    a, b = np.array(one, dtype=np.float32), np.array(other, dtype=np.float32)
    if a.shape[1] == 5:
        return probabilistic_iou(a, b).astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    areas, others = np.prod(a[:, 2:] - a[:, :2], axis=1), np.prod(b[:, 2:] - b[:, :2], axis=1)
    ratio: FloatArray = (common / (areas[:, None] + others - common + _EPSILON)).astype(np.float64)
    return ratio
