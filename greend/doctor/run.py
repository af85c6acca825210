"""Runs the checks, prints what they found."""

import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from greenctl.progress import after_a_second
from greend import __version__
from greend.config import Daemon, Settings, load
from greend.doctor import (
    clock,
    configuration,
    counter,
    daemon,
    devices,
    driver,
    library,
    permissions,
    service,
    show,
    sockets,
    store,
)
from greend.doctor.finding import Finding, Findings, Level
from greend.doctor.host import Host
from greend.doctor.probe import probe
from greend.errors import GreendError

log = logging.getLogger(__name__)

_INTERRUPTED = 128 + signal.SIGINT

Check = Callable[[Host, Findings], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "configuration": configuration.check,
    "driver": driver.check,
    "library": library.check,
    "devices": devices.check,
    "counter": counter.check,
    "permissions": permissions.check,
    "sockets": sockets.check,
    "daemon": daemon.check,
    "store": store.check,
    "clock": clock.check,
    "service": service.check,
}


def run_doctor(
    *,
    config: Path | None = None,
    state_dir: str | None = None,
    runtime_dir: str | None = None,
    json: bool = False,
    seconds: float = 3.0,
) -> int:
    """Checks this host; GPUs are read for `seconds`.

    Prints a list, or one JSON document. Returns the exit status: 1 when there is an
    error among the findings, else 0; 130 after Ctrl-C.
    """
    try:
        host = _look(config, state_dir, runtime_dir, seconds)
        findings = [
            finding for name, check in CHECKS.items() for finding in _run(name, check, host)
        ]
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    _print(findings, json)
    return 1 if any(finding.level is Level.ERROR for finding in findings) else 0


def _look(
    config: Path | None, state_dir: str | None, runtime_dir: str | None, seconds: float
) -> Host:
    places = {"state_dir": state_dir, "runtime_dir": runtime_dir}
    wrong = ""
    try:
        settings = load(config, os.environ, {"daemon": places})
    except GreendError as error:
        wrong = str(error)
        given = {name: place for name, place in places.items() if place}
        settings = Settings(daemon=msgspec.structs.replace(Daemon(), **given))
    address = os.environ.get("GREEND_ADDRESS")
    if runtime_dir or not address:
        address = f"unix://{Path(settings.daemon.runtime_dir).absolute() / 'greend.sock'}"
    with after_a_second("Reading the GPUs", round(seconds)) as progress:
        answers = probe(seconds, progress)
    return Host(settings, config, wrong, address, os.environ, seconds, answers)


def _run(name: str, check: Check, host: Host) -> Sequence[Finding]:
    try:
        return list(check(host, Findings(name)))
    except Exception as error:
        log.exception("the check %s failed", name)
        return [
            Findings(name).error(
                f"this check failed itself: {type(error).__name__}",
                "this is a mistake in greend: report it with the lines on standard error",
            )
        ]


def _print(findings: Sequence[Finding], json: bool) -> None:
    if json:
        print(msgspec.json.format(msgspec.json.encode(_document(findings))).decode())
    else:
        show.show(findings, Console(highlight=False))


def _document(findings: Sequence[Finding]) -> dict[str, object]:
    counts = Counter(finding.level for finding in findings)
    return {
        "version": __version__,
        "summary": {level.value: counts[level] for level in Level},
        "findings": findings,
    }
