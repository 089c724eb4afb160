# SPDX-License-Identifier: Apache-2.0
"""What may be done: actions, roles, and what a principal was granted. Denied by default.

A grant is a role on the models that its patterns name; an action that concerns no single model needs a grant on all (`*`).
What a model holds is apart from the model: golden images, recordings and labels each have an action of their own. Invariants:
no role that may change anything may read the audit log, none that may read it may change anything; nobody is above the table.
Leaves to others: who asks (`principal`), where grants are kept (`store`). Stable. Source: OWASP ASVS 5.0, 8.2 and 8.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from shipsight.errors import UsageError

__all__ = [
    "ALL_MODELS",
    "AUDIT_ACTIONS",
    "HUMAN_ACTIONS",
    "NO_RIGHTS",
    "OPEN_RIGHTS",
    "ROLES",
    "SERVER_RIGHTS",
    "Action",
    "Grant",
    "Rights",
    "Role",
    "check_models",
]

ALL_MODELS = ("*",)


class Action(StrEnum):
    """What may be allowed. The part before the dot is what is acted on."""

    MODELS_READ = "models.read"
    MODELS_PREDICT = "models.predict"
    MODELS_LOAD = "models.load"
    ROLLOUT_READ = "rollout.read"
    ROLLOUT_SHARE = "rollout.share"
    ROLLOUT_PROMOTE = "rollout.promote"
    GOLDEN_READ = "golden.read"
    RECORDINGS_READ = "recordings.read"
    RECORDINGS_CHANGE = "recordings.change"
    LABELS_READ = "labels.read"
    DATA_EXPORT = "data.export"
    KEYS_RELEASE = "keys.release"
    METRICS_READ = "metrics.read"
    ACCESS_READ = "access.read"
    ACCESS_CHANGE = "access.change"
    AUDIT_READ = "audit.read"
    AUDIT_REVIEW = "audit.review"

    @property
    def concerns_model(self) -> bool:
        """Whether it is done to one model: then a grant on that model is enough."""
        return self not in _GLOBAL

    @property
    def changes(self) -> bool:
        """Whether it changes something, or hands out what cannot be taken back: people who may do it need two factors."""
        return self in _CHANGING

    @property
    def is_sensitive(self) -> bool:
        """Whether a person must have proved who they are a short while ago (step-up)."""
        return self in _SENSITIVE


_GLOBAL = frozenset(
    {
        Action.RECORDINGS_CHANGE,
        Action.METRICS_READ,
        Action.ACCESS_READ,
        Action.ACCESS_CHANGE,
        Action.AUDIT_READ,
        Action.AUDIT_REVIEW,
    }
)
_CHANGING = frozenset(
    {
        Action.MODELS_LOAD,
        Action.ROLLOUT_SHARE,
        Action.ROLLOUT_PROMOTE,
        Action.RECORDINGS_CHANGE,
        Action.DATA_EXPORT,
        Action.KEYS_RELEASE,
        Action.ACCESS_CHANGE,
    }
)
_SENSITIVE = frozenset(
    {
        Action.ROLLOUT_SHARE,
        Action.ROLLOUT_PROMOTE,
        Action.RECORDINGS_CHANGE,
        Action.DATA_EXPORT,
        Action.KEYS_RELEASE,
        Action.ACCESS_CHANGE,
        Action.AUDIT_REVIEW,
    }
)
AUDIT_ACTIONS = frozenset({Action.AUDIT_READ, Action.AUDIT_REVIEW})
"""Those of who reviews what others did."""
HUMAN_ACTIONS = AUDIT_ACTIONS | {Action.ACCESS_READ, Action.ACCESS_CHANGE}
"""Those that are for people alone."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_PATTERN = re.compile(r"[A-Za-z0-9._*?-]{1,128}")


@dataclass(frozen=True)
class Role:
    """A named set of actions.

    Attributes:
        name: lower case letters, digits and `-`, at most 32.
        actions: that it allows.

    Raises:
        UsageError: the name does not fit, it allows nothing, or it would both change things and read the audit log.
    """

    name: str
    actions: frozenset[Action]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError("not a name of a role", where="role", expected="a-z, 0-9 and -", got=repr(self.name))
        if not self.actions:
            raise UsageError("a role that allows nothing", where=self.name)
        if self.actions & AUDIT_ACTIONS and self.actions & _CHANGING:
            raise UsageError(
                "a role that reads the audit log may change nothing",
                where=self.name,
                got=", ".join(sorted(self.actions & _CHANGING)),
            )

    @property
    def needs_factors(self) -> bool:
        """Whether people who hold it need a second factor."""
        return any(one.changes for one in self.actions) or bool(self.actions & AUDIT_ACTIONS)

    @classmethod
    def from_dict(cls, name: str, told: object) -> Role:
        """Reads a role as a file tells it: `{"actions": [...]}`.

        Raises:
            UsageError: it is told otherwise, or names an action that there is not.
        """
        if not isinstance(told, Mapping) or set(told) != {"actions"} or not isinstance(told["actions"], list):
            raise UsageError("not a role", where=name, expected="actions: [...]")
        unknown = [one for one in told["actions"] if one not in set(Action)]
        if unknown:
            raise UsageError(
                "no such action", where=name, expected=", ".join(sorted(Action)), got=", ".join(map(repr, unknown))
            )
        return cls(name, frozenset(map(Action, told["actions"])))

    def to_dict(self) -> dict[str, Any]:
        """Returns what `from_dict` reads."""
        return {"actions": sorted(self.actions)}


