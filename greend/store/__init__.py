"""What is kept: SQLite through SQLAlchemy; the only importer of SQLAlchemy and Alembic."""
