"""Uploads in parts; files that expire, and that may be larger than 2 GiB."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("files", table_kwargs={"sqlite_autoincrement": True}) as files:
        files.add_column(sa.Column("expires", sa.Integer))
        files.alter_column("num_bytes", existing_type=sa.Integer, existing_nullable=False, type_=sa.BigInteger)
        files.create_index("files_by_project", ["project", "num"])
        files.create_index("files_by_expiry", ["expires"])
    op.create_table(
        "uploads", *_named(), *_strings("project", "filename", "purpose"), sa.Column("num_bytes", sa.BigInteger, nullable=False),
        *_strings("status"), *_times("created", "expires"), sa.Column("file_seconds", sa.Integer),
        sa.Column("file_id", sa.String), sa.Column("part_ids", sa.JSON), sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("uploads_by_expiry", "uploads", ["status", "expires"])
    op.create_table(
        "upload_parts", *_named(), *_strings("upload_id"), sa.Column("num_bytes", sa.BigInteger, nullable=False),
        *_strings("sha256"), *_times("created"), sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("ix_upload_parts_upload_id", "upload_parts", ["upload_id"])
    op.create_index("ix_upload_parts_sha256", "upload_parts", ["sha256"])
    op.create_index("ix_stored_sha256", "stored", ["sha256"])


def _named() -> list[sa.Column]:  # type: ignore[type-arg]
    return [sa.Column("num", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("id", sa.String, nullable=False, unique=True)]  # fmt: skip


def _strings(*names: str) -> list[sa.Column]:  # type: ignore[type-arg]
    return [sa.Column(name, sa.String, nullable=False) for name in names]


def _times(*names: str) -> list[sa.Column]:  # type: ignore[type-arg]
    return [sa.Column(name, sa.Integer, nullable=False) for name in names]
