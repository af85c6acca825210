"""Does with an installed unit what systemd does with it, for a Type=notify service.

No systemd runs where the tests do. What it promises a service is short: environment,
directories, READY=1 within a time, WATCHDOG=1 in time, signals, ExecStopPost whatever
happened (systemd.service(5), sd_notify(3)).
"""

import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.service.unit_file import UnitFile


class Supervisor:
    """One service, started."""

    def __init__(
        self,
        unit: UnitFile,
        root: Path,
        environment: Mapping[str, str],
        arguments: tuple[str, ...],
        *,
        abstract: bool = False,
    ) -> None:
        self.unit = unit
        self.log = root / "journal"
        # The last value of each name that the service told.
        self.told: dict[str, str] = {}
        self._messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._messages.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        address = str(root / "notify")
        self._messages.bind(f"\0{address}" if abstract else address)
        assert unit.one("Service", "Type") == "notify"
        state_dir = root / "var/lib" / unit.one("Service", "StateDirectory")
        runtime_dir = root / "run" / unit.one("Service", "RuntimeDirectory")
        for directory, key in ((state_dir, "StateDirectory"), (runtime_dir, "RuntimeDirectory")):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(int(unit.one("Service", f"{key}Mode"), 8))
        self._environment = {
            **environment,
            "NOTIFY_SOCKET": f"@{address}" if abstract else address,
            "STATE_DIRECTORY": str(state_dir),
            "RUNTIME_DIRECTORY": str(runtime_dir),
        }
        self._watchdog_s = unit.seconds("WatchdogSec")
        self.process = self._run(
            [*unit.command("ExecStart"), *arguments],
            WATCHDOG_USEC=str(round(self._watchdog_s * 1e6)),
        )

    def wait_ready(self) -> None:
        """As `systemctl start` does."""
        self.wait_told("READY", "1", self.unit.seconds("TimeoutStartSec"))

    def wait_told(self, name: str, beginning: str, timeout_s: float = 20.0) -> None:
        """Until what the service told of `name` begins so."""
        deadline = time.monotonic() + timeout_s
        while not self.told.get(name, "").startswith(beginning):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, (self.told, self.log.read_text())
            self._receive(0.05)

    def watch(self, seconds: float) -> bool:
        """Supervises for a time; False as soon as the watchdog is overdue."""
        end = time.monotonic() + seconds
        deadline = time.monotonic() + self._watchdog_s
        while (now := time.monotonic()) < end:
            if now >= deadline:
                return False
            if "WATCHDOG" in self._receive(min(end, deadline) - now):
                deadline = time.monotonic() + self._watchdog_s
        return True

    def stop(self) -> tuple[int, int]:
        """SIGTERM; returns the exit statuses of the service and of ExecStopPost."""
        return self._end(signal.SIGTERM)

    def crash(self) -> tuple[int, int]:
        """SIGKILL from outside; ExecStopPost runs all the same."""
        return self._end(signal.SIGKILL)

    def abort(self) -> tuple[int, int]:
        """What the watchdog does."""
        return self._end(signal.SIGABRT)

    def close(self) -> None:
        """Leaves nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._messages.close()

    def _end(self, number: int) -> tuple[int, int]:
        self.process.send_signal(number)
        # systemd wakes what was stopped, so that it can die.
        self.process.send_signal(signal.SIGCONT)
        status = self.process.wait(self.unit.seconds("TimeoutStopSec"))
        while self._receive(0.0):
            pass
        return status, self._run(self.unit.command("ExecStopPost")).wait(30)

    def _run(self, command: list[str], **more: str) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd="/",
                env={**self._environment, **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _receive(self, timeout_s: float) -> dict[str, str]:
        """One message; empty if none came."""
        self._messages.settimeout(max(timeout_s, 1e-4))
        try:
            data, ancillary, _, _ = self._messages.recvmsg(4096, socket.CMSG_SPACE(12))
        except TimeoutError:
            return {}
        (_, _, credentials) = ancillary[0]
        # NotifyAccess=main
        assert struct.unpack("3i", credentials)[0] == self.process.pid
        message = dict(line.split("=", 1) for line in data.decode().splitlines())
        self.told |= message
        return message


@contextmanager
def supervised(
    unit: Path,
    root: Path,
    *arguments: str,
    environment: Mapping[str, str] = os.environ,
    abstract: bool = False,
) -> Iterator[Supervisor]:
    """An installed unit's service, begun; gone afterwards."""
    supervisor = Supervisor(UnitFile(unit, root), root, environment, arguments, abstract=abstract)
    try:
        yield supervisor
    finally:
        supervisor.close()