_SEE = frozenset({Action.MODELS_READ, Action.ROLLOUT_READ})
ROLES: Mapping[str, Role] = {
    role.name: role
    for role in (
        Role("viewer", _SEE | {Action.METRICS_READ}),
        Role("predictor", frozenset({Action.MODELS_READ, Action.MODELS_PREDICT})),
        Role(
            "operator",
            _SEE | {Action.MODELS_PREDICT, Action.MODELS_LOAD, Action.METRICS_READ, Action.RECORDINGS_READ},
        ),
        Role(
            "deployer",
            _SEE
            | {
                Action.MODELS_PREDICT,
                Action.MODELS_LOAD,
                Action.ROLLOUT_SHARE,
                Action.ROLLOUT_PROMOTE,
                Action.METRICS_READ,
                Action.GOLDEN_READ,
            },
        ),
        Role("auditor", _SEE | {Action.METRICS_READ, Action.ACCESS_READ, Action.AUDIT_READ, Action.AUDIT_REVIEW}),
        Role("admin", _SEE | {Action.METRICS_READ, Action.ACCESS_READ, Action.ACCESS_CHANGE}),
    )
}
"""Roles that there always are, by name. Exporting data, releasing keys, reading labels and erasing recordings are in none: give them in a role of your own."""


@dataclass(frozen=True)
class Grant:
    """A role on some models.

    Attributes:
        role: its name.
        models: patterns of model names, `*` any text and `?` one character; one and more.

    Raises:
        UsageError: a pattern does not fit, or there is none.
    """

    role: str
    models: tuple[str, ...] = ALL_MODELS

    def __post_init__(self) -> None:
        check_models(self.models)

    def covers(self, model: str) -> bool:
        """Whether it is on a model."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def told(self) -> str:
        """Returns it as people write it: `deployer` or `deployer@team-a-*,shared`."""
        return self.role if self.models == ALL_MODELS else f"{self.role}@{','.join(self.models)}"

    @classmethod
    def parse(cls, text: str) -> Grant:
        """Reads what `told` returns."""
        role, at, models = text.partition("@")
        return cls(role, tuple(models.split(",")) if at else ALL_MODELS)


def check_models(patterns: tuple[str, ...]) -> None:
    """Refuses what is no list of patterns of model names.

    Raises:
        UsageError: it is not.
    """
    wrong = [one for one in patterns if not _PATTERN.fullmatch(one)]
    if wrong or not patterns:
        raise UsageError(
            "not patterns of model names", where="models", expected="letters, digits, . _ - * ?", got=", ".join(wrong)
        )


@dataclass(frozen=True)
class Rights:
    """What somebody may do: their grants, with the roles as they are now.

    Attributes:
        grants: pairs of the actions that are allowed and where.
    """

    grants: tuple[tuple[frozenset[Action], Grant], ...] = ()

    @classmethod
    def of(cls, grants: Iterable[Grant], roles: Mapping[str, Role]) -> Rights:
        """Resolves grants; one whose role is gone allows nothing."""
        return cls(tuple((roles[one.role].actions, one) for one in grants if one.role in roles))

    def allows(self, action: Action, model: str | None = None) -> bool:
        """Whether an action is allowed.

        Args:
            action: which.
            model: that it is done to; None for one that concerns no single model, which needs a grant on all.
        """
        return any(
            action in actions and (grant.models == ALL_MODELS if model is None else grant.covers(model))
            for actions, grant in self.grants
        )

    def allows_somewhere(self, action: Action) -> bool:
        """Whether an action is allowed on any model at all."""
        return any(action in actions for actions, _ in self.grants)

    @property
    def needs_factors(self) -> bool:
        """Whether a person with these rights needs a second factor."""
        return any(one.changes or one in AUDIT_ACTIONS for actions, _ in self.grants for one in actions)

    def within(self, other: Rights) -> Rights:
        """Returns these rights as far as somebody with the others has them, too: those of a key, within its owner's.

        A grant on patterns stays where each of its actions is allowed to the other on the same patterns or on all models.
        """
        kept = []
        for actions, grant in self.grants:
            allowed = frozenset(
                action
                for action in actions
                if any(action in theirs and _contains(one.models, grant.models) for theirs, one in other.grants)
            )
            if allowed:
                kept.append((allowed, grant))
        return Rights(tuple(kept))


def _contains(outer: tuple[str, ...], inner: tuple[str, ...]) -> bool:
    """Whether all that inner patterns name is named by outer ones: told only where a pattern is written in the other."""
    if inner == ALL_MODELS:  # allows what concerns no model, too
        return outer == ALL_MODELS
    return all(
        any(
            wide in ("*", narrow) or ("*" not in narrow and "?" not in narrow and fnmatchcase(narrow, wide))
            for wide in outer
        )
        for narrow in inner
    )


NO_RIGHTS = Rights()
SERVER_RIGHTS = Rights(tuple((role.actions, Grant(role.name)) for role in ROLES.values() if role.name != "auditor"))
"""Those of the server itself, and of who runs its commands on its machine."""
OPEN_RIGHTS = Rights(tuple((actions - {Action.ACCESS_CHANGE}, grant) for actions, grant in SERVER_RIGHTS.grants))
"""Those of whoever reaches a server on its own machine where nobody is known yet: not over access, else another user of that machine
would become its lasting administrator, without the setup code."""
