"""Runs migrations on the connection that greend.store.engine gives."""

from alembic import context

from greend.store.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=False,  # the caller's transaction covers all of it
)
context.run_migrations()
