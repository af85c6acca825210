"""What is wrong with a command, or with where it prints, is said in one line."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import greend_client
from tests.daemon import Daemon, daemon

HUGE = "9" * 27
NO_TEXT = os.fsdecode(b"\xff")


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    with daemon("--simulate", "h100x2", devices=2) as running:
        with greend_client.Client(running.address) as client:
            for number in range(50):
                with client.window(f"r-{number}", gpus=[0]) as window:
                    pass
            window.result(timeout=10)
        yield running


def greenctl(
    running: Daemon, *arguments: str, shell: str = '"$@"', **more: str
) -> "subprocess.CompletedProcess[str]":
    """Runs it as a line of shell does, in which "$@" is the command."""
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-W", "error", "-m", "greenctl", *arguments],
        env=os.environ | {"GREEND_ADDRESS": running.address} | more,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["windows", "--since", "soon"], 1, '"soon" is no time: write how long ago'),
        (["windows", "--since", f"{HUGE}s"], 1, "beyond the times"),
        (["windows", "--since", HUGE * 20 + "d"], 1, "is no time"),
        (["windows", "--since", "1764077000"], 1, "in Python, Unix seconds"),
        (["windows", "--until", "9999-12-31"], 1, "beyond the times"),
        (["ledger", "--since", "0001-01-01T00:00Z"], 1, "beyond the times"),
        (["windows", "--since", "1h", "--until", "2h"], 1, "until_unix_ns: 3600."),
        (["summary", "--bucket", f"{HUGE}w"], 1, "bucket_s: "),
        (["summary", "--bucket", HUGE * 20], 1, "bucket_s: inf"),
        (["summary", "--by", "Model"], 1, "by: key 'Model'"),
        (["windows", "--device", "7"], 1, 'no GPU "7"; there are 0: GPU-'),
        (["windows", "--device", "GPU-none"], 1, "there are: GPU-"),
        (["ledger", "--device", "GPU-none"], 1, "there are: GPU-"),
        (["watch", "--device", "GPU-none"], 1, "there are: GPU-"),
        (["windows", "--tag", "Bad=1"], 1, "tags: key 'Bad'"),
        (["windows", "--tag", f"a={NO_TEXT}"], 2, "UTF-8"),
        (["windows", "--request-id", NO_TEXT], 2, "UTF-8"),
        (["windows", "--device", NO_TEXT], 2, "UTF-8"),
        (["summary", "--by", NO_TEXT], 2, "UTF-8"),
        (["window", NO_TEXT], 1, "none of the newest windows"),
        (["window", "00000000-0000-7000-8000-000000000000"], 1, "window_id: no window 00000000"),
        (["window", "z" * 36], 1, "UUID"),
        (["--address", NO_TEXT, "status"], 2, "UTF-8"),
        (["--address", "unix:", "status"], 1, "unix:///run/greend/greend.sock"),
        (["--address", "unix://relative", "status"], 1, "unix:///run/greend/greend.sock"),
        (["--address", "unix:///" + "x" * 107, "status"], 1, "107 bytes"),
        (["--address", "nonsense", "status"], 1, "GREEND_ADDRESS"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    running: Daemon, arguments: list[str], code: int, words: str
) -> None:
    done = greenctl(running, *arguments)
    (line,) = done.stderr.splitlines()
    assert line.startswith("greenctl: ")
    assert words in line
    assert (done.returncode, done.stdout) == (code, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["windows", "--tag", "x"],
        ["status", "--wait", "nan"],
        ["status", "--wait", "1e300"],
        ["watch", "--interval", "-1"],
        ["windows", "--limit", "many"],
        ["run", "--output", "/nowhere/x", "--", "true"],
    ],
)
def test_wrong_usage_shows_how(running: Daemon, arguments: list[str]) -> None:
    done = greenctl(running, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: greenctl ")
    assert done.stderr.splitlines()[-1].startswith("Error: Invalid value for ")


PRINTING = [
    ["status"],
    ["status", "--json"],
    ["devices"],
    ["windows"],
    ["windows", "--json"],
    ["summary"],
    ["ledger"],
    ["watch"],
    ["watch", "--json"],
    ["completion", "bash"],
    ["--help"],
    ["--version"],
]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_full_disk_behind_the_output_is_said_in_a_line(
    running: Daemon, arguments: list[str]
) -> None:
    done = greenctl(running, *arguments, shell='"$@" >/dev/full')
    assert done.stderr == "greenctl: cannot write: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_error(running: Daemon, arguments: list[str]) -> None:
    done = greenctl(running, *arguments, shell='"$@" | head -n 1')
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments", [["status"], ["windows"], ["windows", "--json"], ["--version"]], ids=" ".join
)
def test_closed_streams_are_nobody_who_listens(running: Daemon, arguments: list[str]) -> None:
    for shell in ('"$@" >&-', '"$@" 2>&-', '"$@" >&- 2>&-'):
        assert greenctl(running, *arguments, shell=shell).returncode == 0
    assert greenctl(running, "windows", "--since", "soon", shell='"$@" 2>&-').returncode == 1


def test_a_terminal_without_the_signs_gets_others(running: Daemon) -> None:
    done = greenctl(running, "windows", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout


@pytest.mark.parametrize("shell", ['"$@" 2>/dev/full', '"$@" 2>&-', '"$@" >&-'])
@pytest.mark.parametrize("options", [[], ["--json"], ["--gpus", "9"], ["--tag", "Bad=1"]])
def test_run_passes_the_exit_code_on_whoever_listens(
    running: Daemon, shell: str, options: list[str]
) -> None:
    done = greenctl(running, "run", *options, "--", "sh", "-c", "exit 7", shell=shell)
    assert done.returncode == 7


def test_run_says_what_it_could_not_write_or_find(running: Daemon, tmp_path: Path) -> None:
    done = greenctl(running, "run", "--output", "/dev/full", "--", "true")
    assert done.returncode == 0
    assert "cannot write the result: No space left on device" in done.stderr
    done = greenctl(running, "run", "--", "")
    assert done.returncode == 127
    assert "command not found" in done.stderr
    done = greenctl(running, "run", "--", "printf", "%s", NO_TEXT)
    assert (done.returncode, done.stdout) == (0, NO_TEXT)
