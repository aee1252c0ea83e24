"""Projects own what is made; the jobs table holds orders of every kind, not fine-tuning alone."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DEFAULT = "proj_default"
ORDERED = ("hyperparameters", "suffix", "training_file", "validation_file")
"""Columns of a job that become keys of its order."""


def upgrade() -> None:
    projects = op.create_table(
        "projects", sa.Column("num", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True), sa.Column("name", sa.String, nullable=False),
        sa.Column("created", sa.Integer, nullable=False), sa.Column("archived", sa.Integer), sqlite_autoincrement=True,
    )  # fmt: skip
    op.bulk_insert(projects, [{"id": DEFAULT, "name": "default", "created": 0}])
    for table in ("keys", "files", "jobs", "models"):
        op.add_column(table, sa.Column("project", sa.String, nullable=False, server_default=DEFAULT))
    _kinds()


def _kinds() -> None:
    op.add_column("jobs", sa.Column("kind", sa.String, nullable=False, server_default="fine_tuning"))
    op.add_column("jobs", sa.Column("parent", sa.String))
    op.add_column("jobs", sa.Column("order", sa.JSON, nullable=False, server_default="{}"))
    jobs = sa.table("jobs", *(sa.column(name) for name in ("num", "base", "suffix", "training_file", "validation_file")),
                    sa.column("fine_tuned_model"), *(sa.column(name, sa.JSON) for name in ("hyperparameters", "order", "result")))
    connection = op.get_bind()
    for row in connection.execute(sa.select(jobs)).all():
        order = {"model": row.base} | {name: getattr(row, name) for name in ORDERED}
        result = None if row.result is None else row.result | {"fine_tuned_model": row.fine_tuned_model}
        connection.execute(sa.update(jobs).where(jobs.c.num == row.num).values(
            order=order, result=sa.null() if result is None else result
        ))
    op.drop_index("jobs_by_status", "jobs")
    op.drop_index("jobs_by_lease", "jobs")
    for name in ("base", *ORDERED, "fine_tuned_model"):
        op.drop_column("jobs", name)
    op.create_index("jobs_by_status", "jobs", ["kind", "status", "num"])
    op.create_index("jobs_by_lease", "jobs", ["kind", "status", "lease_until"])
    op.create_index("jobs_by_project", "jobs", ["project", "kind", "num"])
    op.create_index("jobs_by_parent", "jobs", ["parent", "num"])
