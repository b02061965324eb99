"""A keyed hash of each deleted user's id, so that late events do not add to an erased audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("deletions", sa.Column("user_digest", sa.LargeBinary), schema="auth")
    op.create_index("ix_auth_deletions_user_digest", "deletions", ["user_digest"], schema="auth")


def downgrade() -> None:
    op.drop_index("ix_auth_deletions_user_digest", "deletions", schema="auth")
    op.drop_column("deletions", "user_digest", schema="auth")
