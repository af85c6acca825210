"""Clients that die at every point of the protocol, and at every byte of it."""

import asyncio
import signal
import time
import uuid

import pytest

from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc
from tests.faults.audit import (
    check_acknowledged,
    check_conserved,
    check_nothing_open,
    check_shares,
    rows_by_id,
)
from tests.faults.dying import POINTS
from tests.faults.host import Host
from tests.faults.proxy import Misfortune, proxy, say
from tests.faults.teller import channel
from tests.integration.recording import Stream, begin, change, end, new_id, now_ns

# Rule: a session that is gone for 30 s has no open windows any more.
AWAY_S = 30.0
PREFIXES = 60


def test_a_client_that_dies_anywhere_leaves_only_what_it_told(loaded: Host) -> None:
    polite = loaded.teller(50)
    before = None
    for point in POINTS:
        dying = loaded.dying(point)
        assert dying.process.wait(30) == -signal.SIGKILL, (point, dying.log_path.read_text())
        if before is None:
            before = loaded.descriptors()
    loaded.wait_for_descriptors(before or 0)
    loaded.check_healthy()
    journals = [polite.finish(), *(client.journal for client in loaded.clients[1:])]
    check_acknowledged(loaded.daemon, journals)
    check_conserved(loaded.daemon)
    told = {window_id for journal in journals[1:] for window_id in journal.windows}
    rows = rows_by_id(loaded.daemon)
    ended = [rows[window_id] for window_id in told if window_id in rows]
    assert sum(row["state"] == "final" for row in ended) >= 3, "those whose stop was told"


def conversation(address: str) -> None:
    """A session with three windows, to its end."""
    with channel(address) as connection:
        stub = metering_pb2_grpc.MeteringServiceStub(connection)
        stream = Stream(stub, session_token=uuid.uuid4().hex)
        sequence = 0
        for _ in range(3):
            window_id = new_id()
            stream.tell(
                begin(sequence + 1, now_ns(), window_id, tags={"model": "llama-3-8b"}),
                change(sequence + 2, now_ns(), window_id, phase="decode"),
                end(sequence + 3, now_ns(), window_id),
            )
            sequence += 3
        stream.close()


def test_a_conversation_that_breaks_off_at_any_byte_harms_nobody(loaded: Host) -> None:
    """The same session, told up to a byte, and dropped there; the last one tells it whole."""
    target = loaded.daemon.directory / "greend.sock"
    with proxy(loaded.daemon.directory / "line.sock", target, Misfortune) as line:
        conversation(line.address)
    (said,) = line.recorded
    before = loaded.descriptors()
    first = {row["window_id"]: row for row in loaded.daemon.rows("select * from windows")}
    assert len(first) == 3
    step = max(len(said) // PREFIXES, 1)
    for length in range(1, len(said), step):
        asyncio.run(say(target, said[:length], listen_s=0.02))
    asyncio.run(say(target, said))
    loaded.wait_for_descriptors(before + 1)
    loaded.wait_until_settled()
    loaded.check_healthy()
    assert rows_by_id(loaded.daemon).keys() == first.keys(), "told again, and applied once"
    with loaded.daemon.stub() as stub:
        assert stub.GetStatus(pb.GetStatusRequest()).open_windows == 0
    assert loaded.daemon.stop() == 0
    check_nothing_open(loaded.daemon)
    check_shares(loaded.daemon, check_conserved(loaded.daemon))


@pytest.mark.timeout(AWAY_S + 60)
def test_windows_of_the_dead_are_closed_at_the_last_sign_of_life(loaded: Host) -> None:
    begun_ns = time.time_ns()
    dying = [loaded.dying(point) for point in POINTS]
    for client in dying:
        assert client.process.wait(30) == -signal.SIGKILL, client.log_path.read_text()
    ended_ns = time.time_ns()
    time.sleep(AWAY_S)
    loaded.wait_until_settled(timeout_s=5)
    loaded.check_healthy()
    assert loaded.daemon.stop() == 0
    check_acknowledged(loaded.daemon, [client.journal for client in dying])
    check_nothing_open(loaded.daemon)
    check_shares(loaded.daemon, check_conserved(loaded.daemon))
    rows = rows_by_id(loaded.daemon).values()
    abandoned = [row for row in rows if "abandoned" in row["flags"]]
    assert len(abandoned) >= 3
    for row in abandoned:
        assert begun_ns <= row["start_unix_ns"] <= row["stop_unix_ns"] <= ended_ns + 10**9
