"""Stored chat completions and responses."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stored",
        sa.Column("num", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("kind", "project", "model", "status")),
        sa.Column("created", sa.Integer, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("document", sa.Text),
        sa.Column("sha256", sa.String),
        sqlite_autoincrement=True,
    )
    op.create_index("stored_by_project", "stored", ["project", "kind", "num"])
    op.create_index("stored_by_status", "stored", ["kind", "status"])
