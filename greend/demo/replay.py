"""Does what the workload plans, in real time: loads to the GPUs, windows to greend."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from greend.demo.workload import IDLE, PREFILL, Activity, Event, Request
from greend.model import NS_PER_S
from greend.rpc.simulator import SimulatorClient, wall_offset_ns
from greend_client import Client, Window

WARM_UP_S = 0.2
REST_S = 1.2


@dataclass(slots=True)
class Served:
    """A request that was served, its window, and when it began and ended."""

    request: Request
    window: Window
    start_unix_ns: int
    stop_unix_ns: int = 0


class Engines:
    """The engines of all GPUs, in one thread; `devices` are UUIDs by GPU index.

    A window is started and stopped, and the load told, at the same instant: to
    a few microseconds, which is how long the calls take.
    """

    def __init__(self, client: Client, simulator: SimulatorClient, devices: Sequence[str]) -> None:
        self._client = client
        self._simulator = simulator
        self._devices = devices
        self._served: dict[str, Served] = {}

    def warm_up(self) -> None:
        """A moment of work and a rest on every GPU, as an engine's before it serves.

        Lets greend learn what the GPUs draw at rest.
        """
        windows = [
            self._client.window("warm-up", gpus=[device], parent="", model="warm-up")
            for device in self._devices
        ]
        for gpu, window in enumerate(windows):
            window.start()
            self._tell(gpu, PREFILL, _now_unix_ns())
        time.sleep(WARM_UP_S)
        for gpu, window in enumerate(windows):
            window.stop()
            self._tell(gpu, IDLE, _now_unix_ns())
        time.sleep(REST_S)

    def run(self, events: Iterable[Event], ended: Callable[[int], None]) -> Sequence[Served]:
        """Replays the events from now on; returns the requests as they were served.

        `ended` is called with the number of requests that just ended.
        """
        begin_ns = time.monotonic_ns()
        for event in events:
            due_ns = begin_ns + round(event.at_s * NS_PER_S)
            time.sleep(max(0, due_ns - time.monotonic_ns()) / NS_PER_S)
            self._happen(event)
            ended(len(event.stops))
        return list(self._served.values())

    def _happen(self, event: Event) -> None:
        now_unix_ns = _now_unix_ns()
        for request in event.stops:
            served = self._served[request.request_id]
            served.window.stop()
            served.stop_unix_ns = now_unix_ns
        for request in event.starts:
            device = self._devices[request.gpu]
            window = self._client.window(
                request.request_id, gpus=[device], parent="", model=request.model
            )
            window.start()
            self._served[request.request_id] = Served(request, window, now_unix_ns)
        for request in event.first_tokens:
            self._served[request.request_id].window.first_token()
        self._tell(event.gpu, event.activity, now_unix_ns)
        for request in event.first_tokens:
            # An engine knows them at the end; told now, they keep the end free of work.
            window = self._served[request.request_id].window
            window.tokens(prompt=request.prompt_tokens, output=request.output_tokens)

    def _tell(self, gpu: int, activity: Activity, start_unix_ns: int) -> None:
        self._simulator.set_load(self._devices[gpu], activity.sm, activity.memory, start_unix_ns)


def _now_unix_ns() -> int:
    return time.monotonic_ns() + wall_offset_ns()
