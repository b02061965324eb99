"""API keys and their charges, sessions, revocations, and the audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _keys()
    _sessions()
    op.create_table(
        "audit_events",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("object", sa.Text),
        sa.Column("key_id", sa.Text),
        sa.Column("details", JSONB, nullable=False),
        sa.Column("at", AT, nullable=False),
        sa.Column("reference", sa.Text, unique=True),
        schema="auth",
    )
    op.create_index("audit_events_owner", "audit_events", ["owner", "number"], schema="auth")
    op.create_index("audit_events_at", "audit_events", ["at"], schema="auth")


def _keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("scopes", JSONB, nullable=False),
        sa.Column("rate_limit", JSONB),
        sa.Column("budget", JSONB),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("expires_at", AT),
        sa.Column("last_used_at", AT),
        sa.Column("revoked_at", AT),
        sa.Column("start", sa.Text, nullable=False, unique=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("previous_start", sa.Text, unique=True),
        sa.Column("previous_digest", sa.LargeBinary),
        sa.Column("previous_expires_at", AT),
        schema="auth",
    )
    op.create_index("api_keys_owner", "api_keys", ["user_id", "number"], schema="auth")
    op.create_table(
        "api_key_charges",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("reference", sa.Text, primary_key=True),
        sa.Column("amount", sa.Numeric, nullable=False),
        sa.Column("at", AT, nullable=False),
        schema="auth",
    )
    op.create_index("api_key_charges_at", "api_key_charges", ["at"], schema="auth")
    op.create_table(
        "api_key_days",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("amount", sa.Numeric, nullable=False),
        schema="auth",
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("sid", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("scopes", JSONB, nullable=False),
        sa.Column("authenticated_at", AT, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("expires_at", AT, nullable=False),
        sa.Column("ended_at", AT),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("previous_digest", sa.LargeBinary),
        sa.Column("rotated_at", AT),
        schema="auth",
    )
    op.create_index("sessions_user", "sessions", ["user_id"], schema="auth")
    op.create_table(
        "revocations",
        sa.Column("claim", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("issued_until", AT, nullable=False),
        sa.Column("expires_at", AT, nullable=False),
        schema="auth",
    )


def downgrade() -> None:
    names = ("audit_events", "revocations", "sessions", "api_key_days", "api_key_charges")
    for name in (*names, "api_keys"):
        op.drop_table(name, schema="auth")
