"""Outbox, inbox and dead letters of pub/sub."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the tables; rows of all apps, told apart by their app-id."""
    op.execute(
        """
        CREATE TABLE events.outbox (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            app text NOT NULL,
            topic text NOT NULL,
            key text,
            event_id text NOT NULL,
            body text,
            state_key text,
            created_at timestamptz NOT NULL DEFAULT now(),
            published_at timestamptz
        )
        """
    )
    op.execute(
        "CREATE INDEX outbox_waiting ON events.outbox (app, number) WHERE published_at IS NULL"
    )
    op.execute(
        "CREATE INDEX outbox_published ON events.outbox (topic, published_at) "
        "WHERE published_at IS NOT NULL"
    )
    op.execute(
        """
        CREATE TABLE events.outbox_relays (
            app text PRIMARY KEY,
            owner uuid NOT NULL,
            lease_until timestamptz NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE events.outbox_keys (
            topic text NOT NULL,
            key text NOT NULL,
            number bigint NOT NULL,
            at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (topic, key)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE events.subscriptions (
            app text NOT NULL,
            topic text NOT NULL,
            PRIMARY KEY (topic, app)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE events.inbox (
            app text NOT NULL,
            topic text NOT NULL,
            event_id text NOT NULL,
            at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (app, topic, event_id)
        )
        """
    )
    op.execute("CREATE INDEX inbox_age ON events.inbox (at)")
    op.execute(
        """
        CREATE TABLE events.inbox_keys (
            app text NOT NULL,
            topic text NOT NULL,
            key text NOT NULL,
            number bigint NOT NULL,
            at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (app, topic, key)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE events.inbox_failures (
            app text NOT NULL,
            topic text NOT NULL,
            event_id text NOT NULL,
            attempts int NOT NULL,
            at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (app, topic, event_id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE events.dead_letters (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            id text NOT NULL UNIQUE,
            app text NOT NULL,
            topic text NOT NULL,
            event_id text NOT NULL,
            event text NOT NULL,
            user_id text,
            error text NOT NULL,
            attempts int NOT NULL,
            at timestamptz NOT NULL DEFAULT now(),
            UNIQUE (app, topic, event_id)
        )
        """
    )
    op.execute("CREATE INDEX dead_letters_app ON events.dead_letters (app, number)")


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "outbox",
        "outbox_relays",
        "outbox_keys",
        "subscriptions",
        "inbox",
        "inbox_keys",
        "inbox_failures",
        "dead_letters",
    ):
        op.execute(f"DROP TABLE events.{table}")
