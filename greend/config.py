"""Configuration: flag over GREEND_<SECTION>_<KEY> over file over default."""

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from greend.errors import InvalidArgument
from greend.metering.meter import MeterSettings
from greend.model import NS_PER_S
from greend.store.retention import DAY_NS, Retention

DEFAULT_FILE = Path("/etc/greend/greend.toml")


class Daemon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the daemon lives."""

    state_dir: Annotated[str, Meta(min_length=1, description="where the database lies")] = (
        "/var/lib/greend"
    )
    runtime_dir: Annotated[str, Meta(min_length=1, description="where both sockets lie")] = (
        "/run/greend"
    )
    group: Annotated[str, Meta(description="who may read and measure")] = "greend"
    control_group: Annotated[str, Meta(description="who may set limits and delete history")] = (
        "greend-control"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="debug … error")
    ] = "info"


# UUID=W or UUID=W/W.
_FLOOR = r"^[^=\s]+=\d+(\.\d+)?(/\d+(\.\d+)?)?$"


def _floor_mw(text: str) -> tuple[str, dict[bool, float]]:
    uuid, watts = text.split("=")
    without, _, with_context = watts.partition("/")
    return uuid, {False: 1e3 * float(without), True: 1e3 * float(with_context or without)}


class Metering(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it measures."""

    fast_hz: Annotated[
        float, Meta(ge=1, le=200, description="samples a second while a window is open")
    ] = 25.0
    slow_hz: Annotated[
        float, Meta(ge=0.25, le=200, description="samples a second while nothing happens")
    ] = 1.0
    lateness_s: Annotated[
        float, Meta(ge=0, le=120, description="how late events may come; results wait for it")
    ] = 0.25
    most_open_windows: Annotated[int, Meta(ge=1, le=1_000_000, description="more are refused")] = (
        100_000
    )
    most_windows_per_session: Annotated[
        int, Meta(ge=1, le=1_000_000, description="more of one session are refused")
    ] = 50_000
    most_sessions: Annotated[int, Meta(ge=1, le=2_000, description="more are refused")] = 1_000
    most_events_per_s: Annotated[
        int, Meta(ge=100, le=1_000_000, description="of a session; it waits with more")
    ] = 50_000
    floors: Annotated[
        tuple[Annotated[str, Meta(pattern=_FLOOR)], ...],
        Meta(
            description="floors that are set, not learnt: UUID=W, or UUID=W/W without and with a"
            " compute context"
        ),
    ] = ()

    def settings(self) -> MeterSettings:
        """In the meter's units."""
        return MeterSettings(
            fast_interval_ns=round(NS_PER_S / self.fast_hz),
            slow_interval_ns=round(NS_PER_S / self.slow_hz),
            lateness_ns=round(self.lateness_s * NS_PER_S),
            floors_mw=dict(map(_floor_mw, self.floors)),
        )


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept, and how safely."""

    windows_days: Annotated[
        float, Meta(gt=0, le=36500, description="how long windows are kept")
    ] = 7.0
    windows_gib: Annotated[
        float, Meta(ge=0.01, le=100_000, description="GiB; beyond it the oldest windows go")
    ] = 4.0
    minutes_days: Annotated[
        float, Meta(gt=0, le=36500, description="how long the ledger's minutes are kept")
    ] = 90.0
    synchronous: Annotated[
        Literal["normal", "full"],
        Meta(
            description="normal: what is acknowledged survives the process; full: power loss, too",
        ),
    ] = "normal"

    def retention(self) -> Retention:
        """In the store's units."""
        return Retention(
            windows_ns=round(self.windows_days * DAY_NS),
            windows_bytes=round(self.windows_gib * 2**30),
            minutes_ns=round(self.minutes_days * DAY_NS),
        )


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP endpoint."""

    address: Annotated[str, Meta(description="HOST:PORT; empty switches it off")] = "127.0.0.1:9477"
    tag_keys: Annotated[
        tuple[str, ...], Meta(description="tags of windows that become labels, e.g. model")
    ] = ()
    max_series: Annotated[
        int, Meta(ge=10, le=10_000, description="time series by tags; the rest is summed as other")
    ] = 1000


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sections."""

    daemon: Daemon = Daemon()
    metering: Metering = Metering()
    store: Store = Store()
    metrics: Metrics = Metrics()


def load(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Mapping[str, Any]]
) -> Settings:
    """Merges file, environment and flags. Raises InvalidArgument, naming key and remedy."""
    path = file or DEFAULT_FILE
    values = _read(path, optional=file is None)
    # Where each value comes from: it is what the user has to change.
    origins = {(name, key): str(path) for name, section in values.items() for key in section}
    known = variables()
    _check_spelling(environment, known)
    for name, (section, key) in known.items():
        if name in environment:
            values.setdefault(section, {})[key] = environment[name]
            origins[section, key] = name
    for section, changes in flags.items():
        for key, value in changes.items():
            if value is not None:
                values.setdefault(section, {})[key] = value
                origins[section, key] = "--" + key.replace("_", "-")
    settings = msgspec.convert(
        {
            section.name: _section(section, values.get(section.name, {}), origins)
            for section in msgspec.structs.fields(Settings)
        },
        Settings,
    )
    _check_paces(settings.metering, origins)
    return settings


