"""The Python that the service runs: the one that installs it."""

import sys
from dataclasses import dataclass
from pathlib import Path

import greend
from greend.errors import InvalidArgument

# Where ProtectHome= lets a service see nothing.
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
# PrivateTmp= hides these, and they are emptied at times.
PASSING = (Path("/tmp"), Path("/var/tmp"))


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and the places that have to be there for greend to run on it."""

    executable: Path
    needs: tuple[Path, ...]

    def found_in(self, directories: tuple[Path, ...]) -> Path | None:
        """What of it lies under one of these."""
        return next(
            (path for path in self.needs for place in directories if path.is_relative_to(place)),
            None,
        )

    @property
    def quoted(self) -> str:
        """As a unit's command line writes it (systemd.service(5), "Command lines")."""
        path = str(self.executable).replace("%", "%%")
        if not any(character in path for character in " \t'\"\\;"):
            return path
        escaped = path.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'


def own() -> Interpreter:
    """The one that runs this. Raises InvalidArgument if it cannot be named in a unit."""
    if not sys.executable or not sys.executable.isprintable():
        raise InvalidArgument(
            f"this Python does not know its own path or has a strange one ({sys.executable!r}):"
            " install greend into a virtual environment, e.g. /opt/greend"
        )
    # Not resolved: a virtual environment's Python is a link to another.
    executable = Path(sys.executable)
    places = (sys.prefix, sys.base_prefix, Path(greend.__file__).parent, executable.resolve())
    return Interpreter(executable, (executable, *(Path(place).resolve() for place in places)))
