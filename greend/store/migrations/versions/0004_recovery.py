"""What the next run of the daemon goes on with."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("windows", sa.Column("start_ns", sa.Integer(), nullable=True))
    op.add_column("windows", sa.Column("parts", sa.JSON(), nullable=True))
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("alive_ns", sa.Integer(), nullable=False),
    )
    op.create_table(
        "anchors",
        sa.Column("device", sa.String(), primary_key=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "claims",
        sa.Column("window_id", sa.String(), primary_key=True),
        sa.Column("device", sa.String(), primary_key=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("acknowledged", sa.Integer(), nullable=False),
        sa.Column("left_ns", sa.Integer(), nullable=True),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("until_ns", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )


def downgrade() -> None:
    for table in ("events", "sessions", "claims", "anchors", "runs"):
        op.drop_table(table)
    op.drop_column("windows", "parts")
    op.drop_column("windows", "start_ns")
