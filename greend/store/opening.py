"""Opening what is kept when the daemon starts; a damaged database is set aside."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from greend.store.damage import Damaged, marked, set_aside
from greend.store.engine import migrate, open_engine

Known = TypeVar("Known")


def open_store(
    database: Path, *, synchronous: str, read: Callable[[Engine], Known]
) -> tuple[Engine, Known]:
    """The database at this version's schema, and what `read` reads of it to start from.

    If that is damaged, or a run before found damage, the database is set aside and a new
    one is begun. Nothing else is looked at: it may be large. Raises Unavailable for one
    that cannot be opened, or is of a newer version.
    """
    why = marked(database)
    if why is None:
        try:
            return _open(database, synchronous, read)
        except Damaged as error:
            why = str(error.__cause__ or error)
    set_aside(database, why)
    return _open(database, synchronous, read)


def _open(
    database: Path, synchronous: str, read: Callable[[Engine], Known]
) -> tuple[Engine, Known]:
    engine = open_engine(database, synchronous=synchronous)
    try:
        migrate(engine)
        return engine, read(engine)
    except BaseException as error:
        engine.dispose()
        if _is_nonsense(error):
            raise Damaged(f"{database} does not hold what its schema says") from error
        raise


def _is_nonsense(error: BaseException) -> bool:
    """Whether something is missing, or a row holds what nobody has written."""
    if isinstance(error, OperationalError):
        return str(error.orig).startswith("no such ")
    return isinstance(error, ValueError | TypeError | LookupError)
