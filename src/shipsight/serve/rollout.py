# SPDX-License-Identifier: Apache-2.0
"""A rollout: which version of a model answers where a request names none, and which others have a share of its requests.

The current version answers. A canary answers a share of the requests in its place; a shadow is asked a share of them
again, and nobody sees its answers. Values and choice only: what changes them is `rollout_control`, where they are kept is
`rollout_record`, who is asked twice is `shadow`. Invariants: a key that a canary answers stays with it while its share
grows; every canary gets other keys; the choice depends on nothing but the rollout and the key. Stable.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipsight.errors import CorruptError, UsageError

__all__ = ["Rollout", "RolloutOptions", "Rollouts", "Share", "ShareOfModel", "parse_share", "position_of"]

_LONGEST_VERSION = 100


@dataclass(frozen=True)
class Share:
    """A version's share of a model's requests.

    Attributes:
        version: whose.
        share: above 0 to 1.
    """

    version: str
    share: float

    def __post_init__(self) -> None:
        is_number = isinstance(self.share, int | float) and not isinstance(self.share, bool)
        if not is_number or not 0 < self.share <= 1:
            raise UsageError("not a share", where="share", expected="above 0 to 1", got=repr(self.share)[:40])
        if not isinstance(self.version, str) or not 0 < len(self.version) <= _LONGEST_VERSION:
            raise UsageError("not a version", where="version", got=repr(self.version)[:40])

    def to_dict(self) -> dict[str, Any]:
        """Returns `version` and `share`."""
        return {"version": self.version, "share": self.share}

    @classmethod
    def from_dict(cls, given: object, *, where: str) -> Share | None:
        """Reads what `to_dict` returned, or None.

        Raises:
            UsageError: it is anything else.
        """
        if given is None:
            return None
        if not isinstance(given, dict) or set(given) != {"version", "share"}:
            raise UsageError("not a share", where=where, expected='{"version": "2", "share": 0.1} or null')
        return cls(given["version"], given["share"])


@dataclass(frozen=True)
class ShareOfModel:
    """A share as the command line names it: `MODEL:VERSION=SHARE`.

    Attributes:
        model: its name.
        share: of its requests.
    """

    model: str
    share: Share


def parse_share(text: str, *, option: str) -> ShareOfModel:
    """Reads `MODEL:VERSION=SHARE`.

    Args:
        text: for example `yolo11n:2=0.1`.
        option: where it stands, for messages.

    Raises:
        UsageError: it is anything else.
    """
    found = re.fullmatch(r"(?P<model>[^:=]+):(?P<version>[^:=]+)=(?P<share>\d*\.?\d+)", text)
    if found is None:
        raise UsageError("not a share", where=option, expected="MODEL:VERSION=SHARE, such as yolo11n:2=0.1", got=text)
    return ShareOfModel(found["model"], Share(found["version"], float(found["share"])))


@dataclass(frozen=True)
class RolloutOptions:
    """What an operator says of rollouts when a server starts.

    Attributes:
        state_dir: where decisions are kept; None keeps them as long as the serving process lives.
        canaries: begun at start.
        shadows: begun at start.
    """

    state_dir: Path | None = None
    canaries: tuple[ShareOfModel, ...] = ()
    shadows: tuple[ShareOfModel, ...] = ()

    def __post_init__(self) -> None:
        for option, shares in (("--canary", self.canaries), ("--shadow", self.shadows)):
            names = [one.model for one in shares]
            if len(set(names)) != len(names):
                raise UsageError("a model has one at a time", where=option, got=", ".join(names))

    def after_start(self) -> RolloutOptions:
        """Returns what a serving process is told that takes another's place: what was decided since stands."""
        return dataclasses.replace(self, canaries=(), shadows=())

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> RolloutOptions:
        """Reads what `dataclasses.asdict` and JSON made of it."""

        def shares(key: str) -> tuple[ShareOfModel, ...]:
            return tuple(ShareOfModel(one["model"], Share(**one["share"])) for one in told[key])

        state_dir = told["state_dir"]
        return cls(None if state_dir is None else Path(state_dir), shares("canaries"), shares("shadows"))


