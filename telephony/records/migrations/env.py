"""Alembic runs this: the migrations, in the transaction of whoever asked for them."""

from alembic import context

from telephony.records.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
context.run_migrations()
