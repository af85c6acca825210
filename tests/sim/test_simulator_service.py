import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import grpc
import pytest

from greend.device.simulated import SimulatedDriver
from greend.errors import InvalidArgument, NotFound, OutOfRange
from greend.model import NS_PER_S
from greend.rpc.simulator import SimulatorClient, SimulatorServicer
from greend_proto.v1 import simulator_pb2, simulator_pb2_grpc

Request = TypeVar("Request")
Response = TypeVar("Response")
NO_CONTEXT = cast(grpc.ServicerContext, None)


@asynccontextmanager
async def serving(path: Path, driver: SimulatedDriver) -> AsyncIterator[str]:
    server = grpc.aio.server()
    simulator_pb2_grpc.add_SimulatorServiceServicer_to_server(SimulatorServicer(driver), server)
    server.add_insecure_port(f"unix://{path}")
    await server.start()
    try:
        yield f"unix://{path}"
    finally:
        await server.stop(None)


def test_what_is_told_over_a_socket_is_drawn_and_its_truth_told_back(tmp_path: Path) -> None:
    def drive(address: str, driver: SimulatedDriver) -> None:
        client = SimulatorClient(address)
        try:
            first, second = (device.info.uuid for device in driver.devices)
            start_unix_ns = time.time_ns() - NS_PER_S
            stop_unix_ns = start_unix_ns + NS_PER_S // 2
            assert client.set_load(first, 1.0, 0.4, start_unix_ns) == pytest.approx(672.0)
            client.set_load(first, 0.0, 0.0, stop_unix_ns)
            truth = client.truth(first, start_unix_ns, stop_unix_ns)
            # Within what the wall clock is moved against the monotonic one meanwhile.
            assert truth.energy_j == pytest.approx(336.0, rel=1e-3)
            assert truth.idle_energy_j == pytest.approx(60.0, rel=1e-3)
            other = client.truth(second, start_unix_ns, stop_unix_ns)
            assert other.energy_j == pytest.approx(60.0, rel=1e-3)
        finally:
            client.close()

    async def main() -> None:
        driver = SimulatedDriver("h100x2")
        async with serving(tmp_path / "s", driver) as address:
            await asyncio.to_thread(drive, address, driver)

    asyncio.run(main())


class Service:
    """The servicer called without a socket: its errors are seen as they are raised."""

    def __init__(self) -> None:
        self.now_ns = 1000 * NS_PER_S
        self.offset_ns = 7_000_000 * NS_PER_S
        self.driver = SimulatedDriver("a100x2", clock=lambda: self.now_ns)
        self._servicer = SimulatorServicer(self.driver, lambda: self.offset_ns)

    @property
    def unix_ns(self) -> int:
        return self.now_ns + self.offset_ns

    def set_load(self, request: simulator_pb2.SetLoadRequest) -> simulator_pb2.SetLoadResponse:
        return _result(self._servicer.SetLoad, request)

    def truth(self, request: simulator_pb2.GetTruthRequest) -> simulator_pb2.GetTruthResponse:
        return _result(self._servicer.GetTruth, request)


def _result(
    method: Callable[[Request, grpc.ServicerContext], Awaitable[Response]], request: Request
) -> Response:
    async def call() -> Response:
        return await method(request, NO_CONTEXT)

    return asyncio.run(call())


@pytest.fixture
def service() -> Service:
    return Service()


def test_no_devices_named_means_all_of_them_at_one_instant(service: Service) -> None:
    answer = service.set_load(simulator_pb2.SetLoadRequest(power_w=300.0))
    uuids = [device.info.uuid for device in service.driver.devices]
    assert [power.device for power in answer.powers] == uuids
    assert [power.power_w for power in answer.powers] == [300.0, 300.0]
    start_unix_ns = service.unix_ns
    service.now_ns += 2 * NS_PER_S
    truths = service.truth(simulator_pb2.GetTruthRequest(start_unix_ns=start_unix_ns)).truths
    assert [truth.device for truth in truths] == uuids
    assert [truth.energy_j for truth in truths] == [600.0, 600.0]
    assert [truth.idle_energy_j for truth in truths] == [170.0, 170.0]


def test_an_instant_is_taken_by_the_offset_between_the_clocks_at_the_call(
    service: Service,
) -> None:
    start_unix_ns = service.unix_ns
    service.set_load(simulator_pb2.SetLoadRequest(power_w=200.0, start_unix_ns=start_unix_ns))
    service.now_ns += NS_PER_S
    service.offset_ns += 3600 * NS_PER_S  # somebody set the wall clock
    asked = simulator_pb2.GetTruthRequest(
        start_unix_ns=start_unix_ns + 3600 * NS_PER_S, stop_unix_ns=service.unix_ns
    )
    assert [truth.energy_j for truth in service.truth(asked).truths] == [200.0, 200.0]


def test_zero_power_given_is_not_taken_for_power_absent(service: Service) -> None:
    answer = service.set_load(simulator_pb2.SetLoadRequest(sm_activity=1.0, power_w=0.0))
    assert [power.power_w for power in answer.powers] == [0.0, 0.0]


def test_an_unknown_device_is_not_found_and_those_that_exist_are_named(service: Service) -> None:
    exists = service.driver.devices[1].info.uuid
    with pytest.raises(NotFound, match=exists):
        service.set_load(simulator_pb2.SetLoadRequest(devices=[exists, "GPU-none"]))
    with pytest.raises(NotFound, match=exists):
        service.truth(simulator_pb2.GetTruthRequest(devices=["GPU-none"]))


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("sm_activity", simulator_pb2.SetLoadRequest(sm_activity=1.5)),
        ("memory_activity", simulator_pb2.SetLoadRequest(memory_activity=float("nan"))),
        ("power_w", simulator_pb2.SetLoadRequest(power_w=-1.0)),
    ],
)
def test_a_load_that_cannot_be_is_an_invalid_argument_and_changes_nothing(
    service: Service, field: str, request_: simulator_pb2.SetLoadRequest
) -> None:
    with pytest.raises(InvalidArgument, match=field):
        service.set_load(request_)
    start_unix_ns = service.unix_ns
    service.now_ns += NS_PER_S
    truths = service.truth(simulator_pb2.GetTruthRequest(start_unix_ns=start_unix_ns)).truths
    assert all(truth.energy_j == truth.idle_energy_j for truth in truths)


def test_instants_out_of_reach_are_out_of_range(service: Service) -> None:
    reach_ns = 601 * NS_PER_S
    with pytest.raises(OutOfRange, match="start_unix_ns"):
        service.set_load(simulator_pb2.SetLoadRequest(start_unix_ns=service.unix_ns + reach_ns))
    with pytest.raises(OutOfRange, match="start_unix_ns"):
        service.truth(simulator_pb2.GetTruthRequest(start_unix_ns=service.unix_ns - reach_ns))
