"""A unit as systemd reads it: with its drop-ins, specifiers and command lines."""

import re
import shlex
from collections import defaultdict
from pathlib import Path

# systemd.time(7), as far as the unit goes.
_SECONDS = {"": 1, "s": 1, "min": 60, "ms": 1e-3}


class UnitFile:
    """An installed unit under a root."""

    def __init__(self, path: Path, root: Path) -> None:
        self._root = root
        self._values: dict[tuple[str, str], list[str]] = defaultdict(list)
        for file in [path, *sorted(Path(f"{path}.d").glob("*.conf"))]:
            self._read(file)

    def one(self, section: str, key: str) -> str:
        """The value of a key that takes one: the last."""
        return self._expand(self._values[section, key][-1])

    def command(self, key: str) -> list[str]:
        """A command line of [Service]."""
        (line,) = self._values["Service", key]
        return [self._expand(word) for word in shlex.split(line)]

    def seconds(self, key: str) -> float:
        """A time of [Service]."""
        number, unit = re.fullmatch(r"([\d.]+)(\D*)", self.one("Service", key)).groups()  # type: ignore[union-attr]
        return float(number) * _SECONDS[unit]

    def _read(self, file: Path) -> None:
        section = ""
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith(("#", ";")):
                key, value = line.split("=", 1)
                # An empty value takes back what was said before.
                kept = self._values[section, key]
                self._values[section, key] = [*kept, value] if value else []

    def _expand(self, value: str) -> str:
        """Specifiers; the staged root stands for the host's."""
        places = {"%S": self._root / "var/lib", "%t": self._root / "run", "%%": "%"}
        return re.sub("%.", lambda found: str(places[found[0]]), value)
