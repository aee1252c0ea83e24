"""The tables, as they are now. How they came to be stands in migrations/; what the rows mean, in one file per aggregate.

Conventions: `num` is the order of insertion, by which lists are paged; `id` is what clients see; times are seconds since 1970.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

projects = Table(
    "projects",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("created", Integer, nullable=False),
    Column("archived", Integer),
    Column("limits", JSON),
    sqlite_autoincrement=True,
)

keys = Table(
    "keys",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("hash", String, nullable=False),
    Column("name", String, nullable=False),
    Column("project", String, nullable=False),
    Column("created", Integer, nullable=False),
    Column("revoked", Integer),
    Column("role", String, nullable=False),
    Column("scopes", JSON),
    Column("models", JSON),
    Column("limits", JSON),
    Column("expires", Integer),
    Column("last_used", Integer),
    Column("successor", String),
    Column("payer", String),
    Index("keys_by_project", "project", "num"),
    sqlite_autoincrement=True,
)

usage = Table(
    "usage",
    metadata,
    *(Column(name, String, primary_key=True) for name in ("day", "project", "key", "model", "adapter")),
    *(Column(name, BigInteger, nullable=False) for name in ("requests", "input_tokens", "cached_tokens", "output_tokens")),
)

files = Table(
    "files",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("sha256", String, nullable=False, index=True),
    Column("created", Integer, nullable=False),
    Column("expires", Integer),
    Index("files_by_project", "project", "num"),
    Index("files_by_expiry", "expires"),
    sqlite_autoincrement=True,
)

uploads = Table(
    "uploads",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("created", Integer, nullable=False),
    Column("expires", Integer, nullable=False),
    # of the file that the upload becomes: how long it stays, its id, and the parts it was made of
    Column("file_seconds", Integer),
    Column("file_id", String),
    Column("part_ids", JSON),
    Index("uploads_by_expiry", "status", "expires"),
    sqlite_autoincrement=True,
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("upload_id", String, nullable=False, index=True),
    Column("num_bytes", BigInteger, nullable=False),
    Column("sha256", String, nullable=False, index=True),
    Column("created", Integer, nullable=False),
    sqlite_autoincrement=True,
)

jobs = Table(
    "jobs",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("project", String, nullable=False),
    Column("key", String),
    Column("parent", String),
    Column("status", String, nullable=False),
    Column("wanted", String, nullable=False),
    # what was asked: `order` is the client's words, `recipe` what a worker does
    Column("order", JSON, nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("metadata", JSON),
    # who works on it
    Column("attempt", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("lease_owner", String),
    Column("lease_token", String),
    Column("lease_until", Float),
    # what became of it
    Column("created", Integer, nullable=False),
    Column("started", Integer),
    Column("finished", Integer),
    Column("estimated_finish", Integer),
    Column("error", JSON),
    Column("result", JSON),
    Index("jobs_by_status", "kind", "status", "num"),
    Index("jobs_by_lease", "kind", "status", "lease_until"),
    Index("jobs_by_project", "project", "kind", "num"),
    Index("jobs_by_parent", "parent", "num"),
    sqlite_autoincrement=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("offset", Integer, nullable=False),
    Column("started", Integer, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("time", Float, nullable=False),
    Column("type", String, nullable=False),
    Column("level", String, nullable=False),
    Column("message", String, nullable=False),
    Column("payload", JSON, nullable=False),
    UniqueConstraint("job_id", "attempt", "seq", name="one_row_per_event"),
    Index("events_by_job", "job_id", "num"),
    sqlite_autoincrement=True,
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("step", Integer, nullable=False),
    Column("superseded", Boolean, nullable=False),
    Column("loss", Float),
    Column("learning_rate", Float),
    Column("token_accuracy", Float),
    Column("valid_loss", Float),
    Column("valid_token_accuracy", Float),
    # The promise "exactly one current row per optimizer step" is kept by the database itself.
    Index("one_current_row_per_step", "job_id", "step", unique=True,
          sqlite_where=text("superseded = 0"), postgresql_where=text("NOT superseded")),  # fmt: skip
)

models = Table(
    "models",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("base", String, nullable=False),
    Column("quantization", String, nullable=False),
    Column("path", String, nullable=False),
    Column("content_hash", String, nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, unique=True),
    Column("created", Integer, nullable=False),
    sqlite_autoincrement=True,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("job_id", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("model", String, nullable=False),
    Column("base", String, nullable=False),
    Column("quantization", String, nullable=False),
    Column("path", String, nullable=False),
    Column("content_hash", String, nullable=False),
    Column("created", Integer, nullable=False),
    UniqueConstraint("job_id", "step", name="one_checkpoint_per_step"),
    Index("checkpoints_by_model", "model"),
    sqlite_autoincrement=True,
)

permissions = Table(
    "permissions",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("model", String, nullable=False),
    Column("created", Integer, nullable=False),
    UniqueConstraint("model", "project", name="one_permission_per_project"),
    sqlite_autoincrement=True,
)

aliases = Table(
    "aliases",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("name", String, nullable=False),
    Column("model", String, nullable=False),
    Column("previous", String),
    Column("created", Integer, nullable=False),
    Column("moved", Integer, nullable=False),
    UniqueConstraint("project", "name", name="one_alias_per_name"),
    sqlite_autoincrement=True,
)

stored = Table(
    "stored",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("project", String, nullable=False),
    Column("model", String, nullable=False),
    Column("status", String, nullable=False),
    Column("created", Integer, nullable=False),
    Column("metadata", JSON, nullable=False),
    # question and answer as JSON text: here, or in the blob of that hash when they are large
    Column("document", Text),
    Column("sha256", String, index=True),
    Index("stored_by_project", "project", "kind", "num"),
    Index("stored_by_status", "kind", "status"),
    sqlite_autoincrement=True,
)

evals = Table(
    "evals",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("name", String, nullable=False),
    # as the client sent them: what rows look like, and the graders
    Column("config", JSON, nullable=False),
    Column("criteria", JSON, nullable=False),
    Column("metadata", JSON),
    Column("created", Integer, nullable=False),
    Column("updated", Float, nullable=False),
    Index("evals_by_project", "project", "num"),
    Index("evals_by_change", "project", "updated", "num"),
    sqlite_autoincrement=True,
)

eval_items = Table(
    "eval_items",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("run_id", ForeignKey("jobs.id"), nullable=False),
    Column("row", Integer, nullable=False),
    Column("status", String, nullable=False),
    Column("results", JSON, nullable=False),
    Column("usage", JSON, nullable=False),
    Column("item", JSON, nullable=False),
    Column("sample", JSON, nullable=False),
    Column("created", Integer, nullable=False),
    UniqueConstraint("run_id", "row", name="one_item_per_row"),
    Index("eval_items_by_run", "run_id", "num"),
    Index("eval_items_by_status", "run_id", "status", "num"),
    sqlite_autoincrement=True,
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project", String, nullable=False),
    Column("name", String, nullable=False),
    Column("url", String, nullable=False),
    Column("event_types", JSON, nullable=False),
    # what the signing secret is derived from, with the server's own; the one before it, and until when it signs too
    Column("salt", String, nullable=False),
    Column("old_salt", String),
    Column("old_until", Integer),
    Column("created", Integer, nullable=False),
    Column("updated", Integer, nullable=False),
    Index("webhooks_by_project", "project", "num"),
    sqlite_autoincrement=True,
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("num", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("webhook_id", ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("type", String, nullable=False),
    Column("body", String, nullable=False),
    Column("created", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try", Float),
    Column("delivered", Integer),
    Column("status_code", Integer),
    Column("error", String),
    Index("deliveries_by_webhook", "webhook_id", "num"),
    Index("deliveries_by_next_try", "next_try"),
    sqlite_autoincrement=True,
)