@dataclass(frozen=True)
class Rollout:
    """How a model's requests that name no version are divided.

    Attributes:
        model: its name.
        current: version that answers; None while nobody has decided: then the one that ever came into service first.
        previous: version that was current before, None before the first promotion.
        canary: answers a share in place of the current one.
        shadow: is asked a share again.
    """

    model: str
    current: str | None = None
    previous: str | None = None
    canary: Share | None = None
    shadow: Share | None = None

    def __post_init__(self) -> None:
        for name, one in (("canary", self.canary), ("shadow", self.shadow)):
            if one is not None and one.version == self.current:
                raise UsageError(
                    f"the current version cannot be its own {name}", where=self.model, got=f"version {one.version}"
                )

    def is_canary(self, key: str) -> bool:
        """Tells whether a key belongs to the canary."""
        one = self.canary
        return one is not None and position_of("canary", self.model, one.version, key) < one.share

    def is_mirrored(self, key: str) -> bool:
        """Tells whether the shadow is asked again what a key asked."""
        one = self.shadow
        return one is not None and position_of("shadow", self.model, one.version, key) < one.share

    def promoted(self, version: str) -> Rollout:
        """Returns the rollout with another current version; shares of that version end."""
        if version == self.current:
            return self
        return Rollout(
            self.model,
            current=version,
            previous=self.current,
            canary=None if self.canary is None or self.canary.version == version else self.canary,
            shadow=None if self.shadow is None or self.shadow.version == version else self.shadow,
        )

    def rolled_back(self) -> Rollout:
        """Returns the rollout with the version before as the current one; a canary ends in any case.

        Raises:
            UsageError: there is neither a version before nor a canary.
        """
        if self.previous is None and self.canary is None:
            raise UsageError(
                "nothing to roll back", where=self.model, expected="a version that was current before, or a canary"
            )
        without = dataclasses.replace(self, canary=None)
        return without if self.previous is None else without.promoted(self.previous)

    def with_shares(self, shares: Mapping[str, Share | None]) -> Rollout:
        """Returns the rollout with other shares: `canary` and `shadow`, None to end one; what is not named stays."""
        return dataclasses.replace(
            self, canary=shares.get("canary", self.canary), shadow=shares.get("shadow", self.shadow)
        )

    def ended(self) -> Rollout:
        """Returns the rollout without canary and shadow."""
        return dataclasses.replace(self, canary=None, shadow=None)

    def role_of(self, version: str) -> str | None:
        """Returns `current`, `canary`, `shadow` or `previous`, the first that holds, or None."""
        if version == self.current:
            return "current"
        if self.canary is not None and self.canary.version == version:
            return "canary"
        if self.shadow is not None and self.shadow.version == version:
            return "shadow"
        return "previous" if version == self.previous else None

    def to_dict(self) -> dict[str, Any]:
        """Returns `current, previous, canary, shadow`."""
        return {
            "current": self.current,
            "previous": self.previous,
            "canary": None if self.canary is None else self.canary.to_dict(),
            "shadow": None if self.shadow is None else self.shadow.to_dict(),
        }

    @classmethod
    def from_dict(cls, model: str, given: object) -> Rollout:
        """Reads what `to_dict` returned.

        Raises:
            CorruptError: it is anything else.
        """
        if not isinstance(given, dict) or set(given) != {"current", "previous", "canary", "shadow"}:
            raise CorruptError("not a rollout", where=model, expected="current, previous, canary and shadow")
        for key in ("current", "previous"):
            if not isinstance(given[key], str | None):
                raise CorruptError("not a version", where=f"{model}.{key}", got=repr(given[key])[:40])
        try:
            shares = {key: Share.from_dict(given[key], where=key) for key in ("canary", "shadow")}
            return cls(model, given["current"], given["previous"], shares["canary"], shares["shadow"])
        except UsageError as error:
            raise CorruptError("not a rollout", where=model, got=error) from error


def position_of(*parts: str) -> float:
    """Returns a number in [0, 1), the same for the same texts and evenly spread over different ones."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    # 53 bits: what a float holds exactly, so that 1 is never reached.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


class Rollouts:
    """The rollout of each model; read by every request, changed by `rollout_control` alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rollouts: dict[str, Rollout] = {}

    def of(self, model: str) -> Rollout:
        """Returns a model's rollout, an empty one where nobody has decided anything."""
        return self._rollouts.get(model) or Rollout(model)

    def put(self, rollout: Rollout) -> None:
        """Replaces a model's rollout; requests that come from now on follow it."""
        with self._lock:
            self._rollouts = {**self._rollouts, rollout.model: rollout}
