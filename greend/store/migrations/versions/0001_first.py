"""Windows, the ledger's minutes, devices."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "windows",
        sa.Column("window_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("start_unix_ns", sa.Integer(), nullable=False),
        sa.Column("stop_unix_ns", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("parent_id", sa.String(), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("first_token_unix_ns", sa.Integer(), nullable=True),
        sa.Column("own_mj", sa.Float(), nullable=True),
        sa.Column("own_active_mj", sa.Float(), nullable=True),
        sa.Column("descendants_idle_mj", sa.Float(), nullable=False),
        sa.Column("descendants_active_mj", sa.Float(), nullable=False),
        sa.Column("shares", sa.JSON(), nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("window_id", name="pk_windows"),
    )
    op.create_index("ix_windows_start", "windows", ["start_unix_ns", "window_id"])
    op.create_index("ix_windows_request_id", "windows", ["request_id"])
    op.create_index("ix_windows_state", "windows", ["state"])
    op.create_table(
        "minutes",
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("minute_unix_s", sa.Integer(), nullable=False),
        sa.Column("measured_mj", sa.Float(), nullable=False),
        sa.Column("windows_mj", sa.Float(), nullable=False),
        sa.Column("idle_mj", sa.Float(), nullable=False),
        sa.Column("unattributed_mj", sa.Float(), nullable=False),
        sa.Column("gap_mj", sa.Float(), nullable=False),
        sa.Column("unknown_ns", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("device", "minute_unix_s", name="pk_minutes"),
    )
    op.create_table(
        "devices",
        sa.Column("uuid", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("last_seen_unix_ns", sa.Integer(), nullable=False),
        sa.Column("floor_mw", sa.Float(), nullable=True),
        sa.Column("context_floor_mw", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("uuid", name="pk_devices"),
    )


def downgrade() -> None:
    op.drop_table("devices")
    op.drop_table("minutes")
    op.drop_table("windows")
