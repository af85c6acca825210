"""The endpoint of a real `greend serve`, with requests that come all the time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import greend_client
from tests.daemon import daemon
from tests.export.prometheus import free_port

REQUEST_S = 0.05


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """HOST:PORT of a daemon on two simulated GPUs, which allows the tag `model`."""
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
        serving.start()
        try:
            yield address
        finally:
            ended.set()
            serving.join()


def _serve(client: greend_client.Client, ended: threading.Event) -> None:
    number = 0
    while not ended.is_set():
        number += 1
        with client.window(f"request-{number}", model="llama-3-8b", gpus=[number % 2]) as window:
            ended.wait(REQUEST_S)
            window.tokens(prompt=512, cached=128, output=20)
