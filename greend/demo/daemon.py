"""A real daemon of the demo's own: `greend serve --simulate` on a temporary directory."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greend.errors import Unavailable
from greend.rpc.simulator import SimulatorClient

START_S = 15.0
STOP_S = 5.0
_MAX_SOCKET_PATH = 107  # bytes; the kernel's limit
_LOG_LINES = 20


@contextmanager
def running_daemon(spec: str) -> Iterator[str]:
    """Starts `greend serve --simulate spec` and gives the address of its reading door.

    On leaving, whatever happened, the daemon is ended and its directory
    removed. Raises Unavailable, with the end of its log, when it does not
    start to serve within 15 s.
    """
    directory = Path(tempfile.mkdtemp(prefix="greend-demo-", dir=_short_temporary_root()))
    try:
        log = directory / "serve.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _command(spec, directory),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                # Ctrl-C is for the demo; it ends the daemon itself, afterwards.
                start_new_session=True,
            )
        try:
            address = f"unix://{directory / 'greend.sock'}"
            _wait_until_serving(process, address, log)
            yield address
        finally:
            _end(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _command(spec: str, directory: Path) -> list[str]:
    serve = [sys.executable, "-m", "greend", "serve", "--simulate", spec]
    places = ["--state-dir", str(directory), "--runtime-dir", str(directory)]
    return [*serve, *places, "--metrics", ""]


def _environment() -> dict[str, str]:
    # The demo shows greend as it comes, not as somebody configured it here.
    return {name: value for name, value in os.environ.items() if not name.startswith("GREEND_")}


def _short_temporary_root() -> str:
    root = tempfile.gettempdir()
    longest = os.path.join(root, "greend-demo-12345678", "control.sock")
    return root if len(os.fsencode(longest)) <= _MAX_SOCKET_PATH else "/tmp"


def _wait_until_serving(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    simulator = SimulatorClient(address, timeout_s=1.0)
    try:
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                raise Unavailable(f"greend serve ended at once ({_status(process)}):\n{_tail(log)}")
            if simulator.is_serving():
                return
            time.sleep(0.05)
    finally:
        simulator.close()
    raise Unavailable(f"greend serve does not serve after {START_S:.0f} s:\n{_tail(log)}")


def _status(process: subprocess.Popen[bytes]) -> str:
    if process.returncode < 0:
        return signal.Signals(-process.returncode).name
    return f"exit status {process.returncode}"


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (its log is empty)"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=STOP_S)
    except BaseException as error:  # a second Ctrl-C does not leave it behind either
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
