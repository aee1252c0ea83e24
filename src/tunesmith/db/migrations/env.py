"""Alembic's entry: runs the missing revisions on the connection that migrate.py holds, inside its transaction."""

from alembic import context

from tunesmith.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
