"""The endpoint of a real `greend serve`, with requests that come all the time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

import greend_client
from greend_proto.v1 import simulator_pb2, simulator_pb2_grpc
from tests.daemon import daemon
from tests.export.prometheus import free_port

REQUEST_S = 0.05


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """HOST:PORT of a daemon on two simulated GPUs, which allows the tag `model`.

    One GPU works at its power cap, so that all there is to tell is told.
    """
    configuration = directory / "greend.toml"
    configuration.write_text('[metrics]\ntag_keys = ["model"]\n')
    address = f"127.0.0.1:{free_port()}"
    with (
        daemon(
            *("--simulate", "h100x2", "--config", str(configuration), "--metrics", address),
            devices=2,
        ) as running,
        greend_client.Client(running.address) as client,
    ):
        ended = threading.Event()
        serving = threading.Thread(target=_serve, args=(client, ended), name="requests")
        # A window covers the work: what nobody claims would be something to be alarmed at.
        with client.window("batch", model="llama-3-8b", gpus=[0]):
            _work_at_the_cap(running.address, client.devices()[0].uuid)
            serving.start()
            try:
                yield address
            finally:
                ended.set()
                serving.join()


def _work_at_the_cap(address: str, uuid: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = simulator_pb2_grpc.SimulatorServiceStub(channel)
        stub.SetLoad(simulator_pb2.SetLoadRequest(devices=[uuid], sm_activity=1, memory_activity=1))


def _serve(client: greend_client.Client, ended: threading.Event) -> None:
    number = 0
    while not ended.is_set():
        number += 1
        with client.window(f"request-{number}", model="llama-3-8b", gpus=[number % 2]) as window:
            ended.wait(REQUEST_S)
            window.tokens(prompt=512, cached=128, output=20)
