"""Receipts of account deletions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "deletions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, unique=True),
        sa.Column("status", sa.Text, nullable=False, server_default="RUNNING"),
        sa.Column("parts", JSONB, nullable=False, server_default="{}"),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("workflow_kept", sa.Boolean, nullable=False, server_default=sa.true()),
        schema="auth",
    )


def downgrade() -> None:
    op.drop_table("deletions", schema="auth")
