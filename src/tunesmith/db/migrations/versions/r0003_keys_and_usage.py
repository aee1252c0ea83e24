"""Scopes, roles, limits, budgets and usage. Keys that are there stay what they were: they open all that their project may."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("role", sa.String, nullable=False, server_default="owner"))
    for name in ("scopes", "models", "limits"):
        op.add_column("keys", sa.Column(name, sa.JSON))
    op.add_column("keys", sa.Column("expires", sa.Integer))
    op.add_column("keys", sa.Column("last_used", sa.Integer))
    op.add_column("keys", sa.Column("successor", sa.String))
    op.add_column("projects", sa.Column("limits", sa.JSON))
    op.add_column("jobs", sa.Column("key", sa.String))
    op.create_index("keys_by_project", "keys", ["project", "num"])
    op.create_table(
        "usage",
        *(sa.Column(name, sa.String, primary_key=True) for name in ("day", "project", "key", "model", "adapter")),
        *(sa.Column(name, sa.BigInteger, nullable=False)
          for name in ("requests", "input_tokens", "cached_tokens", "output_tokens")),
    )  # fmt: skip
