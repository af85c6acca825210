"""What the service manager is told: sd_notify(3), sd_watchdog_enabled(3).

The protocol is a datagram of NAME=VALUE lines to the socket that NOTIFY_SOCKET names.
systemd promises that it stays as it is, so that it needs no library (sd_notify(3), "Notes").
"""

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

# A manager that takes nothing must not hold the event loop.
SEND_S = 0.5


def notify(*assignments: str) -> None:
    """Sends assignments such as "READY=1". Does nothing where no manager listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(SEND_S)
        try:
            # "@" stands for the NUL that an abstract socket's name begins with.
            sender.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            sender.send("\n".join(assignments).encode())
        except OSError as error:
            log.warning("the service manager was not told %s: %s", assignments[0], error)


def listens() -> bool:
    """Whether a manager wants to be told anything."""
    return "NOTIFY_SOCKET" in os.environ


def watchdog_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """How long the manager waits for WATCHDOG=1 before it acts; None if it does not wait."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    limit_us = environment.get("WATCHDOG_USEC", "")
    return int(limit_us) / 1e6 if limit_us.isdecimal() and int(limit_us) > 0 else None
