"""The floor of an acknowledged call: a gRPC server whose calls make one equal commit.

It speaks greend's messages over a Unix socket with the same gRPC server class, and
commits a row of the same columns, indexes and pragmas as greend's, on its event loop
through sqlite3 alone: nothing is queued, shared or measured.

Run as `python -m benchmarks.floor_server DIRECTORY`.
"""

import asyncio
import json
import sqlite3
import sys
import time
from pathlib import Path

import grpc.aio

from greend.store.engine import migrate, open_engine
from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc, types_pb2

INSERT = """insert into windows values
    (:window_id, :request_id, :tags, :devices, :start_unix_ns, :stop_unix_ns, :state, :weight,
     :parent_id, :token_digest, :prompt_tokens, :cached_tokens, :output_tokens,
     :first_token_unix_ns, :own_mj, :own_active_mj,
     :descendants_idle_mj, :descendants_active_mj, :shares, :flags)
    on conflict (window_id) do update set stop_unix_ns = :stop_unix_ns, state = :state"""


class Floor(metering_pb2_grpc.MeteringServiceServicer):
    """Commits, and answers with a window."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    async def StartWindow(
        self, request: pb.StartWindowRequest, context: object
    ) -> types_pb2.Window:
        """An insert."""
        return self._commit(request.window_id, request.request_id, dict(request.tags), "open", None)

    async def StopWindow(self, request: pb.StopWindowRequest, context: object) -> types_pb2.Window:
        """An update."""
        return self._commit(request.window_id, "", {}, "stopped", time.time_ns())

    def _commit(
        self, window_id: str, request_id: str, tags: dict[str, str], state: str, stop_ns: int | None
    ) -> types_pb2.Window:
        now_ns = time.time_ns()
        row = {
            "window_id": window_id,
            "request_id": request_id,
            "tags": json.dumps(tags),
            "devices": json.dumps(["GPU-" + "0" * 36]),
            "start_unix_ns": now_ns,
            "stop_unix_ns": stop_ns,
            "state": state,
            "weight": 1.0,
            "parent_id": "",
            "token_digest": b"",
            "own_mj": None,
            "own_active_mj": None,
            "descendants_idle_mj": 0.0,
            "descendants_active_mj": 0.0,
            "shares": "{}",
            "flags": "[]",
        }
        usage = ("prompt_tokens", "cached_tokens", "output_tokens", "first_token_unix_ns")
        # A lone statement is a transaction by itself.
        self._database.execute(INSERT, {**row, **dict.fromkeys(usage)})
        return types_pb2.Window(
            window_id=window_id, request_id=request_id, tags=tags, state=state, start_unix_ns=now_ns
        )


async def serve(directory: Path) -> None:
    """Serves until it is killed."""
    path = directory / "floor.db"
    engine = open_engine(path)
    migrate(engine)
    engine.dispose()
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=normal")
    server = grpc.aio.server()
    metering_pb2_grpc.add_MeteringServiceServicer_to_server(
        Floor(database),  # type: ignore[abstract]
        server,
    )
    server.add_insecure_port(f"unix:{directory / 'floor.sock'}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
