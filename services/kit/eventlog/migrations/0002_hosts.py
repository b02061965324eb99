"""Leases per host instead of per stream; recovery time, deadline, input and owed effect of a stream."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add events.hosts and the columns of recovery."""
    op.execute(
        """
        CREATE TABLE events.hosts (
            id text PRIMARY KEY,
            lock_key bigint NOT NULL,
            beat_at timestamptz NOT NULL DEFAULT now()
        ) WITH (fillfactor = 50)
        """
    )
    op.execute("DROP INDEX events.streams_open")
    op.execute(
        """
        ALTER TABLE events.streams
            DROP COLUMN driven_at,
            ADD COLUMN host text,
            ADD COLUMN due_at timestamptz NOT NULL DEFAULT now(),
            ADD COLUMN deadline timestamptz,
            ADD COLUMN input json,
            ADD COLUMN owed json
        """
    )
    # Appends change none of these columns, so they stay heap-only updates.
    op.execute(
        "CREATE INDEX streams_due ON events.streams (due_at) "
        "WHERE closed_at IS NULL AND host IS NULL"
    )
    op.execute("CREATE INDEX streams_host ON events.streams (host) WHERE closed_at IS NULL")
    op.execute("CREATE INDEX streams_deadline ON events.streams (deadline) WHERE closed_at IS NULL")
    op.execute("CREATE INDEX streams_owed ON events.streams (due_at) WHERE owed IS NOT NULL")
    op.execute("CREATE INDEX streams_owner ON events.streams (owner)")


def downgrade() -> None:
    """Restore a lease per stream."""
    for index in ("due", "host", "deadline", "owed", "owner"):
        op.execute(f"DROP INDEX events.streams_{index}")
    op.execute(
        """
        ALTER TABLE events.streams
            DROP COLUMN host, DROP COLUMN due_at, DROP COLUMN deadline, DROP COLUMN input,
            DROP COLUMN owed,
            ADD COLUMN driven_at timestamptz NOT NULL DEFAULT now()
        """
    )
    op.execute(
        "CREATE INDEX streams_open ON events.streams (kind, driven_at) WHERE closed_at IS NULL"
    )
    op.execute("DROP TABLE events.hosts")
