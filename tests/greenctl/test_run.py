"""`greenctl run`: the command is as if it ran alone, and its energy is told."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.memory_daemon import MemoryDaemon, Start, serving
from tests.greenctl.conftest import Run


def test_a_command_is_measured_and_its_windows_are_its_children(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    code = """
import greend_client
with greend_client.Client() as client:
    with client.window("inner"): pass
"""
    done = greenctl(
        *("run", "--tag", "job=a", "--request-id", "outer", "--gpus", "0"),
        *("--", sys.executable, "-c", code),
    )
    outer, inner = daemon.seen(Start)
    assert (outer.request_id, inner.request_id) == ("outer", "inner")
    assert (dict(outer.tags), len(outer.devices)) == ({"job": "a"}, 1)
    assert inner.parent_id == outer.window_id
    assert done.stderr.startswith("greenctl: ")
    assert " J " in done.stderr
    assert "on 1 GPU(s)" in done.stderr


def test_streams_pass_through(
    address: str, command: list[str], environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [*command, "run", "sh", "-c", "cat; echo problem >&2"],
        input="some text",
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stdout == "some text"
    assert done.stderr.startswith("problem\n")


def test_the_child_has_none_of_our_files(address: str, greenctl: Run) -> None:
    code = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert greenctl("run", "--", sys.executable, "-c", code).stdout == alone.stdout


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_the_exit_code_is_the_commands(
    address: str, greenctl: Run, daemon: MemoryDaemon, script: str, code: int
) -> None:
    greenctl("run", "--", "sh", "-c", script, code=code)
    assert [window.state for window in daemon.windows.values()] == ["final"]


def test_a_command_that_cannot_run_ends_as_in_a_shell(
    address: str, greenctl: Run, tmp_path: Path
) -> None:
    assert "not found" in greenctl("run", "no-such-command", code=127).stderr
    plain = tmp_path / "plain"
    plain.write_text("")
    assert "Permission denied" in greenctl("run", str(plain), code=126).stderr


def test_without_a_daemon_it_runs_with_one_warning(greenctl: Run) -> None:
    done = greenctl("run", "--", "sh", "-c", "echo ran; exit 3", code=3)
    assert done.stdout == "ran\n"
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("greenctl: not measured: no greend daemon answers")


def test_a_daemon_that_comes_meanwhile_still_measures(
    socket: Path, daemon: MemoryDaemon, command: list[str], environment: dict[str, str]
) -> None:
    running = subprocess.Popen(
        [*command, "run", "sh", "-c", "echo; read line"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    running.stdout.readline()
    with serving(daemon, socket):
        _, errors = running.communicate("\n", timeout=30)
    assert "not measured" in errors.splitlines()[0]
    assert " J " in errors.splitlines()[1]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_signal_is_forwarded(
    address: str, command: list[str], environment: dict[str, str], name: str
) -> None:
    script = f"trap 'echo got; exit 5' {name[3:]}; echo ready; while :; do read line; done"
    # A test in the background has SIGINT ignored, or under nohup SIGHUP; and so its children.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
        "from greenctl.cli import main; main()"
    )
    running = subprocess.Popen(
        [command[0], "-c", code, "run", "--", "bash", "-c", script],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.Signals[name])
    running.stdin.write("\n")
    output, _ = running.communicate(timeout=30)
    assert output == "got\n"
    assert running.returncode == 5


def test_the_result_is_json_where_asked(address: str, greenctl: Run, tmp_path: Path) -> None:
    document = json.loads(greenctl("run", "--json", "true").stderr)
    assert document["state"] == "final"
    file = tmp_path / "result.json"
    done = greenctl("run", "--output", str(file), "true")
    assert json.loads(file.read_text())["energy_j"] > 0
    assert " J " in done.stderr
    assert greenctl("run", "--json", "--output", str(file), "true").stderr == ""


def test_wrong_usage_runs_nothing(greenctl: Run) -> None:
    assert "Usage:" in greenctl("run", code=2).stderr
    assert "cannot be a tag" in greenctl("run", "--tag", "gpus=1", "echo", "x", code=2).stderr
    wrong = greenctl("run", "--output", "/nowhere/file", "echo", "x", code=2)
    assert wrong.stdout == ""
