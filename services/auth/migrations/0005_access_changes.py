"""The feed of removed access, by which apps invalidate their access caches."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "access_changes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("changes", JSONB, nullable=False),
        sa.Column("position", sa.BigInteger),  # NULL until the removal is acknowledged
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        schema="auth",
    )
    op.create_index("access_changes_position", "access_changes", ["position"], schema="auth")
    op.create_table(  # of one row
        "access_feed",
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("purged", sa.BigInteger, nullable=False),
        schema="auth",
    )
    op.execute("INSERT INTO auth.access_feed VALUES (0, 0)")


def downgrade() -> None:
    op.drop_table("access_feed", schema="auth")
    op.drop_table("access_changes", schema="auth")
