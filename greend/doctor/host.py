"""What every check is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from greend.config import Settings
from greend.doctor.probe import Probe


@dataclass(frozen=True, slots=True)
class Host:
    """The host, as far as it was asked already.

    `wrong` is what is wrong with the configuration; `settings` are then the defaults.
    Files of the kernel are looked for below `root`.
    """

    settings: Settings
    config: Path | None
    wrong: str
    address: str
    environment: Mapping[str, str]
    seconds: float
    probe: Probe
    root: Path = Path("/")

    @property
    def state_dir(self) -> Path:
        """Where the database lies."""
        return Path(self.settings.daemon.state_dir).absolute()

    @property
    def runtime_dir(self) -> Path:
        """Where the sockets lie."""
        return Path(self.settings.daemon.runtime_dir).absolute()
