"""Tables of the event log, checkpoints and idempotency records."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE events.streams (
            id text PRIMARY KEY,
            kind text NOT NULL,
            owner text NOT NULL,
            subject text NOT NULL,
            last_seq bigint NOT NULL DEFAULT 0,
            attempt integer NOT NULL DEFAULT 0,
            cancel_requested_at timestamptz,
            cancel_acknowledged_at timestamptz,
            closed_at timestamptz,
            driven_at timestamptz NOT NULL DEFAULT now(),
            created_at timestamptz NOT NULL DEFAULT now()
        ) WITH (fillfactor = 70)
        """
    )
    op.execute(
        "CREATE INDEX streams_open ON events.streams (kind, driven_at) WHERE closed_at IS NULL"
    )
    op.execute("CREATE INDEX streams_subject ON events.streams (subject)")
    op.execute(
        """
        CREATE TABLE events.events (
            stream_id text NOT NULL,
            seq bigint NOT NULL,
            type text NOT NULL,
            attempt integer NOT NULL,
            data json NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (stream_id, seq)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE events.checkpoints (
            stream_id text NOT NULL,
            step text NOT NULL,
            seq bigint NOT NULL,
            attempt integer NOT NULL,
            value json NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (stream_id, step)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE events.idempotency (
            caller text NOT NULL,
            operation text NOT NULL,
            key text NOT NULL,
            fingerprint bytea NOT NULL,
            owner uuid NOT NULL,
            lease_until timestamptz NOT NULL,
            status integer,
            body bytea,
            created_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (caller, operation, key)
        ) WITH (fillfactor = 70)
        """
    )
    op.execute("CREATE INDEX idempotency_age ON events.idempotency (created_at)")


def downgrade() -> None:
    for table in ("idempotency", "checkpoints", "events", "streams"):
        op.execute(f"DROP TABLE events.{table}")
