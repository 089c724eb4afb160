# SPDX-License-Identifier: Apache-2.0
"""The tables, as the newest migration leaves them; a test compares the two. Private to the room.

Times are UTC, kept as milliseconds since 1970. What is secret is here as a hash, or encrypted by `SecretBox` with the row's id
as associated data: such columns say `sealed` in their `info`. Tables of what lasts for a while alone say `backed_up: False` in theirs.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

__all__ = [
    "UtcTime",
    "api_keys",
    "certificates",
    "challenges",
    "grants",
    "invitations",
    "known_devices",
    "metadata",
    "milliseconds",
    "passkeys",
    "recovery_codes",
    "roles",
    "sessions",
    "settings",
    "throttles",
    "totps",
    "users",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(time: datetime) -> int:
    """Returns a time as it is kept."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, to the millisecond."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Returns milliseconds since 1970."""
        return None if value is None else milliseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ANN401 - a driver's
        """Returns a time in UTC."""
        return None if value is None else _EPOCH + timedelta(milliseconds=int(value))


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

settings = Table(
    "settings",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # as compared: lower case
    Column("display_name", Text, nullable=False),
    Column("is_disabled", Boolean, nullable=False, default=False),
    Column("password_hash", Text),
    Column("password_changed_at", UtcTime),
    Column("webauthn_handle", LargeBinary, nullable=False, unique=True),
    Column("oidc_issuer", Text),
    Column("oidc_subject", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("signed_in_at", UtcTime),
    UniqueConstraint("oidc_issuer", "oidc_subject"),
)

roles = Table(
    "roles",
    metadata,
    Column("name", Text, primary_key=True),
    Column("told", JSON, nullable=False),  # as Role.to_dict gives it
)

# holder_kind: user, key, certificate, or group (of an OpenID provider, by its name).
grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("holder_kind", Text, nullable=False),
    Column("holder_id", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("models", JSON, nullable=False),
    Index("ix_grants_holder", "holder_kind", "holder_id"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE")),  # null: makes the first administrator
    Column("code_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
    info={"backed_up": False},
)

totps = Table(
    "totps",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("secret", LargeBinary, nullable=False, info={"sealed": True}),
    Column("last_step", BigInteger, nullable=False, default=0),
    Column("is_confirmed", Boolean, nullable=False, default=False),
    Column("created_at", UtcTime, nullable=False),
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("credential_id", LargeBinary, nullable=False, unique=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("is_backed_up", Boolean, nullable=False),
    Column("name", Text, nullable=False),
    Column("transports", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("code_hash", Text, nullable=False),
    Column("used_at", UtcTime),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("handle", Text, nullable=False, unique=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("csrf", Text, nullable=False),
    Column("factors", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("proved_at", UtcTime, nullable=False),
    Column("address", Text),
    Column("agent", Text),
    info={"backed_up": False},
)

# What a ceremony has to come back with: a sign-in that waits for its second factor, WebAuthn, OpenID Connect. Used once.
challenges = Table(
    "challenges",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE")),
    Column("told", JSON, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    info={"backed_up": False},
)

throttles = Table(
    "throttles",
    metadata,
    Column("name", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("blocked_until", UtcTime, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    info={"backed_up": False},
)

known_devices = Table(
    "known_devices",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    info={"backed_up": False},
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),  # stands in the key itself
    Column("name", Text, nullable=False),
    Column("owner_id", Text, ForeignKey("users.id", ondelete="CASCADE"), index=True),  # null: a service's
    Column("secret_hash", LargeBinary, nullable=False),
    Column("previous_hash", LargeBinary),
    Column("previous_until", UtcTime),
    Column("rate", Text),
    Column("quota", Text),
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("used_at", UtcTime),
    Column("revoked_at", UtcTime),
)

# Who a client's certificate stands for. field: sha256, subject, or name (an alternative name with its kind, `DNS:camera-1`).
certificates = Table(
    "certificates",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),  # certificate or device
    Column("field", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("rate", Text),
    Column("quota", Text),
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
    Column("revoked_at", UtcTime),
    UniqueConstraint("field", "value"),
)
