"""A file that has its name only when it is whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from greend_client import GreendError


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """Write to ``path`` + ".part", for its owner alone; renamed at the end of the block.

    Where the block fails, nothing is left. Raises GreendError if it cannot be
    written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        try:
            part.unlink(missing_ok=True)
            with open(part, "xb", opener=_for_its_owner) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise GreendError(f"cannot write {part}: {error.strerror}") from error


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
