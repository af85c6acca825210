"""A real Prometheus: the one installed, or Debian's package unpacked into a cache."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.debian import unpacked

START_S = 30.0
SCRAPE_INTERVAL = "500ms"


@dataclass(frozen=True)
class Programs:
    """Paths of the server and its tool."""

    prometheus: str
    promtool: str


def find_prometheus() -> Programs:
    """On PATH, else from Debian's package."""
    installed = shutil.which("prometheus"), shutil.which("promtool")
    if installed[0] and installed[1]:
        return Programs(installed[0], installed[1])
    programs = unpacked("prometheus") / "usr/bin"
    return Programs(str(programs / "prometheus"), str(programs / "promtool"))


@dataclass(frozen=True)
class Prometheus:
    """A server that runs."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an API call."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> dict[str, float]:
        """A query's result now: values by labels, as text."""
        result = self.get("query", query=expression)["result"]
        return {json.dumps(item["metric"]): float(item["value"][1]) for item in result}


@contextmanager
def running(directory: Path, target: str, rules: Path) -> Iterator[Prometheus]:
    """Prometheus with one target (HOST:PORT, as job "greend") and one file of rules."""
    configuration = directory / "prometheus.json"  # JSON is YAML
    configuration.write_text(
        json.dumps(
            {
                "global": {
                    "scrape_interval": SCRAPE_INTERVAL,
                    "scrape_timeout": SCRAPE_INTERVAL,
                    "evaluation_interval": SCRAPE_INTERVAL,
                },
                "rule_files": [str(rules.resolve())],
                "scrape_configs": [
                    {"job_name": "greend", "static_configs": [{"targets": [target]}]}
                ],
            }
        )
    )
    log = directory / "prometheus.log"
    address = f"127.0.0.1:{free_port()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                find_prometheus().prometheus,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=output,
            stderr=output,
        )
    server = Prometheus(f"http://{address}")
    try:
        _wait_until_ready(server, process, log)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(f"{server.url}/-/ready", timeout=2):
                return
        except OSError:
            time.sleep(0.05)


def free_port() -> int:
    """A port that was free just now, for programs that cannot say which one they chose."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
