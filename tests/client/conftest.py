"""A daemon and a client on a socket of their own, and a clean environment."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from greend_client import Client
from tests.client.memory_daemon import MemoryDaemon, serving

VARIABLES = (
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "GREEND_ADDRESS",
    "GREEND_CONTROL_ADDRESS",
    "GREEND_PARENT_WINDOW",
    "NVIDIA_VISIBLE_DEVICES",
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "greend.sock"


@pytest.fixture
def daemon() -> MemoryDaemon:
    return MemoryDaemon()  # type: ignore[abstract]  # some RPCs stay unimplemented


@pytest.fixture
def address(daemon: MemoryDaemon, socket: Path) -> Iterator[str]:
    with serving(daemon, socket) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client
