"""A copy of the database of a daemon that measures on, and what can disturb it."""

import contextlib
import json
import os
import shutil
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from greend.store.engine import migrate, open_engine
from greend_client import Client
from greend_proto.v1 import admin_pb2, metering_pb2_grpc, types_pb2
from greend_proto.v1 import metering_pb2 as pb
from tests.client.memory_daemon import until
from tests.daemon import Daemon, daemon
from tests.integration.conftest import Metered
from tests.integration.history import DIGEST, past_window, remember, remember_many
from tests.integration.test_windows import refused

DAY = 86_400 * 1_000_000_000
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def fetch(stub: metering_pb2_grpc.MeteringServiceStub) -> bytes:
    chunks = list(stub.Backup(pb.BackupRequest()))
    data = b"".join(chunk.data for chunk in chunks)
    assert chunks[0].total_bytes == len(data)
    assert not any(chunk.HasField("total_bytes") for chunk in chunks[1:])
    assert max(len(chunk.data) for chunk in chunks) <= 256 * 1024
    return data


def put_in_place(running: Daemon, data: bytes) -> None:
    """What an operator does with a copy while the daemon is stopped."""
    database = running.directory / "greend.db"
    for name in ("greend.db", "greend.db-wal", "greend.db-shm"):
        database.with_name(name).unlink(missing_ok=True)
    database.write_bytes(data)


def backup_runs(stub: metering_pb2_grpc.MeteringServiceStub) -> bool:
    try:
        stub.Backup(pb.BackupRequest()).initial_metadata()
    except grpc.RpcError:
        return True
    return False


def copies(running: Daemon) -> list[Path]:
    return list(running.directory.glob(".greend-backup-*"))


