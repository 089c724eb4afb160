# SPDX-License-Identifier: Apache-2.0
"""What may be recorded of production, for how long, where, and what of it may leave: read from a small file.

A policy only says; `enforcement` holds to it, and nothing else does. Its digest names every clause, and stands in what is recorded, so
that what was promised then can be told later. The file is described in `docs/formats/recording-policy.md`. Stable.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

from shipsight.errors import CorruptError, LimitError, UsageError
from shipsight.model.strict_yaml import load_yaml

__all__ = [
    "ImageForm",
    "Leaves",
    "Mode",
    "Policy",
    "Redaction",
    "Residency",
    "Retention",
    "SamplingRules",
    "read_policy",
]

MOST_FILE_BYTES = 64 * 1024
_MOST_DAYS = 3650
_MOST_TEXT = 500
_HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
T = TypeVar("T", bound=StrEnum)


class Mode(StrEnum):
    """How much is recorded."""

    OFF = "off"
    STATISTICS = "statistics"
    SAMPLES = "samples"


class Leaves(StrEnum):
    """What may leave the machine, each with what stands before it."""

    NOTHING = "nothing"
    STATISTICS = "statistics"
    REDACTED_IMAGES = "redacted-images"


class ImageForm(StrEnum):
    """How the image of a sample is kept."""

    NONE = "none"
    REENCODED = "reencoded"
    RECEIVED = "received"


@dataclass(frozen=True)
class SamplingRules:
    """Which requests are recorded: those that any rule picks, within the limits.

    Attributes:
        rate: share of all images that is picked by chance, 0 to 1.
        every: each so manieth image of a model is picked; None for none.
        below_score: an image is picked whose least sure prediction, or likeliest class, has a lower score, 0 to 1; None for none.
        on_drift: whether images are picked while the model's drift alarm is on.
        per_class_day: an image is left out once each class that was found in it has been recorded so often that day; None for no limit.
        most_day: most recordings a day.
        image: `none`, `reencoded` (a JPEG of quality 90 without the file's metadata) or `received` (its bytes as they came, with place and
            camera where the file tells them).
    """

    rate: float = 0.0
    every: int | None = None
    below_score: float | None = None
    on_drift: bool = False
    per_class_day: int | None = None
    most_day: int = 1000
    image: ImageForm = ImageForm.REENCODED

    def __post_init__(self) -> None:
        _check_number("samples.rate", self.rate, 0, 1)
        _check_number("samples.every", self.every, 1, 10**9, is_whole=True, may_lack=True)
        _check_number("samples.below_score", self.below_score, 0, 1, may_lack=True)
        _check_kind("samples.on_drift", self.on_drift, bool)
        _check_number("samples.per_class_day", self.per_class_day, 1, 10**9, is_whole=True, may_lack=True)
        _check_number("samples.most_day", self.most_day, 1, 10**9, is_whole=True)

    @property
    def picks_any(self) -> bool:
        """Whether any rule can pick a request."""
        return bool(self.rate or self.every or self.below_score or self.on_drift)


@dataclass(frozen=True)
class Retention:
    """How long recordings are kept; then their keys are destroyed.

    Attributes:
        days: after so many a recording ends, 1 to 3650. 30 as the shortest time in which a month can be looked back on.
        most_bytes: of all that is kept; the oldest end first.
    """

    days: int = 30
    most_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        _check_number("retention.days", self.days, 1, _MOST_DAYS, is_whole=True)
        _check_number("retention.most_bytes", self.most_bytes, 1 << 20, 1 << 60, is_whole=True)


@dataclass(frozen=True)
class Residency:
    """Where recordings and backups of them may lie.

    Attributes:
        region: label that the place must carry (`docs/recording.md`), None for any.
        within: absolute folders, in one of which they must lie; anywhere where empty.
    """

    region: str | None = None
    within: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.region is not None and not (isinstance(self.region, str) and _REGION.fullmatch(self.region)):
            raise _wrong("residency.region", "letters, digits and . _ -", self.region)
        _check_texts("residency.within", self.within)
        for one in self.within:
            if not Path(one).is_absolute():
                raise _wrong("residency.within", "absolute folders", one)


@dataclass(frozen=True)
class Redaction:
    """What is made unrecognizable in an image before it is kept.

    Attributes:
        classes: names of those whose objects are; none where empty.
        score: objects of this score and more are, 0 to 1. Low, since one that is missed is worse than one too many.
        margin: by what share of its size a box is enlarged on each side, a mask of the larger of its sides; 0 to 2.
        bundle: of the model that finds them; None for the one that is served.
    """

    classes: tuple[str, ...] = ()
    score: float = 0.1
    margin: float = 0.2
    bundle: str | None = None

    def __post_init__(self) -> None:
        _check_texts("redaction.classes", self.classes)
        _check_number("redaction.score", self.score, 0, 1)
        _check_number("redaction.margin", self.margin, 0, 2)
        if self.bundle is not None:
            _check_texts("redaction.bundle", (self.bundle,))
            if not self.classes:
                raise _wrong("redaction.classes", "what the bundle is to find", "none")


@dataclass(frozen=True)
class Policy:
    """What may be recorded.

    Attributes:
        mode: how much.
        purposes: what for, in words that people who are recorded would understand; samples take at least one.
        samples: which requests.
        retention: for how long.
        residency: where.
        leaves: what may leave the machine.
        redaction: what is made unrecognizable first.
        subject_header: name of the request's header, in lower case, that says whom an image is of; what it says is kept as an HMAC alone, and a
            request without it is not recorded. None where nothing says that: then one person's recordings cannot be found, only a day's.

    Raises:
        UsageError: a clause is out of range, or two do not go together; its name is told.
    """

    mode: Mode = Mode.STATISTICS
    purposes: tuple[str, ...] = ()
    samples: SamplingRules = field(default_factory=SamplingRules)
    retention: Retention = field(default_factory=Retention)
    residency: Residency = field(default_factory=Residency)
    leaves: Leaves = Leaves.NOTHING
    redaction: Redaction = field(default_factory=Redaction)
    subject_header: str | None = None

    def __post_init__(self) -> None:
        _check_texts("purposes", self.purposes)
        header = self.subject_header
        if header is not None and not (isinstance(header, str) and _HEADER.fullmatch(header)):
            raise _wrong("subject_header", "a header's name in lower case", header)
        if self.mode is Mode.SAMPLES:
            if not self.purposes:
                raise _wrong("purposes", "what samples are recorded for", "none")
            if not self.samples.picks_any:
                raise _wrong("samples", "a rule that picks some: rate, every, below_score or on_drift", "none")
        if self.redaction.classes and self.samples.image is ImageForm.RECEIVED:
            raise _wrong("samples.image", "reencoded or none, since something is redacted", self.samples.image.value)
        if self.leaves is Leaves.REDACTED_IMAGES and not self.redaction.classes:
            raise _wrong("redaction.classes", "what is redacted in images that may leave", "none")

    @property
    def digest(self) -> str:
        """SHA-256 of all its clauses, in hexadecimal."""
        told = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(b"shipsight recording policy 1\n" + told.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Returns what `from_dict` reads; with every clause, also those that were not written."""
        told = asdict(self)
        told["purposes"] = list(self.purposes)
        told["residency"]["within"] = list(self.residency.within)
        told["redaction"]["classes"] = list(self.redaction.classes)
        return {"schema": 1, **told}

    @classmethod
    def from_dict(cls, told: object, *, where: str = "policy") -> Self:
        """Reads a policy.

        Raises:
            UsageError: a key is unknown or a value does not fit.
        """
        given = _keys(told, where, {"schema", *(one.name for one in fields(cls))})
        if given.pop("schema", None) != 1:
            raise UsageError("not a recording policy of this version", where=f"{where}: schema", expected="1")
        for name, kind in _SECTIONS.items():
            if name in given:
                section = _keys(given[name], f"{where}: {name}", {one.name for one in fields(kind)})
                if "image" in section:
                    section["image"] = _choice("samples.image", ImageForm, section["image"])
                given[name] = kind(**{key: _tupled(one) for key, one in section.items()})
        if "mode" in given:
            given["mode"] = _choice("mode", Mode, given["mode"])
        if "leaves" in given:
            given["leaves"] = _choice("leaves", Leaves, given["leaves"])
        return cls(**{key: _tupled(one) for key, one in given.items()})


