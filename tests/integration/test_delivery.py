"""What a client tells reaches the daemon, or both sides say how much did not."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest

from greend_client import Client, Stats, Window
from tests.client.memory_daemon import until
from tests.daemon import Daemon, daemon
from tests.export.prometheus import free_port
from tests.export.text import Scrape
from tests.integration.conftest import Metered
from tests.nvml_double import NvmlDouble

CLOSING_S = 2.0
# A program's end has more to do than to close its client.
EXIT_S = 1.5


@pytest.fixture
def frozen(metered: Metered) -> Iterator[Daemon]:
    """A daemon that is there, and does nothing any more."""
    os.kill(metered.daemon.pid, signal.SIGSTOP)
    yield metered.daemon
    os.kill(metered.daemon.pid, signal.SIGCONT)


def run(client: Client, name: str = "") -> Window:
    with client.window(name, gpus=[0]) as window:
        pass
    return window


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "greend_client"]


def test_what_happens_while_the_daemon_is_away_arrives_as_far_as_it_fitted(
    double: NvmlDouble, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    environment = os.environ | double.environment
    with (
        daemon("--metrics", metrics, environment=environment, devices=2) as running,
        Client(running.address) as client,
    ):
        client._sender._outbox.bound(2000)
        run(client, "before").result(10)
        os.kill(running.pid, signal.SIGSTOP)
        away = [run(client, f"away {n}") for n in range(5000)]
        os.kill(running.pid, signal.SIGCONT)
        assert away[-1].result(20).request_id == "away 4999"
        until(lambda: client.stats().kept == 0, "all that is kept is delivered")
        stats = client.stats()
        assert stats.delivered + stats.lost == 5001
        assert 999 <= stats.delivered - 1 <= 1500  # some were on their way
        query = "select request_id from windows where request_id like 'away%'"
        arrived = sorted(int(row["request_id"].split()[1]) for row in running.rows(query))
        assert len(arrived) == stats.delivered - 1
        assert arrived[-500:] == list(range(4500, 5000))  # given up were older ones
        assert client.status().lost_windows == stats.lost
        seen = Scrape(f"http://{metrics}/metrics")
        assert seen.value("greend_client_lost_windows_total") == stats.lost
        told = subprocess.run(
            [sys.executable, "-m", "greenctl", "--address", running.address, "status"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"0 open, {stats.lost} lost by clients" in told
    assert sum("given up" in warning for warning in warnings(caplog)) == 1


def test_a_client_with_nothing_to_tell_comes_back_all_the_same(metered: Metered) -> None:
    """Or its window would be taken for abandoned, and the step of the restart wait for it."""
    running = metered.daemon
    with Client(running.address) as client:
        client.window(gpus=[0]).start()
        until(lambda: running.rows("select 1 from windows") != [], "its start is committed")
        running.stop(signal.SIGKILL)
        running.log.write_bytes(b"")
        running.start()
        until(lambda: "is shared out now" in running.log.read_text(), "nobody is waited for")


def test_a_daemon_that_is_frozen_keeps_nobody_from_closing(
    frozen: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(frozen.address)
    for _ in range(100):
        run(client)
    begun = time.monotonic()
    client.close()
    assert time.monotonic() - begun < CLOSING_S
    assert client.stats() == Stats(delivered=0, kept=0, lost=100, refused=0)
    assert [w for w in warnings(caplog) if w.startswith("greend: 100 windows are lost")]


def test_a_client_that_closes_delivers_first(metered: Metered) -> None:
    client = Client(metered.daemon.address)
    windows = [run(client) for _ in range(300)]
    client.close()
    assert client.stats() == Stats(delivered=300, kept=0, lost=0, refused=0)
    rows = metered.daemon.rows("select count(*) as count from windows")
    assert rows == [{"count": len(windows)}]


PROGRAM = """
    import sys, time, greend_client
    client = greend_client.Client(sys.argv[1])
    for number in range(100):
        with client.window(str(number), gpus=[0]):
            pass
    print(time.monotonic(), flush=True)
"""


def leave(address: str) -> tuple[float, str]:
    """How long a program took from its last line to its end, and what it said."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), address],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return time.monotonic() - float(ended.stdout), ended.stderr


def test_a_program_that_ends_delivers_first(metered: Metered) -> None:
    took_s, said = leave(metered.daemon.address)
    assert took_s < CLOSING_S + EXIT_S
    assert said == ""
    assert len(metered.daemon.rows("select 1 from windows")) == 100


def test_a_program_ends_though_the_daemon_is_frozen(frozen: Daemon) -> None:
    took_s, said = leave(frozen.address)
    assert took_s < CLOSING_S + EXIT_S
    assert said.count("100 windows are lost") == 1


def test_a_program_ends_though_there_is_no_daemon() -> None:
    took_s, said = leave("unix:///nowhere/greend.sock")
    assert took_s < CLOSING_S + EXIT_S
    assert said.count("100 windows are lost") == 1