def nameless_copies(running: Daemon) -> int:
    """Files that a daemon has open and that have no name any more."""
    assert running.process is not None
    count = 0
    for descriptor in Path(f"/proc/{running.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += ".greend-backup-" in os.readlink(descriptor)
    return count


@pytest.fixture
def large() -> Iterator[Daemon]:
    """A daemon with 60 MB of history: copying takes a while."""
    with daemon("--simulate", "h100x1", devices=1) as running:
        remember_many(running.directory, past_window(time.time_ns() - DAY), 120_000)
        yield running


def test_a_copy_made_under_load_is_a_moment_of_the_history(metered: Metered) -> None:
    remember_many(metered.daemon.directory, past_window(time.time_ns() - DAY), 20_000)
    uuids = [gpu.uuid for gpu in metered.double.gpus]
    ended = threading.Event()

    def work(client: Client) -> None:
        while not ended.is_set():
            with client.window("parent", gpus=[0]), client.window("child", gpus=[0]):
                time.sleep(0.01)

    with Client(metered.daemon.address) as client:
        workers = [threading.Thread(target=work, args=(client,)) for _ in range(4)]
        for worker in workers:
            worker.start()
        try:
            time.sleep(2)
            acknowledged = [metered.stub.StartWindow(pb.StartWindowRequest()) for _ in range(5)]
            data = fetch(metered.stub)
        finally:
            ended.set()
            for worker in workers:
                worker.join()
    live = {row["window_id"]: row for row in metered.daemon.rows("select * from windows")}
    assert metered.daemon.stop() == 0

    with daemon("--simulate", "h100x1") as restored:
        restored.stop()
        put_in_place(restored, data)
        copied = {row["window_id"]: row for row in restored.rows("select * from windows")}
        minutes = restored.rows("select * from minutes")
        restored.start("--simulate", "h100x1")
        with restored.stub() as stub:
            (ledger,) = stub.GetLedger(pb.GetLedgerRequest(devices=[uuids[0]])).rows
            left = stub.GetWindow(pb.GetWindowRequest(window_id=acknowledged[0].window_id))

    assert {window.window_id for window in acknowledged} <= copied.keys()
    final = {key: row for key, row in copied.items() if row["state"] == "final"}
    assert 20_000 < len(final) < len(copied) < len(live)
    for key, row in final.items():
        assert row == live[key] | {"token_digest": b""}

    # Rule 1, in what was copied.
    for row in minutes:
        booked = row["windows_mj"] + row["idle_mj"] + row["unattributed_mj"] + row["gap_mj"]
        assert booked == pytest.approx(row["measured_mj"], rel=1e-9)
    for uuid in uuids:
        own_mj = sum(
            share[0] + share[1]
            for row in final.values()
            for device, share in json.loads(row["shares"]).items()
            if device == uuid
        )
        booked_mj = sum(row["windows_mj"] for row in minutes if row["device"] == uuid)
        # What those have got that still run is booked, too.
        assert 0 <= own_mj <= booked_mj * (1 + 1e-9)

    measured_mj = sum(row["measured_mj"] for row in minutes if row["device"] == uuids[0])
    assert ledger.measured_j == pytest.approx(measured_mj / 1e3)
    assert {"abandoned", "partial"} <= set(left.flags), "it ran when the copy was made"


def test_secrets_and_what_was_deleted_are_not_in_the_copy(metered: Metered) -> None:
    remember_many(metered.daemon.directory, past_window(time.time_ns() - DAY), 1000)
    opened = metered.stub.StartWindow(pb.StartWindowRequest(session_token="a secret"))
    (row,) = metered.daemon.rows(
        "select token_digest from windows where window_id = ?", opened.window_id
    )
    deleted = past_window(1, note="to be deleted")
    remember(metered.daemon.directory, [deleted])
    with metered.daemon.admin_stub() as stub:
        chosen = types_pb2.WindowFilter(until_unix_ns=2)
        list(stub.PruneWindows(admin_pb2.PruneWindowsRequest(filter=chosen)))
    data = fetch(metered.stub)
    assert opened.window_id.encode() in data
    for secret in (row["token_digest"], DIGEST, b"to be deleted"):
        assert secret not in data


def test_a_second_backup_is_refused_while_one_runs(large: Daemon) -> None:
    with large.stub() as stub:
        first = stub.Backup(pb.BackupRequest())
        next(first)  # the rest waits: the daemon sends no more than is taken
        refused(lambda: list(stub.Backup(pb.BackupRequest())), EXHAUSTED, "another backup")
        rest = sum(len(chunk.data) for chunk in first)
        assert rest > 50e6
        assert len(fetch(stub)) > 50e6


def test_a_backup_that_is_cancelled_leaves_nothing(large: Daemon) -> None:
    with large.stub() as stub:
        copying = stub.Backup(pb.BackupRequest())
        until(lambda: copies(large), "a copy is made")
        (directory,) = copies(large)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        copying.cancel()
        until(lambda: not copies(large), "it is removed", 1)

        until(lambda: not backup_runs(stub), "the daemon has noticed")
        sending = stub.Backup(pb.BackupRequest())
        next(sending)
        assert copies(large) == [], "it has no name any more"
        assert nameless_copies(large) == 1
        sending.cancel()
        until(lambda: not nameless_copies(large), "it is closed", 1)
        assert len(fetch(stub)) > 50e6
    assert "Traceback" not in large.log.read_text()


def test_a_backup_does_not_keep_the_daemon_from_ending(large: Daemon) -> None:
    with large.stub() as stub:
        copying = stub.Backup(pb.BackupRequest())
        until(lambda: copies(large), "a copy is made")
        begun = time.monotonic()
        assert large.stop() == 0
        assert time.monotonic() - begun < 2
        with pytest.raises(grpc.RpcError):
            list(copying)
    assert copies(large) == []


def test_what_a_killed_daemon_left_of_a_copy_is_removed_at_the_next_start(large: Daemon) -> None:
    with large.stub() as stub:
        copying = stub.Backup(pb.BackupRequest())
        until(lambda: copies(large), "a copy is made")
        large.stop(signal.SIGKILL)
        with pytest.raises(grpc.RpcError):
            list(copying)
    assert copies(large) != []
    (large.directory / "greend-backup-of-mine.db").write_bytes(b"mine")
    large.start("--simulate", "h100x1")
    assert copies(large) == []
    assert (large.directory / "greend-backup-of-mine.db").read_bytes() == b"mine"
    (row,) = large.rows("select count(*) as n from windows")
    assert row["n"] == 120_000


class SmallDisk:
    """A daemon whose state directory is a file system of its own, in memory."""

    def __init__(self, running: Daemon, state: Path) -> None:
        assert running.process is not None
        self.daemon = running
        self.pid = running.process.pid
        # As the daemon sees it: nobody else does.
        self.directory = Path(f"/proc/{self.pid}/root{state}")

    def fill(self, leave_bytes: int) -> None:
        """Writes until so much is left."""
        free_bytes = shutil.disk_usage(self.directory).free
        with (self.directory / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, free_bytes - leave_bytes)

    def clear(self) -> None:
        """Makes room again."""
        (self.directory / "filler").unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    # Without root, a user namespace gives the right to mount.
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-r", "--mount"]
    mount = (
        'cd "$0" && mount -t tmpfs -o size=100m,mode=0700 greend state &&'
        ' cp greend.db state && exec "$@"'
    )
    engine = open_engine(tmp_path / "greend.db")
    migrate(engine)
    engine.dispose()
    remember_many(tmp_path, past_window(time.time_ns() - DAY), 60_000)
    state = tmp_path / "state"
    state.mkdir()
    with daemon(
        *("--simulate", "h100x1", "--state-dir", str(state)),
        prefix=[*unshare, "sh", "-c", mount, str(tmp_path)],
    ) as running:
        yield SmallDisk(running, state)


def still_serves(stub: metering_pb2_grpc.MeteringServiceStub) -> None:
    opened = stub.StartWindow(pb.StartWindowRequest())
    window = stub.StopWindow(pb.StopWindowRequest(window_id=opened.window_id, wait_s=10))
    assert window.state == "final"
    assert stub.GetStatus(pb.GetStatusRequest()).state == "serving"


def test_without_room_for_a_copy_it_is_refused_and_measuring_goes_on(
    small_disk: SmallDisk,
) -> None:
    small_disk.fill(leave_bytes=20 * 2**20)
    with small_disk.daemon.stub() as stub:
        refused(
            lambda: list(stub.Backup(pb.BackupRequest())), EXHAUSTED, "MB are free", "free space"
        )
        still_serves(stub)
        small_disk.clear()
        assert len(fetch(stub)) > 25e6


def test_a_disk_that_becomes_full_during_the_copy_ends_it_alone(small_disk: SmallDisk) -> None:
    with small_disk.daemon.stub() as stub:
        copying = stub.Backup(pb.BackupRequest())
        until(lambda: [*small_disk.directory.glob(".greend-backup-*/*")], "a copy is made")
        os.kill(small_disk.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, small_disk.pid, os.WSTOPPED)
        small_disk.fill(leave_bytes=2**16)
        os.kill(small_disk.pid, signal.SIGCONT)
        refused(lambda: list(copying), EXHAUSTED, "became full", "free space")
        assert not list(small_disk.directory.glob(".greend-backup-*"))
        small_disk.clear()
        still_serves(stub)
        assert len(fetch(stub)) > 25e6
