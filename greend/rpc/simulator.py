"""SimulatorService: its servicer, and the client that the demo and tests drive it with."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from greend.device.simulated import SimulatedDevice, SimulatedDriver, Truth
from greend.errors import NotFound, Unavailable
from greend_proto.v1 import simulator_pb2, simulator_pb2_grpc

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def wall_offset_ns() -> int:
    """What to add to CLOCK_MONOTONIC to get Unix time, as of now."""
    return time.time_ns() - time.monotonic_ns()


class SimulatorServicer(simulator_pb2_grpc.SimulatorServiceServicer):
    """Load and truth of simulated GPUs; errors are greend.errors'."""

    def __init__(
        self, driver: SimulatedDriver, wall_offset_ns: Callable[[], int] = wall_offset_ns
    ) -> None:
        self._driver = driver
        self._wall_offset_ns = wall_offset_ns

    async def SetLoad(  # noqa: N802
        self, request: simulator_pb2.SetLoadRequest, context: grpc.ServicerContext
    ) -> simulator_pb2.SetLoadResponse:
        """Says what the GPUs do from an instant on, the same for all of them."""
        devices = self._find(request.devices)
        start_ns = self._driver.now_ns()
        if request.HasField("start_unix_ns"):
            start_ns = request.start_unix_ns - self._wall_offset_ns()
        power_w = request.power_w if request.HasField("power_w") else None
        response = simulator_pb2.SetLoadResponse()
        for device in devices:
            response.powers.add(
                device=device.info.uuid,
                power_w=device.set_load(
                    request.sm_activity, request.memory_activity, power_w, start_ns
                ),
            )
        return response

    async def GetTruth(  # noqa: N802
        self, request: simulator_pb2.GetTruthRequest, context: grpc.ServicerContext
    ) -> simulator_pb2.GetTruthResponse:
        """What the GPUs truly drew in an interval, the same for all of them."""
        devices = self._find(request.devices)
        offset_ns = self._wall_offset_ns()
        stop_ns = self._driver.now_ns()
        if request.HasField("stop_unix_ns"):
            stop_ns = request.stop_unix_ns - offset_ns
        response = simulator_pb2.GetTruthResponse()
        for device in devices:
            truth = device.truth(request.start_unix_ns - offset_ns, stop_ns)
            response.truths.add(
                device=device.info.uuid,
                energy_j=truth.energy_j,
                idle_energy_j=truth.idle_energy_j,
            )
        return response

    def _find(self, uuids: Iterable[str]) -> Sequence[SimulatedDevice]:
        by_uuid = {device.info.uuid: device for device in self._driver.devices}
        wanted = list(dict.fromkeys(uuids)) or list(by_uuid)
        unknown = [uuid for uuid in wanted if uuid not in by_uuid]
        if unknown:
            raise NotFound(
                f"devices: no simulated device {', '.join(unknown)}; there are: "
                f"{', '.join(by_uuid)}"
            )
        return [by_uuid[uuid] for uuid in wanted]


class SimulatorClient:
    """Tells simulated GPUs their load and asks for the truth; instants are Unix ns.

    `address` is the reading door's, as GREEND_ADDRESS has it. Raises
    Unavailable when the daemon does not answer as it should.
    """

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        # A daemon that is just starting is asked again soon, not after a second.
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._stub = simulator_pb2_grpc.SimulatorServiceStub(self._channel)
        self._timeout_s = timeout_s

    def is_serving(self) -> bool:
        """Whether the daemon says that it serves (grpc.health.v1, empty service name)."""
        try:
            answer = self._health.Check(health_pb2.HealthCheckRequest(), timeout=self._timeout_s)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def devices(self) -> Sequence[str]:
        """The UUIDs of the simulated GPUs, in order of their index."""
        now_unix_ns = time.time_ns()
        request = simulator_pb2.GetTruthRequest(start_unix_ns=now_unix_ns, stop_unix_ns=now_unix_ns)
        return [truth.device for truth in self._call(self._stub.GetTruth, request).truths]

    def set_load(
        self, device: str, sm_activity: float, memory_activity: float, start_unix_ns: int
    ) -> float:
        """Sets a device's load from an instant on; returns the power drawn then, in W."""
        request = simulator_pb2.SetLoadRequest(
            devices=[device],
            sm_activity=sm_activity,
            memory_activity=memory_activity,
            start_unix_ns=start_unix_ns,
        )
        return self._call(self._stub.SetLoad, request).powers[0].power_w

    def truth(self, device: str, start_unix_ns: int, stop_unix_ns: int) -> Truth:
        """What a device truly drew in an interval."""
        request = simulator_pb2.GetTruthRequest(
            devices=[device], start_unix_ns=start_unix_ns, stop_unix_ns=stop_unix_ns
        )
        truth = self._call(self._stub.GetTruth, request).truths[0]
        return Truth(truth.energy_j, truth.idle_energy_j)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _call(
        self, method: "grpc.UnaryUnaryMultiCallable[_Request, _Response]", request: _Request
    ) -> _Response:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise Unavailable(f"the simulator does not answer: {error}") from error
