# SPDX-License-Identifier: Apache-2.0
"""A shadow: what the current version was asked is asked of another version again, and the answers are compared.

Invariants: a caller has its answer before anything happens here, and what happens here has a thread of its own, so that a
shadow which is slow, fails or hangs holds up nobody; it begins an image only while no caller waits for a thread; what it
cannot keep up with is dropped and counted. The thread runs at normal priority: at a lower one it would be put to sleep
while it holds the interpreter's lock, and callers would wait for that. Leaves to others: who is mirrored (`rollout`),
counting (`tally`). Stable.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shipsight.errors import ShipsightError
from shipsight.model import ImagePredictions
from shipsight.proof.matching import Found, MatchCriteria, match
from shipsight.serve.models import Models, ModelState, ServedModel
from shipsight.serve.scheduler import LaneClosedError, Scheduler
from shipsight.serve.tally import Agreement

__all__ = ["Mirrored", "Shadow", "criteria_of"]

_log = logging.getLogger("shipsight.serve")
_MOST_WAITING = 16
_MOST_WAITING_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class Mirrored:
    """An image that the current version predicted on.

    Attributes:
        predictions: what it said.
        took_ms: milliseconds that it took, without waiting.
        conf: least score that was asked for.
        size_bytes: of the image as it came.
        again: asks another version; returns what that says and the milliseconds it took.
    """

    predictions: ImagePredictions
    took_ms: float
    conf: float
    size_bytes: int
    again: Callable[[ServedModel], tuple[ImagePredictions, float]]


def criteria_of(one: Mirrored) -> MatchCriteria:
    """Returns when two predictions are the same: of a class, IoU and score as everywhere in shipsight.

    Nothing is known below the score asked for, and a partner may lie a little below the threshold: only predictions that
    far above it count. Of a classifier the best class counts, whatever its score.
    """
    if one.predictions.probabilities is not None:
        return MatchCriteria(conf=0.0)
    tolerance = MatchCriteria().score
    return MatchCriteria(conf=min(one.conf + tolerance, one.conf * 2))


class Shadow:
    """Asks shadows, one image at a time.

    Args:
        models: in service.
        scheduler: whose callers come first.
    """

    def __init__(self, models: Models, scheduler: Scheduler) -> None:
        self._models, self._scheduler = models, scheduler
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, str, Mirrored]] = deque()
        self._waiting_bytes = 0
        self._agreements: dict[tuple[str, str], Agreement] = {}
        self._thread: threading.Thread | None = None
        self._closing = False

    def mirror(self, answered: ServedModel, key: str, images: Sequence[Mirrored]) -> None:
        """Queues what the shadow of a model is asked again; returns at once.

        Args:
            answered: version that the caller had an answer from; only the current one is compared with.
            key: of the request.
            images: of the request.
        """
        rollout = self._models.rollouts.of(answered.name)
        if rollout.shadow is None or answered.version != rollout.current or not rollout.is_mirrored(key):
            return
        version = rollout.shadow.version
        with self._changed:
            agreement = self._agreements.setdefault((answered.name, version), Agreement())
            for one in images:
                has_room = self._waiting_bytes + one.size_bytes <= _MOST_WAITING_BYTES
                if self._closing or len(self._waiting) >= _MOST_WAITING or not has_room:
                    agreement.drop()
                    continue
                self._waiting.append((answered.name, version, one))
                self._waiting_bytes += one.size_bytes
            if self._thread is None:
                # A daemon: one that hangs in an engine must not keep the process from leaving.
                self._thread = threading.Thread(target=self._work, name="shipsight-shadow", daemon=True)
                self._thread.start()
            self._changed.notify()

    def agreements(self) -> Mapping[tuple[str, str], Agreement]:
        """Returns what was compared, by model and version."""
        with self._changed:
            return dict(self._agreements)

    def forget(self, model: str) -> None:
        """Begins to count anew."""
        with self._changed:
            self._agreements = {key: one for key, one in self._agreements.items() if key[0] != model}

    def close(self) -> None:
        """Takes nothing more and drops what waits."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                name, version, one = self._waiting.popleft()
                self._waiting_bytes -= one.size_bytes
                agreement = self._agreements.setdefault((name, version), Agreement())
            if self._scheduler.is_busy():
                agreement.drop()
                continue
            self._compare(name, version, one, agreement)

    def _compare(self, name: str, version: str, one: Mirrored, agreement: Agreement) -> None:
        try:
            model = self._models.find(name, version)
            if model.state is not ModelState.READY:
                agreement.drop()
                return
            with self._scheduler.borrow(model.lane):
                predictions, took_ms = one.again(model)
            report = match([Found.of(one.predictions)], [Found.of(predictions)], criteria_of(one))
        except LaneClosedError:
            agreement.drop()  # it leaves
        except ShipsightError as error:
            _log.warning("the shadow %s %s failed on an image: %s", name, version, error)
            agreement.fail()
        except Exception:  # noqa: BLE001 - the edge of the thread: a shadow's failure is its own
            _log.exception("the shadow %s %s failed on an image", name, version)
            agreement.fail()
        else:
            agreement.add(report, current_ms=one.took_ms, shadow_ms=took_ms)
