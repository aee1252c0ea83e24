"""The first tables: keys, files, jobs, attempts, events, metrics, models."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("keys", _num(), _id(), *_strings("hash", "name"), _times("created")[0], sa.Column("revoked", sa.Integer),
                    sqlite_autoincrement=True)  # fmt: skip
    op.create_table("files", _num(), _id(), *_strings("filename", "purpose"), sa.Column("num_bytes", sa.Integer, nullable=False),
                    *_strings("sha256"), *_times("created"), sqlite_autoincrement=True)  # fmt: skip
    op.create_index("ix_files_sha256", "files", ["sha256"])
    _jobs()
    _progress()
    op.create_table("models", _num(), _id(), *_strings("base", "quantization", "path", "content_hash"),
                    sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False, unique=True),
                    *_times("created"), sqlite_autoincrement=True)  # fmt: skip


def _jobs() -> None:
    op.create_table(
        "jobs", _num(), _id(), *_strings("status", "wanted", "base"),
        sa.Column("recipe", sa.JSON, nullable=False),
        sa.Column("hyperparameters", sa.JSON, nullable=False),
        sa.Column("suffix", sa.String),
        sa.Column("metadata", sa.JSON),
        *_strings("training_file"),
        sa.Column("validation_file", sa.String),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("attempt", "crashes", "max_attempts")),
        sa.Column("lease_owner", sa.String),
        sa.Column("lease_token", sa.String),
        sa.Column("lease_until", sa.Float),
        *_times("created"),
        *(sa.Column(name, sa.Integer) for name in ("started", "finished", "estimated_finish")),
        sa.Column("error", sa.JSON),
        sa.Column("result", sa.JSON),
        sa.Column("fine_tuned_model", sa.String),
        sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("jobs_by_status", "jobs", ["status", "num"])
    op.create_index("jobs_by_lease", "jobs", ["status", "lease_until"])


def _progress() -> None:
    op.create_table("attempts", sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), primary_key=True),
                    sa.Column("attempt", sa.Integer, primary_key=True), sa.Column("offset", sa.Integer, nullable=False),
                    *_times("started"))  # fmt: skip
    op.create_table(
        "events", _num(), _id(), sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
        *_strings("type", "level", "message"),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.UniqueConstraint("job_id", "attempt", "seq", name="one_row_per_event"),
        sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("events_by_job", "events", ["job_id", "num"])
    op.create_table(
        "metrics", sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("superseded", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.Float) for name in ("loss", "learning_rate", "token_accuracy")),
        *(sa.Column(name, sa.Float) for name in ("valid_loss", "valid_token_accuracy")),
    )  # fmt: skip
    op.create_index(
        "one_current_row_per_step", "metrics", ["job_id", "step"], unique=True,
        sqlite_where=sa.text("superseded = 0"), postgresql_where=sa.text("NOT superseded"),
    )  # fmt: skip


def _num() -> sa.Column[int]:
    return sa.Column("num", sa.Integer, primary_key=True, autoincrement=True)


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.String, nullable=False, unique=True)


def _strings(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String, nullable=False) for name in names]


def _times(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer, nullable=False) for name in names]
