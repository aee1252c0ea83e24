"""Evals and the items of their runs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evals",
        sa.Column("num", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("criteria", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("created", sa.Integer, nullable=False),
        sa.Column("updated", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("evals_by_project", "evals", ["project", "num"])
    op.create_index("evals_by_change", "evals", ["project", "updated", "num"])
    op.create_table(
        "eval_items",
        sa.Column("num", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("run_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("results", sa.JSON, nullable=False),
        sa.Column("usage", sa.JSON, nullable=False),
        sa.Column("item", sa.JSON, nullable=False),
        sa.Column("sample", sa.JSON, nullable=False),
        sa.Column("created", sa.Integer, nullable=False),
        sa.UniqueConstraint("run_id", "row", name="one_item_per_row"),
        sqlite_autoincrement=True,
    )
    op.create_index("eval_items_by_run", "eval_items", ["run_id", "num"])
    op.create_index("eval_items_by_status", "eval_items", ["run_id", "status", "num"])
