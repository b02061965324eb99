"""The outbox of tuple changes, and share links."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"

AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "outbox",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("writes", JSONB, nullable=False),
        sa.Column("deletes", JSONB, nullable=False),
        sa.Column("refused_at", AT),
        schema="auth",
    )
    op.create_table(
        "share_links",
        sa.Column("link_id", sa.Text, primary_key=True),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("expires_at", AT),
        sa.Column("ended_at", AT),
        schema="auth",
    )
    op.create_index("share_links_object", "share_links", ["object"], schema="auth")
    op.create_index("share_links_owner", "share_links", ["created_by"], schema="auth")
    op.create_index(
        "share_links_expiry",
        "share_links",
        ["expires_at"],
        schema="auth",
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("share_links", schema="auth")
    op.drop_table("outbox", schema="auth")
