# SPDX-License-Identifier: Apache-2.0
"""Changing rollouts: promote, roll back, give a version a share, end. Every change is recorded before it takes effect.

Invariants: a version that is to answer is in service first, its golden set replayed; then the change is on disk; then
requests follow it. One change at a time. After a restart what was decided stands, or the server says why it cannot.
Leaves to others: values (`rollout`), the file (`rollout_record`), loading (`models`). Stable.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from shipsight.access import SERVER, Event, EventKind, EventSink, LoggedEvents, Outcome, Principal
from shipsight.errors import NotFoundError, ShipsightError, UsageError
from shipsight.serve.models import Models
from shipsight.serve.rollout import Rollout, RolloutOptions, Share
from shipsight.serve.rollout_record import Change, RolloutRecord
from shipsight.serve.shadow import Shadow
from shipsight.serve.tally import Tally, find_worse

__all__ = ["RolloutControl"]

_log = logging.getLogger("shipsight.serve")
_LONGEST_REASON = 500
_SHOWN_CHANGES = 20


class RolloutControl:
    """Changes rollouts and tells how they go.

    Args:
        models: in service; their table of rollouts is changed here alone.
        shadow: asks shadows.
        record: of what was decided.
        events: told of each change, before it is made.
        now: tells the time.
    """

    def __init__(
        self,
        models: Models,
        shadow: Shadow,
        record: RolloutRecord,
        *,
        events: EventSink | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._events, self._now_at = events or LoggedEvents(), now
        self.shadow = shadow
        self._models = models
        self._record = record
        self._changing = threading.RLock()
        self._tallies: dict[tuple[str, str], Tally] = {}

    def recall(self) -> None:
        """Puts what was decided in an earlier life; before anything answers."""
        for rollout in self._record.rollouts():
            self._models.rollouts.put(rollout)

    def resume(self, options: RolloutOptions) -> None:
        """Brings into service what was decided on, and begins what the operator named at start.

        Raises:
            UsageError: the current version of a model is not among the bundles, or a share names none.
            ReplayMismatchError, TamperedError, CorruptError, EnvironmentLackError, LimitError: as `Models.load`.
        """
        known = set(self._models.known())
        served = {name for name, _ in known}
        for rollout in self._record.rollouts():
            if rollout.model in served:
                self._resume(rollout, {version for name, version in known if name == rollout.model})
        for kind, shares in (("canary", options.canaries), ("shadow", options.shadows)):
            for one in shares:
                if self._models.current(one.model) == one.share.version:
                    _log.warning(
                        "--%s: version %s of %s is the current one already", kind, one.share.version, one.model
                    )
                    continue
                self.share(SERVER, one.model, {kind: one.share}, reason=f"--{kind}")

    def _resume(self, rollout: Rollout, known: set[str]) -> None:
        name = rollout.model
        if rollout.current is not None and rollout.current not in known:
            raise UsageError(
                "the current version of the model is not among the bundles",
                where=name,
                expected=f"version {rollout.current}, as it was decided",
                got=", ".join(sorted(known)),
                hint="Name its bundle, or its folder with --repository; or begin anew with another --state.",
            )
        if rollout.current is not None:
            self._models.bring(name, rollout.current)
        kept = rollout
        for kind in ("canary", "shadow"):
            share: Share | None = getattr(rollout, kind)
            if share is None:
                continue
            try:
                self._models.bring(name, share.version)
            except ShipsightError as error:
                # All requests then go to the current version: the safe side.
                _log.warning("the %s %s of %s ends: %s", kind, share.version, name, error)
                kept = kept.with_shares({kind: None})
        if kept != rollout:
            self._change(SERVER, "end", rollout, kept, "the version cannot be brought into service")

    def share(
        self, principal: Principal, model: str, shares: Mapping[str, Share | None], *, reason: str | None = None
    ) -> bool:
        """Gives versions a share of a model's requests; they are in service first.

        Args:
            principal: who decides.
            model: name of the model.
            shares: `canary` and `shadow`, None to end one; what is not named stays.
            reason: why.

        Returns:
            Whether that changed anything.

        Raises:
            NotFoundError: no such model or version.
            UsageError: a version is the current one.
            ShipsightError: a version cannot be brought into service.
        """
        with self._changing:
            before = self._now(model)
            if before.current is None:
                raise UsageError("no version is current", where=model, hint="Load or promote one first.")
            after = before.with_shares(shares)
            for one in shares.values():
                if one is not None:
                    self._models.bring(model, one.version, actor=principal)
            return self._change(principal, "share", before, after, reason)

    def promote(
        self, principal: Principal, model: str, version: str | None = None, *, reason: str | None = None
    ) -> bool:
        """Makes a version the current one; requests that come from then on go to it.

        Args:
            principal: who decides.
            model: name of the model.
            version: None for the canary.
            reason: why.

        Returns:
            Whether that changed anything: the version may be the current one already.

        Raises:
            UsageError: no version is named and there is no canary.
            NotFoundError: no such model or version.
            ShipsightError: the version cannot be brought into service.
        """
        with self._changing:
            before = self._now(model)
            if version is None:
                if before.canary is None:
                    raise UsageError("no version is named and there is no canary", where=model, expected="a version")
                version = before.canary.version
            self._models.bring(model, version, actor=principal)
            return self._change(principal, "promote", before, before.promoted(version), reason)

    def roll_back(self, principal: Principal, model: str, *, reason: str | None = None) -> bool:
        """Makes the version before the current one again, and ends a canary.

        Args:
            principal: who decides.
            model: name of the model.
            reason: why.

        Returns:
            True.

        Raises:
            UsageError: there is neither a version before nor a canary.
            NotFoundError: no such model, or the bundle of the version before is not known.
            ShipsightError: the version before cannot be brought into service.
        """
        with self._changing:
            before = self._now(model)
            after = before.rolled_back()
            if after.current is not None:
                self._models.bring(model, after.current, actor=principal)
            return self._change(principal, "rollback", before, after, reason)

    def end(self, principal: Principal, model: str, *, reason: str | None = None) -> bool:
        """Ends canary and shadow; all requests go to the current version.

        Returns:
            Whether that changed anything.

        Raises:
            NotFoundError: no such model.
        """
        with self._changing:
            before = self._now(model)
            return self._change(principal, "end", before, before.ended(), reason)

    def _now(self, model: str) -> Rollout:
        """Returns a model's rollout with the version that answers now named, decided on or not."""
        current = self._models.current(model)
        known = sorted({name for name, _ in self._models.known()})
        if model not in known:
            raise NotFoundError("no such model", where=model[:100], expected=", ".join(known) or "no model is known")
        return dataclasses.replace(self._models.rollouts.of(model), current=current)

    def _change(self, principal: Principal, action: str, before: Rollout, after: Rollout, reason: str | None) -> bool:
        if reason is not None and len(reason) > _LONGEST_REASON:
            raise UsageError("the reason is too long", where="reason", expected=f"{_LONGEST_REASON} letters")
        if before == after:
            return False
        self._tell(principal, action, before, after, reason)
        try:
            self._record.append(principal, action, before, after, reason)
        except ShipsightError as error:
            self._tell(principal, action, before, after, reason, why=error.code)
            raise
        self._models.rollouts.put(after)
        self.shadow.forget(after.model)
        self._tallies = {key: one for key, one in self._tallies.items() if key[0] != after.model}
        _log.info("%s: %s by %s: %s -> %s", after.model, action, principal.name, before.to_dict(), after.to_dict())
        return True

    def _tell(
        self,
        principal: Principal,
        action: str,
        before: Rollout,
        after: Rollout,
        reason: str | None,
        *,
        why: str | None = None,
    ) -> None:
        told: dict[str, str | int | float | bool | list[str] | None] = {"action": action, "reason": reason}
        for name in ("current", "previous", "canary", "shadow"):
            was, is_now = _shown(getattr(before, name)), _shown(getattr(after, name))
            if was is not None or is_now is not None:
                told |= {name: is_now, f"{name}_was": was}
        outcome = Outcome.DONE if why is None else Outcome.REFUSED
        subject, details = f"model:{after.model}", {name: one for name, one in told.items() if one is not None}
        at, actor = self._now_at(), principal.told()
        self._events.record(
            Event(at, EventKind.ROLLOUT_CHANGED, outcome, actor, subject=subject, why=why, details=details)
        )

    def count(self, model: str, version: str, took_s: float, *, has_failed: bool) -> None:
        """Counts a request that named no version."""
        tally = self._tallies.get((model, version))
        if tally is None:
            tally = self._tallies.setdefault((model, version), Tally())
        tally.add(took_s * 1e3, has_failed=has_failed)

    def tallies(self) -> dict[tuple[str, str], Tally]:
        """Returns how versions answer, by model and version."""
        return dict(self._tallies)

    def role_of(self, model: str, version: str) -> str | None:
        """Returns what a version is to its model: `current`, `canary`, `shadow`, `previous`, or None."""
        role = self._models.rollouts.of(model).role_of(version)
        return "current" if role is None and self._models.current(model) == version else role

    def report(self, model: str) -> dict[str, Any]:
        """Returns how a model's requests are divided and how that goes, counted since the last change or start.

        Raises:
            NotFoundError: no such model.
        """
        rollout = self._now(model)
        states = {one.version: one.state.value for one in self._models.all() if one.name == model}
        answers = {version: one.to_dict() for (name, version), one in list(self._tallies.items()) if name == model}
        told: dict[str, Any] = {"model": model, **rollout.to_dict(), "states": states, "answers": answers, "worse": []}
        current, canary = rollout.current, rollout.canary
        if canary is not None and canary.version in answers and current in answers:
            told["worse"] = find_worse(answers[current], answers[canary.version])
        told["comparison"] = None
        if rollout.shadow is not None:
            agreement = self.shadow.agreements().get((model, rollout.shadow.version))
            told["comparison"] = None if agreement is None else agreement.to_dict()
        told["changes"] = [_told(one) for one in self._record.changes(model)[-_SHOWN_CHANGES:]]
        return told

    def close(self) -> None:
        """Ends what runs, and lets another server keep its decisions in the same folder."""
        self.shadow.close()
        self._record.close()


def _shown(one: str | Share | None) -> str | None:
    """Returns a version, or `VERSION=SHARE`, as options have it."""
    return f"{one.version}={one.share:g}" if isinstance(one, Share) else one


def _told(change: Change) -> dict[str, Any]:
    told = change.to_dict()
    return {key: told[key] for key in ("time", "principal", "action", "from", "to", "reason")}
