"""`greenctl summary`, `watch` and `completion`."""

import json
import os
import pty
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from greend_proto.v1 import metering_pb2
from tests.client.memory_daemon import GPU_0, GPU_1, MemoryDaemon, sample
from tests.greenctl.conftest import Run


def group(**fields: object) -> metering_pb2.SummarizeWindowsResponse.Group:
    made = metering_pb2.SummarizeWindowsResponse.Group(**fields)  # type: ignore[arg-type]
    made.joules_per_request.mean = 2.5
    return made


def test_a_summary_is_a_table_of_groups(address: str, greenctl: Run, daemon: MemoryDaemon) -> None:
    daemon.groups = [
        group(
            tags={"model": "llama"}, count=4, energy_j=10, uncertainty_j=0.5, start_unix_ns=10**18
        ),
        group(tags={}, count=1, energy_j=2.5, start_unix_ns=10**18),
    ]
    arguments = "summary --by model --by app --since 24h --bucket 1h --idle exclude --tag user=x"
    lines = greenctl(*arguments.split()).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split()[0] == "llama" and " 10.000 " in line for line in lines)
    assert " ± J " in lines[1]
    assert any(line.split()[0] == "llama" and " 0.500 " in line for line in lines)
    assert any(line.split()[0] == "–" for line in lines)
    assert lines[-1] == "Without the share of the idle power."
    request = daemon.requests[-1]
    assert (list(request.by), request.bucket_s, request.idle) == (["model", "app"], 3600, "exclude")
    assert dict(request.filter.tags) == {"user": "x"}
    document = json.loads(greenctl("summary", "--json").stdout)
    assert document["groups"][0]["joules_per_request"] == {"mean": 2.5}
    assert document["groups"][0]["uncertainty_j"] == 0.5
    assert "uncertainty_j" not in document["groups"][1]
    assert not daemon.requests[-1].HasField("bucket_s")


def test_a_summary_tells_its_groups_apart_before_it_tells_more_figures(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    models = ["llama-3-70b-instruct", "llama-3-8b-instruct"]
    known = {"mean": 1000.5, "p50": 1000.5, "p95": 1000.5, "p99": 1000.5}
    for model in models:
        summed = group(tags={"model": model}, count=1200, energy_j=123456.7)
        for statistics in (summed.joules_per_request, summed.joules_per_output_token):
            for name, figure in known.items():
                setattr(statistics, name, figure)
        daemon.groups.append(summed)
    lines = greenctl("summary", "--by", "model").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[3:]] == models


def test_a_summary_of_nothing_says_so(address: str, greenctl: Run, daemon: MemoryDaemon) -> None:
    assert greenctl("summary").stdout == "No windows that are final.\n"
    assert daemon.time_left_s[metering_pb2.SummarizeWindowsRequest] > 50
    assert '"1h"' in greenctl("summary", "--bucket", "soon", code=2).stderr


@contextmanager
def running(
    command: list[str], environment: dict[str, str], *arguments: str, stdout: int = subprocess.PIPE
) -> Iterator["subprocess.Popen[str]"]:
    # A test in the background of a shell has SIGINT ignored, and so its children.
    code = """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from greenctl.cli import main
        main()
    """
    with subprocess.Popen(
        [command[0], "-c", textwrap.dedent(code), "watch", *arguments],
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read().strip() == ""
        assert process.wait(30) == 130


def test_samples_are_a_line_each_in_a_pipe(
    address: str, daemon: MemoryDaemon, command: list[str], environment: dict[str, str]
) -> None:
    with running(command, environment, "--device", "1", "--interval", "0.5s") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        daemon.tell(sample(GPU_0), sample(GPU_1, power_w=321))
        second = process.stdout.readline()
    assert "GPU 1  100.0 W  SM 1755 MHz  memory –  GPU 87 %" in first
    assert "321.0 W" in second
    (request,) = daemon.seen(metering_pb2.WatchSamplesRequest)
    assert (list(request.devices), request.interval_s) == ([GPU_1], 0.5)


@pytest.mark.parametrize("arguments", [["--json"], ["--windows", "--json"], ["--windows"]])
def test_json_is_a_document_a_line_and_windows_are_followed(
    address: str,
    greenctl: Run,
    daemon: MemoryDaemon,
    command: list[str],
    environment: dict[str, str],
    arguments: list[str],
) -> None:
    with running(command, environment, *arguments) as process:
        greenctl("run", "--request-id", "r", "true")
        assert process.stdout is not None
        line = process.stdout.readline()
    if arguments == ["--windows"]:
        assert "  r  " in line
        assert " J" in line
    else:
        document = json.loads(line)
        assert document.get("device") == GPU_0 or document["request_id"] == "r"


def test_on_a_terminal_it_is_a_table_in_place(
    address: str, daemon: MemoryDaemon, command: list[str], environment: dict[str, str]
) -> None:
    ours, theirs = pty.openpty()
    seen = ""
    environment = environment | {"TERM": "xterm", "COLUMNS": "80"}
    with running(command, environment, stdout=theirs):
        os.close(theirs)
        while "100.0" not in seen:
            seen += os.read(ours, 4096).decode(errors="replace")
        daemon.tell(sample(GPU_0, power_w=432.1))
        while "432.1" not in seen:
            seen += os.read(ours, 4096).decode(errors="replace")
    os.close(ours)
    assert "power W" in seen
    assert "\x1b[1A" in seen  # the cursor goes up: the same place again


def test_tags_choose_windows_only(greenctl: Run) -> None:
    assert "--windows" in greenctl("watch", "--tag", "a=b", code=2).stderr


@pytest.mark.parametrize("shell", ["zsh", "fish", "bash"])
def test_completion_prints_a_script_that_answers(greenctl: Run, shell: str) -> None:
    assert "_GREENCTL_COMPLETE" in greenctl("completion", shell).stdout
    done = greenctl(_GREENCTL_COMPLETE="bash_complete", COMP_WORDS="greenctl wind", COMP_CWORD="1")
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == {"window", "windows"}
