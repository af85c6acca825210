"""Brings a database to this version's schema: `python -m greend.store.migration PATH`."""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DatabaseError

from greend.store.damage import is_damage
from greend.store.engine import DAMAGED_STATUS, MIGRATIONS, open_engine


def upgrade(path: Path) -> None:
    """Runs the migrations that are missing, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = open_engine(path)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


if __name__ == "__main__":
    try:
        upgrade(Path(sys.argv[1]))
    except DatabaseError as error:
        print(error.orig, file=sys.stderr)
        sys.exit(DAMAGED_STATUS if is_damage(error) else 1)
