"""Runs of jobs."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table: one row per cron job and per scheduled key of a one-shot job."""
    op.execute(
        """
        CREATE TABLE events.jobs (
            app text NOT NULL,
            name text NOT NULL,
            last_run text,
            owner uuid,
            lease_until timestamptz,
            attempts int NOT NULL DEFAULT 0,
            error text,
            at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (app, name)
        )
        """
    )


def downgrade() -> None:
    """Drop the table."""
    op.execute("DROP TABLE events.jobs")
