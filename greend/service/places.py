"""Where the service's files lie."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """Paths under a root: "/", or a directory in which a package is put together."""

    root: Path = Path("/")

    @property
    def staged(self) -> bool:
        """Whether this is not the running system: nothing but files may be touched."""
        return self.root != Path("/")

    @property
    def unit(self) -> Path:
        """The unit."""
        return self.root / "etc/systemd/system/greend.service"

    @property
    def drop_ins(self) -> Path:
        """What changes the unit: an administrator's files, and `home`."""
        return self.root / "etc/systemd/system/greend.service.d"

    @property
    def home(self) -> Path:
        """The drop-in for a greend that lies in a home directory."""
        return self.drop_ins / "10-home.conf"

    @property
    def sysusers(self) -> Path:
        """Who makes the groups."""
        return self.root / "etc/sysusers.d/greend.conf"

    @property
    def tmpfiles(self) -> Path:
        """Who makes directories that are not the unit's."""
        return self.root / "etc/tmpfiles.d/greend.conf"

    @property
    def configuration(self) -> Path:
        """The settings."""
        return self.root / "etc/greend/greend.toml"

    @property
    def state_dir(self) -> Path:
        """The database."""
        return self.root / "var/lib/greend"

    @property
    def runtime_dir(self) -> Path:
        """The sockets."""
        return self.root / "run/greend"
