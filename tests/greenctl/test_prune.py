"""`greenctl prune` on a real daemon."""

import json
import signal
import subprocess
import time

import pytest

from greend.model import Booking
from tests.daemon import Daemon
from tests.greenctl.conftest import Run
from tests.greenctl.terminal import on_terminal
from tests.integration.history import DEVICE, past_window, remember, remember_many

S = 1_000_000_000
DAY = 86_400 * S


def remember_days(real: Daemon) -> None:
    """1200 windows of each of the last ten days, alternately of models a and b."""
    now = time.time_ns()
    windows = [
        past_window(now - DAY * days - number * S, model="ab"[number % 2])
        for days in range(1, 11)
        for number in range(1200)
    ]
    remember(real.directory, windows)


def left(real: Daemon) -> int:
    (row,) = real.rows("select count(*) as n from windows")
    return int(row["n"])


def test_windows_are_deleted_by_time_and_tag(real: Daemon, greenctl: Run) -> None:
    remember_days(real)

    def prune(*arguments: str) -> str:
        # The control socket is found beside the reading one.
        return greenctl("prune", *arguments, GREEND_ADDRESS=real.address).stdout

    assert prune("--before", "100d", "--yes") == "No such windows that are final.\n"
    told = prune("--before", "5d", "--dry-run")
    assert told.startswith("Would delete 7 200 windows from 2")
    assert left(real) == 12_000
    assert prune("--before", "5d", "--tag", "model=a", "--yes") == "Deleted 3 600 windows.\n"
    document = json.loads(prune("--before", "5d", "--device", DEVICE, "--yes", "--json"))
    assert document["deleted_windows"] == document["matching_windows"] == 3_600
    assert document["first_start_unix_ns"] < document["last_start_unix_ns"]
    assert left(real) == 4_800
    assert prune("--request-id", "request-of-the-past", "--since", "36h", "--yes") == (
        "Deleted 1 200 windows.\n"
    )


def test_it_asks_on_a_terminal(
    real: Daemon, command: list[str], environment: dict[str, str]
) -> None:
    remember_days(real)
    prune = [*command, "prune", "--address", real.address, "--before", "5d"]
    code, shown = on_terminal(prune, environment, "n\n")
    assert code == 1
    (question,) = (line for line in shown.splitlines() if line.startswith("Delete 7 200 windows "))
    assert len(question.partition(": ")[0]) < 80
    assert shown.rstrip().endswith("Nothing was deleted.")
    assert left(real) == 12_000
    code, shown = on_terminal(prune, environment, "y\n")
    assert code == 0
    assert "Deleted 7 200 windows." in shown
    assert left(real) == 4_800


def test_ctrl_c_stops_it_and_says_what_is_gone(
    real: Daemon, command: list[str], environment: dict[str, str]
) -> None:
    remember_many(real.directory, past_window(time.time_ns() - DAY), 100_000)
    # A test run in the background of a shell has SIGINT ignored, and so its children.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += "from greenctl.cli import main; main()"
    arguments = ["prune", "--before", "1h", "--yes", "--address", real.address]
    with subprocess.Popen(
        [command[0], "-c", code, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    ) as running:
        while left(real) == 100_000:
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert errors.strip().startswith("greenctl: stopped after at least ")
    assert 0 < left(real) < 100_000


def test_the_ledger_goes_only_where_it_is_said(real: Daemon, greenctl: Run) -> None:
    minute_s = time.time_ns() // S // 60 * 60 - 86_400
    remember(
        real.directory,
        [past_window(minute_s * S)],
        [Booking(DEVICE, minute_s + 60 * n, 2.0, 2.0) for n in range(5)],
    )
    arguments = ("prune", "--before", "20h", "--yes")
    done = greenctl(*arguments, "--minutes", GREEND_ADDRESS=real.address)
    assert done.stdout == "Deleted 1 window and 5 minutes of the ledger.\n"
    refusal = greenctl(*arguments, "--minutes", "--tag", "a=b", code=1, GREEND_ADDRESS=real.address)
    assert "by time alone" in refusal.stderr


def test_who_may_not_delete_is_told_what_to_do(real: Daemon, greenctl: Run) -> None:
    arguments = ("prune", "--before", "1d", "--yes", "--address", real.address)
    wrong = greenctl(*arguments, "--control-address", real.address, code=1)
    assert "GREEND_CONTROL_ADDRESS" in wrong.stderr
    assert "greend-control" in wrong.stderr
    nowhere = greenctl(*arguments, code=1, GREEND_CONTROL_ADDRESS="unix:///nowhere/c.sock")
    (line,) = nowhere.stderr.splitlines()
    assert "no greend daemon answers at unix:///nowhere/c.sock" in line
    assert "GREEND_CONTROL_ADDRESS" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--yes"], "at least one of --before"),
        (["--minutes", "--yes"], "at least one of --before"),
        (["--before", "1d"], "--yes"),
    ],
)
def test_what_would_delete_too_much_unasked_is_refused(
    greenctl: Run, arguments: list[str], words: str
) -> None:
    assert words in greenctl("prune", *arguments, code=2).stderr
