# SPDX-License-Identifier: Apache-2.0
"""The one place where a recording policy is held to: every clause of it is a line here, and nothing else decides.

Asked when a request may be recorded (`choose`), before an image is kept (`redacted`), where a store or a backup is to lie (`check_place`),
when something is looked at or swept (`is_expired`, `surplus`), and before anything leaves the machine (`let_out`). Leaves to others: keeping,
encrypting, who may read. Safe to use from several threads. Stable.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import ForbiddenError, UsageError
from shipsight.model import ImagePredictions, Task
from shipsight.monitor.recording.policy import ImageForm, Leaves, Mode, Policy
from shipsight.monitor.recording.redaction import blur, regions_of

__all__ = ["REGION_FILE", "Candidate", "Enforcement", "Finder", "classes_in", "day_of"]

REGION_FILE = ".shipsight-region"
"""File whose one line is the label of all that lies in its folder and below; whoever provides the disk puts it there."""

Finder = Callable[[NDArray[np.uint8], float], ImagePredictions]
"""Finds objects in (height, width, 3) uint8 RGB pixels, of a least score."""

_LEVELS = (Leaves.NOTHING, Leaves.STATISTICS, Leaves.REDACTED_IMAGES)


@dataclass(frozen=True, eq=False)
class Candidate:
    """An image that was answered, and may be recorded.

    Attributes:
        model: name of who answered.
        predictions: the answer.
        subject: whom it is of, as the request says; None where it says nothing.
        is_sealed: whether the request was sealed.
        is_drifting: whether the model's drift alarm is on.
    """

    model: str
    predictions: ImagePredictions
    subject: str | None = None
    is_sealed: bool = False
    is_drifting: bool = False


@dataclass
class _Day:
    day: str
    total: int = 0
    classes: Counter[str] = field(default_factory=Counter)


class Enforcement:
    """Holds to a policy.

    Args:
        policy: it.
        chance: gives numbers in [0, 1); the system's own where None is given, so that nobody foresees which request is recorded.
    """

    def __init__(self, policy: Policy, *, chance: Callable[[], float] | None = None) -> None:
        self.policy = policy
        self._chance = chance or random.SystemRandom().random
        self._lock = threading.Lock()
        self._today = _Day("")
        self._asked: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    # --- what is recorded

    def resume(self, day: str, counts: Mapping[str, int]) -> None:
        """Goes on where a process before stopped, so that a restart gives no new quota.

        Args:
            day: of the counts, as `day_of` writes it.
            counts: recordings of that day by class; under the empty name all of them.
        """
        with self._lock:
            classes = Counter({name: count for name, count in counts.items() if name})
            self._today = _Day(day, counts.get("", 0), classes)

    def choose(self, one: Candidate, now: datetime) -> tuple[str, ...]:
        """Tells why an image is recorded, by names of rules; nothing where it is not. Counts it among the day's.

        Args:
            one: the image.
            now: UTC.
        """
        policy, rules = self.policy, self.policy.samples
        if policy.mode is not Mode.SAMPLES:
            return ()
        with self._lock:
            self._asked[one.model] += 1
            count = self._asked[one.model]
        picked = {
            "chance": rules.rate > 0 and self._chance() < rules.rate,
            "every": rules.every is not None and count % rules.every == 0,
            "low-score": rules.below_score is not None and _least_sure(one.predictions) < rules.below_score,
            "drift": rules.on_drift and one.is_drifting,
        }
        reasons = tuple(name for name, is_picked in picked.items() if is_picked)
        if not reasons:
            return ()
        # A sealed request promises that its image is in no file.
        if one.is_sealed:
            return self._leave_out("sealed")
        if policy.subject_header is not None and not one.subject:
            return self._leave_out("no-subject")
        return reasons if self._take(classes_in(one.predictions), day_of(now)) else ()

    def _take(self, classes: frozenset[str], day: str) -> bool:
        rules = self.policy.samples
        with self._lock:
            if self._today.day != day:
                self._today = _Day(day)
            today = self._today
            if today.total >= rules.most_day:
                self.left_out["day-full"] += 1
                return False
            most = rules.per_class_day
            if most is not None and classes and all(today.classes[one] >= most for one in classes):
                self.left_out["class-full"] += 1
                return False
            today.total += 1
            today.classes.update(classes)
        return True

    def _leave_out(self, why: str) -> tuple[str, ...]:
        with self._lock:
            self.left_out[why] += 1
        return ()

    # --- what is kept of it

    @property
    def keeps_image(self) -> bool:
        """Whether the image itself is kept."""
        return self.policy.samples.image is not ImageForm.NONE

    @property
    def keeps_bytes(self) -> bool:
        """Whether it is kept as it came."""
        return self.policy.samples.image is ImageForm.RECEIVED

    def check_finder(self, class_names: Sequence[str], task: Task, *, name: str) -> None:
        """Refuses a model that cannot find what is to be redacted.

        Args:
            class_names: its.
            task: what it answers.
            name: of it, for the message.

        Raises:
            UsageError: it has no such class, or says where nothing is.
        """
        classes = self.policy.redaction.classes
        if not classes or not self.keeps_image or self.policy.mode is not Mode.SAMPLES:
            return
        hint = "Name a bundle whose model finds them: redaction.bundle, or record no images: samples.image: none."
        if task is Task.CLASSIFY:
            raise UsageError("a model that classifies says not where", where="redaction.classes", got=name, hint=hint)
        lacking = [one for one in classes if one not in class_names]
        if lacking:
            raise UsageError(
                f"{name} has no class to redact",
                where="redaction.classes",
                expected=", ".join(class_names[:40]),
                got=", ".join(lacking),
                hint=hint,
            )

    def redacted(
        self, image_rgb: NDArray[np.uint8], answer: ImagePredictions, find: Finder | None
    ) -> NDArray[np.uint8]:
        """Returns an image with what the policy names made unrecognizable; the image itself where it names nothing.

        What the request was answered counts, but does not suffice: its thresholds are the asker's.

        Args:
            image_rgb: (height, width, 3) uint8.
            answer: what the request was answered; other classes are passed over.
            find: finds what is to be redacted.

        Raises:
            UsageError: something is to be redacted, and nobody finds it.
        """
        clause = self.policy.redaction
        if not clause.classes:
            return image_rgb
        if find is None:
            raise UsageError("nobody finds what is to be redacted", where="redaction.classes")
        found = find(image_rgb, clause.score)
        both = (found, answer) if (answer.height, answer.width) == (found.height, found.width) else (found,)
        regions = [
            region
            for one in both
            for region in regions_of(one, clause.classes, margin=clause.margin, score=clause.score)
        ]
        return blur(image_rgb, regions)

    # --- where, and for how long

    def check_place(self, folder: Path) -> str | None:
        """Refuses a folder that recordings, or a backup of them, may not lie in.

        Args:
            folder: there already; where links lead counts.

        Returns:
            The label of the place, None where it carries none.

        Raises:
            UsageError: it lies elsewhere than the policy says.
        """
        clause, place = self.policy.residency, folder.resolve()
        if clause.within and not any(place.is_relative_to(Path(one).resolve()) for one in clause.within):
            raise UsageError(
                "recordings may not lie here",
                where=place,
                expected=f"residency.within: {', '.join(clause.within)}",
            )
        region = _region_of(place)
        if clause.region is not None and region != clause.region:
            raise UsageError(
                "recordings may not lie in this region",
                where=place,
                expected=f"residency.region: {clause.region}",
                got=region or f"no {REGION_FILE} here or above",
            )
        return region

    def is_expired(self, at: datetime, now: datetime, then: Policy | None = None) -> bool:
        """Whether a recording's time has passed.

        Args:
            at: when it was made.
            now: UTC.
            then: policy that it was made under: a later one that keeps longer does not lengthen what was promised.
        """
        days = min(one.retention.days for one in (self.policy, then) if one is not None)
        return now - at >= timedelta(days=days)

    def surplus(self, sizes: Iterable[tuple[str, int]]) -> list[str]:
        """Returns which recordings have to go for want of room.

        Args:
            sizes: id and bytes of all, oldest first.
        """
        told = list(sizes)
        total, most = sum(size for _, size in told), self.policy.retention.most_bytes
        # A little more than has to go: else each new recording has one erased, with a receipt of its own.
        over = total - most * 0.95 if total > most else 0
        going = []
        for name, size in told:
            if over <= 0:
                break
            going.append(name)
            over -= size
        return going

    # --- what leaves

    def let_out(self, what: Leaves) -> None:
        """Lets pass what may leave the machine.

        Raises:
            ForbiddenError: this may not.
        """
        if _LEVELS.index(what) > _LEVELS.index(self.policy.leaves):
            raise ForbiddenError(
                "the recording policy does not let this leave",
                where="leaves",
                expected=what.value,
                got=self.policy.leaves.value,
            )

    def lets_out_image(self, redacted: Sequence[str], then: Policy | None) -> bool:
        """Whether a recording may leave: all that is to be redacted now was, and the policy of its time let it out, too.

        Args:
            redacted: classes that were made unrecognizable in it.
            then: the policy that it was recorded under, None where it is not known.
        """
        policies = (self.policy, then)
        return (
            all(one is not None and one.leaves is Leaves.REDACTED_IMAGES for one in policies)
            and set(self.policy.redaction.classes) <= set(redacted)
            and bool(redacted)
        )


def day_of(at: datetime) -> str:
    """Returns the day of a time, in UTC, such as `2026-11-23`."""
    return at.astimezone(UTC).date().isoformat()


def _least_sure(found: ImagePredictions) -> float:
    if found.probabilities is not None:
        return float(found.probabilities.max(initial=0.0))
    return float(found.scores.min(initial=1.0))


def classes_in(found: ImagePredictions) -> frozenset[str]:
    """Returns the names of classes that were found; of an image that was classified the likeliest."""
    if found.probabilities is not None and found.probabilities.size:
        return frozenset({found.class_names[int(found.probabilities.argmax())]})
    return frozenset(found.class_names[one] for one in set(found.class_ids.tolist()))


def _region_of(place: Path) -> str | None:
    for folder in (place, *place.parents):
        try:
            return (folder / REGION_FILE).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeError) as error:
            raise UsageError("the label of the region cannot be read", where=folder / REGION_FILE) from error
    return None