_SECTIONS: Mapping[str, Any] = {
    "samples": SamplingRules,
    "retention": Retention,
    "residency": Residency,
    "redaction": Redaction,
}


def read_policy(path: Path) -> Policy:
    """Reads a policy from its file.

    Raises:
        UsageError: the file cannot be read, is no YAML, or says something that does not fit.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_FILE_BYTES + 1)
        told = load_yaml(data, where=str(path), limit_bytes=MOST_FILE_BYTES)
    except OSError as error:
        raise UsageError("not a file that can be read", where=path, got=error.strerror) from error
    except (CorruptError, LimitError) as error:
        raise UsageError(error.what, where=error.where, expected=error.expected, got=error.got) from error
    return Policy.from_dict(told, where=str(path))


def _keys(told: object, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(told, Mapping):
        raise UsageError("not keys and values", where=where, expected=", ".join(sorted(known)))
    unknown = sorted(str(one) for one in told if one not in known)
    if unknown:
        raise UsageError("unknown keys", where=where, expected=", ".join(sorted(known)), got=", ".join(unknown))
    return dict(told)


def _tupled(value: object) -> Any:  # noqa: ANN401 - of any clause; each is checked where it is made
    return tuple(value) if isinstance(value, list) else value


def _choice(where: str, kind: type[T], value: Any) -> T:  # noqa: ANN401 - as it was written
    try:
        return kind(value)
    except ValueError as error:
        raise _wrong(where, ", ".join(kind), value) from error


def _check_number(
    where: str,
    value: Any,  # noqa: ANN401 - as it was written
    least: float,
    most: float,
    *,
    is_whole: bool = False,
    may_lack: bool = False,
) -> None:
    if value is None and may_lack:
        return
    # A boolean is a number in Python, and none here.
    if type(value) not in ((int,) if is_whole else (int, float)) or not least <= value <= most:
        raise _wrong(where, f"{'a whole number' if is_whole else 'a number'} from {least} to {most}", value)


def _check_kind(where: str, value: object, kind: type) -> None:
    if type(value) is not kind:
        raise _wrong(where, "true or false", value)


def _check_texts(where: str, texts: Any) -> None:  # noqa: ANN401 - as they were written
    is_listed = isinstance(texts, tuple) and all(isinstance(one, str) for one in texts)
    if not is_listed or any(not one.strip() or len(one) > _MOST_TEXT for one in texts):
        raise _wrong(where, f"texts of 1 to {_MOST_TEXT} characters", texts)


def _wrong(where: str, expected: str, got: object) -> UsageError:
    return UsageError("the recording policy cannot be held to", where=where, expected=expected, got=got)
