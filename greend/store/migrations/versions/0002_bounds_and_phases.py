"""Windows: phases, whether iterations drive them, bounds on errors."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("own_correlated_mj", sa.Float(), nullable=True),
        sa.Column("own_independent_mj", sa.Float(), nullable=True),
        sa.Column("descendants_correlated_mj", sa.Float(), nullable=False, server_default="0"),
        sa.Column("descendants_independent_mj", sa.Float(), nullable=False, server_default="0"),
        sa.Column("iteration_driven", sa.Boolean(), nullable=False, server_default="0"),
        sa.Column("phases", sa.JSON(), nullable=False, server_default="[]"),
    ):
        op.add_column("windows", column)


def downgrade() -> None:
    for name in (
        "phases",
        "iteration_driven",
        "descendants_independent_mj",
        "descendants_correlated_mj",
        "own_independent_mj",
        "own_correlated_mj",
    ):
        op.drop_column("windows", name)
