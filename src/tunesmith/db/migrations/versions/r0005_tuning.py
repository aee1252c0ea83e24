"""Checkpoints under names of their own, who may use a model of another project, and aliases of models."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoints", *_owned("job_id", "model", "base", "quantization", "path", "content_hash"),
        sa.Column("step", sa.Integer, nullable=False),
        sa.UniqueConstraint("job_id", "step", name="one_checkpoint_per_step"), sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("checkpoints_by_model", "checkpoints", ["model"])
    op.create_table(
        "permissions", *_owned("model"),
        sa.UniqueConstraint("model", "project", name="one_permission_per_project"), sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_table(
        "aliases", *_owned("name", "model"), sa.Column("previous", sa.String), sa.Column("moved", sa.Integer, nullable=False),
        sa.UniqueConstraint("project", "name", name="one_alias_per_name"), sqlite_autoincrement=True,
    )  # fmt: skip


def _owned(*strings: str) -> list[sa.Column]:  # type: ignore[type-arg]
    return [
        sa.Column("num", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("project", *strings)),
        sa.Column("created", sa.Integer, nullable=False),
    ]
