"""Columns and indexes of retention."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add them; no index includes a column that appends change, so these stay heap-only updates."""
    op.execute(
        """
        ALTER TABLE events.streams
            ADD COLUMN first_seq bigint NOT NULL DEFAULT 1,
            ADD COLUMN compacted boolean NOT NULL DEFAULT false
        """
    )
    op.execute(
        "CREATE INDEX streams_detailed ON events.streams (kind, closed_at) "
        "WHERE closed_at IS NOT NULL AND NOT compacted"
    )
    op.execute(
        "CREATE INDEX streams_compacted ON events.streams (kind, closed_at) "
        "WHERE closed_at IS NOT NULL AND compacted"
    )


def downgrade() -> None:
    """Drop the columns, and with them the indexes."""
    op.execute("ALTER TABLE events.streams DROP COLUMN first_seq, DROP COLUMN compacted")
