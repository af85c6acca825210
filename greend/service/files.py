"""What is written for the service: units from their templates, and the configuration."""

from pathlib import Path

import greend
from greend.config import Settings, render
from greend.service.interpreter import HOMES, Interpreter
from greend.service.places import Places

_HEADER = """\
# The settings of greend. Each is shown with its default; take away a line's "#" to change
# it, then: systemctl restart greend. `greend serve --print-config` shows what is in force.
# state_dir and runtime_dir of the service are set by its unit.

"""


def units(places: Places, interpreter: Interpreter) -> dict[Path, str]:
    """The files that belong to greend, and are written anew by every install."""
    files = {
        places.unit: template("greend.service").replace("@PYTHON@", interpreter.quoted),
        places.sysusers: template("greend.sysusers.conf"),
        places.tmpfiles: template("greend.tmpfiles.conf"),
    }
    home = interpreter.found_in(HOMES)
    if home is not None:
        files[places.home] = template("greend-home.conf").replace("@HOME@", str(home))
    return files


def configuration() -> str:
    """The first configuration: all defaults, commented out, so that later ones hold, too."""
    return _HEADER + render(Settings(), as_examples=True)


def outdated(places: Places, wanted: dict[Path, str]) -> list[Path]:
    """Which of greend's files are not as they would be written now."""
    known = {places.unit, places.sysusers, places.tmpfiles, places.home} | wanted.keys()
    return sorted(path for path in known if read(path) != wanted.get(path))


def read(path: Path) -> str | None:
    """The text of a file; None where there is no file."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def template(name: str) -> str:
    """A file of systemd/: within the package where it is installed, beside it in a source tree."""
    package = Path(greend.__file__).parent
    installed = package / "systemd" / name
    return (installed if installed.exists() else package.parent / "systemd" / name).read_text()
