"""`greenctl backup` of a real daemon; of one that sends nonsense where that is the matter."""

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from greend_proto.v1 import metering_pb2 as pb
from tests.client.memory_daemon import MemoryDaemon, until
from tests.daemon import Daemon
from tests.greenctl.conftest import Run
from tests.greenctl.terminal import on_terminal
from tests.integration.history import past_window, remember_many

DAY = 86_400 * 1_000_000_000
MAGIC = b"SQLite format 3\0"
# A test run in the background of a shell has SIGINT ignored, and so its children.
GREENCTL = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from greenctl.cli import main; main()"
)


class Sender(MemoryDaemon):
    """Sends what it was told to as a backup."""

    chunks: list[pb.BackupChunk]
    pause_s = 0.0

    def Backup(  # noqa: N802
        self, request: pb.BackupRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.BackupChunk]:
        for chunk in self.chunks:
            yield chunk
            time.sleep(self.pause_s)


@pytest.fixture
def daemon() -> MemoryDaemon:
    return Sender()  # type: ignore[abstract]  # some RPCs stay unimplemented


def test_a_copy_is_written_checked_and_counted(real: Daemon, greenctl: Run, tmp_path: Path) -> None:
    remember_many(real.directory, past_window(time.time_ns() - DAY), 12_345)
    copy = tmp_path / "a copy?.db"

    def backup(*arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        return greenctl("backup", str(copy), *arguments, code=code, GREEND_ADDRESS=real.address)

    assert backup().stdout.startswith(f"Wrote {copy}: 12 345 windows, ")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    before = copy.stat().st_ino
    assert "--force" in backup(code=2).stderr
    assert copy.stat().st_ino == before
    document = json.loads(backup("--force", "--json").stdout)
    assert document == {"path": str(copy), "bytes": copy.stat().st_size, "windows": 12_345}
    assert copy.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [copy]
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]


def test_what_is_no_file_is_not_overwritten(real: Daemon, greenctl: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    arguments = ("backup", str(pipe), "--force")
    assert "is no file" in greenctl(*arguments, code=2, GREEND_ADDRESS=real.address).stderr
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_copy_put_in_the_place_of_the_database_is_the_history_again(
    real: Daemon, greenctl: Run, tmp_path: Path
) -> None:
    remember_many(real.directory, past_window(time.time_ns() - DAY, model="a"), 100)

    def windows() -> object:
        arguments = ("windows", "--json", "--tag", "model=a", "--limit", "0")
        return json.loads(greenctl(*arguments, GREEND_ADDRESS=real.address).stdout)

    before = windows()
    copy = tmp_path / "copy.db"
    greenctl("backup", str(copy), GREEND_ADDRESS=real.address)
    greenctl("prune", "--tag", "model=a", "--yes", GREEND_ADDRESS=real.address)
    assert windows() != before
    # Killed: what is left beside the database must not be taken for the copy's.
    real.stop(signal.SIGKILL)
    for name in ("greend.db", "greend.db-wal", "greend.db-shm"):
        (real.directory / name).unlink()
    shutil.copy(copy, real.directory / "greend.db")
    real.start("--simulate", "h100x1")
    assert windows() == before


def test_standard_output_gets_the_database_but_no_terminal_does(
    real: Daemon, command: list[str], environment: dict[str, str], greenctl: Run
) -> None:
    done = subprocess.run(
        [*command, "backup", "-", "--address", real.address],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(MAGIC)
    assert done.stderr == b""
    code, shown = on_terminal([*command, "backup", "-", "--address", real.address], environment)
    assert code == 2
    assert "SQLite" not in shown
    assert "pipe" in greenctl("backup", "-", "--json", code=2).stderr


def test_what_ends_it_in_the_middle_leaves_no_file(
    real: Daemon, command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    remember_many(real.directory, past_window(time.time_ns() - DAY), 120_000)
    copy = tmp_path / "copy.db"
    copy.write_bytes(b"the one before")

    def cut(who: str) -> tuple[int, str]:
        arguments = ["backup", str(copy), "--force", "--address", real.address]
        with subprocess.Popen(
            [command[0], "-c", GREENCTL, *arguments],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            part = tmp_path / "copy.db.part"
            until(lambda: part.exists() and part.stat().st_size, "something has come")
            if who == "greenctl":
                running.send_signal(signal.SIGINT)
            else:
                real.stop(signal.SIGKILL)
            _, errors = running.communicate(timeout=30)
        assert list(tmp_path.iterdir()) == [copy]
        assert copy.read_bytes() == b"the one before"
        return running.returncode, errors

    code, errors = cut("greenctl")
    assert (code, errors.strip()) == (130, "")
    code, errors = cut("greend")
    assert code == 1
    (line,) = errors.splitlines()
    assert line.startswith("greenctl: ")


def test_a_file_that_cannot_be_written_is_told(real: Daemon, greenctl: Run) -> None:
    done = greenctl("backup", "/nowhere/copy.db", code=1, GREEND_ADDRESS=real.address)
    assert (
        done.stderr == "greenctl: cannot write /nowhere/copy.db.part: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        ([pb.BackupChunk(total_bytes=9, data=b"something")], "does not begin as a database"),
        ([pb.BackupChunk(total_bytes=99, data=MAGIC)], "16 of 99 bytes"),
        ([], "nothing came"),
        ([pb.BackupChunk(total_bytes=4112, data=MAGIC + b"?" * 4096)], "not a database"),
    ],
)
def test_a_damaged_copy_is_told_and_not_kept(
    address: str,
    daemon: Sender,
    greenctl: Run,
    tmp_path: Path,
    chunks: list[pb.BackupChunk],
    why: str,
) -> None:
    daemon.chunks = chunks
    done = greenctl("backup", str(tmp_path / "copy.db"), code=1)
    assert why in done.stderr
    assert "try again" in done.stderr
    assert not list(tmp_path.glob("copy*"))


def test_how_far_it_is_is_shown_on_a_terminal(
    address: str, daemon: Sender, command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    daemon.pause_s = 1.5
    daemon.chunks = [pb.BackupChunk(total_bytes=2_000_000, data=MAGIC.ljust(1_000_000))] * 2
    code, shown = on_terminal([*command, "backup", str(tmp_path / "copy.db")], environment)
    assert code == 1
    assert "1.0/2.0 MB" in shown
