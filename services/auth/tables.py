"""Tables of the schema `auth`."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Identity,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    func,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA: Final = "auth"
metadata = MetaData(schema=SCHEMA)

signing_keys: Final = Table(
    "signing_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("public", JSONB, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("signs_from", DateTime(timezone=True), nullable=False),
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("organization_id", Text),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("scopes", JSONB, nullable=False),
    Column("rate_limit", JSONB(none_as_null=True)),
    Column("budget", JSONB(none_as_null=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("start", Text, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    Column("previous_start", Text, unique=True),
    Column("previous_digest", LargeBinary),
    Column("previous_expires_at", DateTime(timezone=True)),
)

api_key_charges: Final = Table(
    "api_key_charges",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("reference", Text, primary_key=True),
    Column("amount", Numeric, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

api_key_days: Final = Table(
    "api_key_days",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("amount", Numeric, nullable=False),
)

sessions: Final = Table(
    "sessions",
    metadata,
    Column("sid", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("scopes", JSONB, nullable=False),
    Column("authenticated_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("digest", LargeBinary, nullable=False),
    Column("previous_digest", LargeBinary),
    Column("rotated_at", DateTime(timezone=True)),
)

revocations: Final = Table(
    "revocations",
    metadata,
    Column("claim", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("issued_until", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)

audit_events: Final = Table(
    "audit_events",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("action", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("object", Text),
    Column("key_id", Text),
    Column("details", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("reference", Text, unique=True),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("writes", JSONB, nullable=False),
    Column("deletes", JSONB, nullable=False),
    Column("refused_at", DateTime(timezone=True)),
)

share_links: Final = Table(
    "share_links",
    metadata,
    Column("link_id", Text, primary_key=True),
    Column("object", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("created_by", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
)

deletions: Final = Table(
    "deletions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, unique=True),
    Column("user_digest", LargeBinary, index=True),
    Column("status", Text, nullable=False, server_default="RUNNING"),
    Column("parts", JSONB, nullable=False, server_default="{}"),
    Column("requested_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("completed_at", DateTime(timezone=True)),
    Column("workflow_kept", Boolean, nullable=False, server_default=true()),
)

access_changes: Final = Table(
    "access_changes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("changes", JSONB, nullable=False),
    Column("position", BigInteger),  # NULL until the removal is acknowledged
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

access_feed: Final = Table(  # of one row
    "access_feed",
    metadata,
    Column("position", BigInteger, nullable=False),
    Column("purged", BigInteger, nullable=False),
)
