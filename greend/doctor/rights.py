"""A file's mode and owners, for people."""

import stat
from pathlib import Path


def rights(path: Path) -> str:
    """Mode, owner and group: "0660 root:greend". Raises OSError."""
    found = path.stat()
    return f"{stat.S_IMODE(found.st_mode):04o} {owner(path)}:{_group(path)}"


def owner(path: Path) -> str:
    """The owner's name, or number where nobody has it, as in containers. Raises OSError."""
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)


def _group(path: Path) -> str:
    try:
        return path.group()
    except KeyError:
        return str(path.stat().st_gid)
