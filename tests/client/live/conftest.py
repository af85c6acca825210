"""One daemon on two simulated GPUs for all tests here, which tell theirs by a tag."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import grpc
import pytest

from greend_client import Client
from greend_proto.v1 import simulator_pb2, simulator_pb2_grpc
from tests.client.memory_daemon import until
from tests.daemon import daemon

POWER_W = 400.0


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with ExitStack() as stack:
        address = os.environ.get("GREEND_TEST_ADDRESS")
        if not address:
            address = stack.enter_context(daemon("--simulate", "h100x2")).address
        with Client(address) as client:
            until(
                lambda: [device.floor_w is not None for device in client.devices()] == [True] * 2,
                "both GPUs have a floor",
            )
        yield address


@pytest.fixture
def run() -> str:
    """A tag's value that no other test has, whatever the daemon keeps."""
    return uuid.uuid4().hex


@dataclass
class Gpu:
    """GPU 0, whose load and truth are known."""

    uuid: str
    stub: simulator_pb2_grpc.SimulatorServiceStub

    def work(self, start_ns: int, stop_ns: int) -> None:
        """Lets it draw POWER_W between two monotonic instants."""
        offset_ns = time.time_ns() - time.monotonic_ns()
        for instant_ns, power_w in ((start_ns, POWER_W), (stop_ns, None)):
            self.stub.SetLoad(
                simulator_pb2.SetLoadRequest(
                    devices=[self.uuid], power_w=power_w, start_unix_ns=instant_ns + offset_ns
                )
            )

    def true_energy_j(self, start_unix_ns: int, stop_unix_ns: int) -> float:
        request = simulator_pb2.GetTruthRequest(
            devices=[self.uuid], start_unix_ns=start_unix_ns, stop_unix_ns=stop_unix_ns
        )
        return self.stub.GetTruth(request).truths[0].energy_j


@pytest.fixture
def gpu(client: Client, address: str) -> Iterator[Gpu]:
    with grpc.insecure_channel(address) as channel:
        stub = simulator_pb2_grpc.SimulatorServiceStub(channel)
        yield Gpu(client.devices()[0].uuid, stub)
