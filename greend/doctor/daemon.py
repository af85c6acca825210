"""The daemon: does one answer, how is it, is it of this version."""

from collections.abc import Iterator
from datetime import datetime

from greend import __version__
from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host
from greend.model import NS_PER_S
from greend_client import Client, GreendError, Status

_LOG = "its log says more: journalctl -u greend"


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """Asks the daemon at the address that clients would use."""
    with Client(host.address) as client:
        try:
            status = client.status()
        except GreendError as error:
            found, _, remedy = str(error).partition(": ")
            yield say.warning(found, remedy or _LOG)
            return
    yield say.ok(_describe(status, host.address))
    if status.simulated:
        yield say.info("its GPUs are simulated")
    if status.version != __version__:
        yield say.warning(
            f"it is greend {status.version}, this command is {__version__}",
            "restart it after an upgrade: sudo systemctl restart greend",
        )
    for part in status.parts:
        if part.state != "ok":
            yield say.warning(f"its part {part.name}: {part.message or part.state}", _LOG)


def _describe(status: Status, address: str) -> str:
    since = datetime.fromtimestamp(status.start_unix_ns / NS_PER_S)
    return (
        f"greend {status.version} is {status.state} at {address} since {since:%Y-%m-%d %H:%M:%S}"
        f" (pid {status.pid}): {status.devices_ok} of {status.devices_total} GPUs answer,"
        f" {status.open_windows} windows open"
    )
