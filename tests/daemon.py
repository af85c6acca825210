"""A real `greend serve` for tests and benchmarks: its own process, directories, sockets."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc

from greend_proto.v1 import (
    admin_pb2_grpc,
    control_pb2_grpc,
    metering_pb2,
    metering_pb2_grpc,
)

START_S = 20.0


class Daemon:
    """One daemon in one directory; can be started again on the same data."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str] = os.environ,
        *,
        prefix: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.prefix = prefix  # a command that becomes the one behind it
        self.environment = {
            name: value for name, value in environment.items() if not name.startswith("GREEND_")
        }
        self.address = f"unix://{directory / 'greend.sock'}"
        self.control_address = f"unix://{directory / 'control.sock'}"
        self.log = directory / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, devices: int = 0) -> "Daemon":
        """Starts it and waits until it serves, with at least so many devices sampled."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.prefix,
                    *(sys.executable, "-m", "greend", "serve", "--config", os.devnull),
                    *("--state-dir", str(self.directory), "--runtime-dir", str(self.directory)),
                    *("--metrics", ""),
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        deadline = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                with self.channel() as channel:
                    stub = metering_pb2_grpc.MeteringServiceStub(channel)
                    known = stub.ListDevices(metering_pb2.ListDevicesRequest(), timeout=2).devices
                    if sum(device.HasField("floor_w") for device in known) >= devices:
                        return self
            except grpc.RpcError:
                pass
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def channel(self, *, control: bool = False) -> grpc.Channel:
        """A new connection to one of its doors."""
        return grpc.insecure_channel(self.control_address if control else self.address)

    @contextmanager
    def stub(self) -> Iterator[metering_pb2_grpc.MeteringServiceStub]:
        """The reading door."""
        with self.channel() as channel:
            yield metering_pb2_grpc.MeteringServiceStub(channel)

    @contextmanager
    def control_stub(self) -> Iterator[control_pb2_grpc.ControlServiceStub]:
        """The control door."""
        with self.channel(control=True) as channel:
            yield control_pb2_grpc.ControlServiceStub(channel)

    @contextmanager
    def admin_stub(self) -> Iterator[admin_pb2_grpc.AdminServiceStub]:
        """The control door, for what operators do to history."""
        with self.channel(control=True) as channel:
            yield admin_pb2_grpc.AdminServiceStub(channel)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 10.0) -> int:
        """Ends it; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """What its database holds."""
        with closing(sqlite3.connect(self.directory / "greend.db", timeout=10)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]


@contextmanager
def daemon(
    *arguments: str,
    environment: Mapping[str, str] = os.environ,
    devices: int = 0,
    prefix: Sequence[str] = (),
) -> Iterator[Daemon]:
    """A daemon that is gone afterwards, as is its directory.

    The directory has a short path: a socket's may have 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="greend-", dir="/tmp") as directory:
        running = Daemon(Path(directory), environment, prefix=prefix)
        try:
            yield running.start(*arguments, devices=devices)
        finally:
            if running.process is not None and running.process.poll() is None:
                running.process.kill()
                running.process.wait()


def sleep_until(monotonic_ns: int) -> None:
    """Sleeps until an instant; returns at once if it is past."""
    time.sleep(max(monotonic_ns - time.monotonic_ns(), 0) / 1e9)
