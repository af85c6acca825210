"""Configuration: flag over GREEND_<SECTION>_<KEY> over file over default."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from greend.errors import InvalidArgument
from greend.metering.meter import MeterSettings
from greend.model import NS_PER_S

DEFAULT_FILE = Path("/etc/greend/greend.toml")

Hertz = Annotated[float, msgspec.Meta(gt=0, le=200)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=120)]


class Daemon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the daemon lives."""

    state_dir: str = "/var/lib/greend"
    runtime_dir: str = "/run/greend"
    group: str = "greend"
    control_group: str = "greend-control"
    log_level: str = "info"


class Metering(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it measures."""

    fast_hz: Hertz = 25.0
    slow_hz: Hertz = 1.0
    lateness_s: Seconds = 0.25
    most_open_windows: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100_000

    def settings(self) -> MeterSettings:
        """In the meter's units."""
        return MeterSettings(
            fast_interval_ns=round(NS_PER_S / self.fast_hz),
            slow_interval_ns=round(NS_PER_S / self.slow_hz),
            lateness_ns=round(self.lateness_s * NS_PER_S),
        )


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP endpoint; an empty address switches it off."""

    address: str = "127.0.0.1:9477"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sections."""

    daemon: Daemon = Daemon()
    metering: Metering = Metering()
    metrics: Metrics = Metrics()


def load(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Mapping[str, Any]]
) -> Settings:
    """Merges file, environment and flags. Raises InvalidArgument, naming key and remedy."""
    path = file or DEFAULT_FILE
    values: dict[str, dict[str, Any]] = {}
    if file is not None or path.exists():
        values = _read(path)
    for section in msgspec.structs.fields(Settings):
        for key in msgspec.structs.fields(section.type):
            name = f"GREEND_{section.name}_{key.name}".upper()
            if name in environment:
                values.setdefault(section.name, {})[key.name] = environment[name]
    for name, changes in flags.items():
        given = {key: value for key, value in changes.items() if value is not None}
        if given:
            values.setdefault(name, {}).update(given)
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"configuration: {error} ({path} and GREEND_* were read)") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidArgument(f"configuration: cannot read {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"configuration: {path} is not TOML: {error}") from None
