"""What a check says."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. An error: greend cannot measure, or not rightly."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: by which check, how bad, with figures, and what to do.

    `remedy` is empty where nothing has to be done.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""


class Findings:
    """Makes the findings of one check."""

    def __init__(self, name: str) -> None:
        self._name = name

    def ok(self, found: str) -> Finding:
        """As it should be."""
        return Finding(self._name, Level.OK, found)

    def info(self, found: str, remedy: str = "") -> Finding:
        """Good to know; perhaps as meant."""
        return Finding(self._name, Level.INFO, found, remedy)

    def warning(self, found: str, remedy: str) -> Finding:
        """greend works, but not as well as it could, or not for long."""
        return Finding(self._name, Level.WARNING, found, remedy)

    def error(self, found: str, remedy: str) -> Finding:
        """greend cannot measure, or not rightly."""
        return Finding(self._name, Level.ERROR, found, remedy)
