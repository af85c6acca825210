"""A host under load: the double's GPUs, a daemon, clients as processes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil

from greend_proto.v1 import metering_pb2 as pb
from tests.daemon import Daemon
from tests.faults.journal import Journal
from tests.nvml_double import NvmlDouble

BASE_W = 60.0
END_S = 90.0


class Process:
    """A client process that keeps a journal."""

    def __init__(
        self,
        module: str,
        directory: Path,
        *arguments: str,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        number = len(list(directory.glob("client*.journal")))
        self.journal_path = directory / f"client{number}.journal"
        self.journal_path.touch()
        self.log_path = self.journal_path.with_suffix(".log")
        address, *others = arguments
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, address, str(self.journal_path), *others],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def journal(self) -> Journal:
        """What it has written so far."""
        return Journal.read(self.journal_path)

    def send(self, number: int) -> None:
        """A signal."""
        self.process.send_signal(number)

    def finish(self) -> Journal:
        """Lets it end in its own time; it must have got everything it waited for."""
        self.send(signal.SIGTERM)
        status = self.process.wait(END_S)
        assert status == 0, self.log_path.read_text()
        journal = self.journal
        assert journal.done, self.log_path.read_text()
        return journal

    def kill(self) -> None:
        """Ends it at once, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Host:
    """What runs; all of it ends with `host`."""

    def __init__(self, double: NvmlDouble, daemon: Daemon) -> None:
        self.double = double
        self.daemon = daemon
        self.uuids = [gpu.uuid for gpu in double.gpus]
        self.client_environment: Mapping[str, str] = os.environ
        self._random = random.Random()
        self.clients: list[Process] = []
        self._read = 0

    def vary_power(self) -> None:
        """The GPUs draw something else from now on."""
        for gpu in self.double.gpus:
            gpu.set_power_w(self._random.uniform(BASE_W, 400))

    def teller(self, rate: float, address: str = "") -> Process:
        """Starts a client that speaks the protocol itself: tests/faults/teller.py."""
        return self._start("teller", address, str(rate), *self.uuids)

    def caller(self, rate: float, address: str = "", *arguments: str) -> Process:
        """Starts a client that uses greend_client: tests/faults/caller.py."""
        return self._start("caller", address, str(rate), *arguments)

    def dying(self, point: str) -> Process:
        """Starts a client that dies at a point of the protocol: tests/faults/dying.py."""
        return self._start("dying", "", point)

    def _start(self, name: str, address: str, *arguments: str) -> Process:
        address = address or self.daemon.address
        directory = self.daemon.directory
        client = Process(
            f"tests.faults.{name}",
            directory,
            address,
            *arguments,
            environment=self.client_environment,
        )
        self.clients.append(client)
        return client

    def check_healthy(self) -> None:
        """The daemon serves, with both GPUs, and its log tells of nothing unforeseen."""
        with self.daemon.stub() as stub:
            status = stub.GetStatus(pb.GetStatusRequest(), timeout=10)
        assert status.state == "serving", status
        log = self.daemon.log.read_text()
        news, self._read = log[self._read :], len(log)  # each line is judged once
        assert "Traceback" not in news, news[:5000]
        assert "incident" not in news, news[:5000]

    def wait_until_settled(self, timeout_s: float = 30.0) -> None:
        """Waits until no window is open or waits for its last energy."""
        deadline = time.monotonic() + timeout_s
        with self.daemon.stub() as stub:
            asked = pb.ListWindowsRequest(page_size=1)
            asked.filter.states.extend(["open", "stopped"])
            while left := stub.ListWindows(asked, timeout=10).windows:
                assert time.monotonic() < deadline, f"not final: {left}"
                time.sleep(0.1)

    def descriptors(self) -> int:
        """How many files and sockets the daemon has open."""
        return psutil.Process(self.daemon.pid).num_fds()

    def wait_for_descriptors(self, most: int, timeout_s: float = 10.0) -> None:
        """Connections are let go a moment after their end."""
        deadline = time.monotonic() + timeout_s
        while (count := self.descriptors()) > most:
            assert time.monotonic() < deadline, f"{count} descriptors, at most {most} expected"
            time.sleep(0.1)

    def end(self) -> None:
        """Ends what still runs."""
        for client in self.clients:
            client.kill()


@contextmanager
def host(daemon: Daemon, double: NvmlDouble, *arguments: str) -> Iterator[Host]:
    """Starts the daemon; at the end nothing of it runs any more."""
    running = Host(double, daemon)
    for gpu in double.gpus:
        gpu.set_power_w(BASE_W)
        gpu.set_utilization(0)
    try:
        daemon.start(*arguments, devices=len(double.gpus))
        running.vary_power()
        yield running
    finally:
        running.end()
        if daemon.process is not None:
            with suppress(ProcessLookupError):
                daemon.process.kill()
            daemon.process.wait()


def serves(daemon: Daemon) -> bool:
    """Whether it answers."""
    try:
        with daemon.stub() as stub:
            stub.GetStatus(pb.GetStatusRequest(), timeout=2)
    except grpc.RpcError:
        return False
    return True
