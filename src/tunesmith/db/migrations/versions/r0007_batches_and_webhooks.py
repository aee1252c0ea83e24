"""Webhooks, and an outbox of what is to be delivered to them; keys of workers, which count as their payers."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("payer", sa.String))
    op.create_table(
        "webhooks", sa.Column("num", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True), sa.Column("project", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False), sa.Column("url", sa.String, nullable=False),
        sa.Column("event_types", sa.JSON, nullable=False), sa.Column("salt", sa.String, nullable=False),
        sa.Column("old_salt", sa.String), sa.Column("old_until", sa.Integer), sa.Column("created", sa.Integer, nullable=False),
        sa.Column("updated", sa.Integer, nullable=False), sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("webhooks_by_project", "webhooks", ["project", "num"])
    op.create_table(
        "deliveries", sa.Column("num", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("webhook_id", sa.String, sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("type", sa.String, nullable=False), sa.Column("body", sa.String, nullable=False),
        sa.Column("created", sa.Integer, nullable=False), sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_try", sa.Float), sa.Column("delivered", sa.Integer), sa.Column("status_code", sa.Integer),
        sa.Column("error", sa.String), sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("deliveries_by_webhook", "deliveries", ["webhook_id", "num"])
    op.create_index("deliveries_by_next_try", "deliveries", ["next_try"])