def variables() -> dict[str, tuple[str, str]]:
    """Every environment variable that is a setting, with the section and key that it sets."""
    return {f"GREEND_{section}_{key}".upper(): (section, key) for section, key in _keys()}


def render(settings: Settings, *, as_examples: bool = False) -> str:
    """The settings as a commented configuration file.

    `as_examples`: the settings themselves are commented out, so that another version's
    defaults hold where nobody decided.
    """
    mark = "#" if as_examples else ""
    lines: list[str] = []
    for section in msgspec.structs.fields(Settings):
        lines += [f"# {section.type.__doc__}", f"[{section.name}]"]
        current = getattr(settings, section.name)
        for key in msgspec.structs.fields(section.type):
            lines.append(f"# {_description(key)}")
            # A TOML string, number or boolean is written as in JSON.
            value = msgspec.json.encode(getattr(current, key.name)).decode()
            lines.append(f"{mark}{key.name} = {value}")
        lines.append("")
    return "\n".join(lines)


def _section(
    section: msgspec.structs.FieldInfo,
    values: Mapping[str, Any],
    origins: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    """One section's values, each checked by itself so that a message can name it."""
    checked: dict[str, Any] = {}
    for key in msgspec.structs.fields(section.type):
        if key.name not in values:
            continue
        try:
            # Strict about the file's types; text from environment and flags is converted.
            text = origins[section.name, key.name].startswith(("GREEND_", "--"))
            value = values[key.name]
            if text and isinstance(key.default, tuple):
                value = [part.strip() for part in value.split(",") if part.strip()]
            choices = _choices(key)
            if choices and isinstance(value, str):
                value = value.lower()
            checked[key.name] = msgspec.convert(value, key.type, strict=not text)
        except msgspec.ValidationError as error:
            wrong = f"{str(error)[0].lower()}{str(error)[1:]}"
            if choices:
                wrong = f"it is none of {', '.join(choices)}"
            raise InvalidArgument(
                f"configuration: [{section.name}] {key.name} = {values[key.name]!r}:"
                f" {wrong}; it is for: {_description(key)};"
                f" change it in {origins[section.name, key.name]}"
            ) from None
    return checked


def _choices(key: msgspec.structs.FieldInfo) -> tuple[str, ...]:
    """What a setting may be, where that is a few words."""
    kind = get_args(key.type)[0]
    return get_args(kind) if get_origin(kind) is Literal else ()


def _check_paces(metering: Metering, origins: Mapping[tuple[str, str], str]) -> None:
    if metering.fast_hz >= metering.slow_hz:
        return
    given = [origins.get(("metering", key)) for key in ("fast_hz", "slow_hz")]
    raise InvalidArgument(
        f"configuration: [metering] fast_hz = {metering.fast_hz:g} is below slow_hz ="
        f" {metering.slow_hz:g}: raise fast_hz, or lower slow_hz; change it in"
        f" {' or '.join(dict.fromkeys(filter(None, given)))}"
    )


def _read(path: Path, *, optional: bool) -> dict[str, dict[str, Any]]:
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError):
            return {}
        raise InvalidArgument(
            f"configuration: cannot read {path}: {error.strerror}; name another file with --config"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"configuration: {path} is not TOML: {error}") from None
    keys = list(_keys())
    for section, content in values.items():
        _check_known(section, {name for name, _ in keys}, "section", path)
        if not isinstance(content, dict):
            raise InvalidArgument(
                f"configuration: {section} is not a section: write [{section}] above its keys"
                f" in {path}"
            )
        for key in content:
            known = {name for owner, name in keys if owner == section}
            _check_known(key, known, f"key in [{section}]", path)
    return values


def _check_spelling(environment: Iterable[str], known: Collection[str]) -> None:
    """Refuses what is nearly a setting. Kubernetes puts other names in, for services named so."""
    for name in environment:
        if name.startswith("GREEND_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
            if near:
                raise InvalidArgument(
                    f"configuration: the environment has {name}, which is no setting; did you"
                    f" mean {near[0]!r}?"
                )


def _check_known(name: str, known: set[str], what: str, path: Path) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}"
    raise InvalidArgument(f"configuration: {path} has the unknown {what} {name!r}; {hint}")


def _keys() -> Iterable[tuple[str, str]]:
    for section in msgspec.structs.fields(Settings):
        for key in msgspec.structs.fields(section.type):
            yield section.name, key.name


def _description(key: msgspec.structs.FieldInfo) -> str:
    (meta,) = key.type.__metadata__
    return str(meta.description)
