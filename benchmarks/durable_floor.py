"""The floor of a durable window: a stream handler that measures nothing.

It speaks greend's messages over a Unix socket with the same gRPC server class. It decodes
every event and tells every window that stopped at once; with `store` it also writes each
window twice, a batch of events a transaction, into a database of greend's schema.

Run as `python -m benchmarks.durable_floor SOCKET [DATABASE]`.
"""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
from sqlalchemy import Table

from greend.store.engine import migrate, open_engine
from greend.store.schema import WindowRow
from greend_proto.v1 import metering_pb2 as pb
from greend_proto.v1 import metering_pb2_grpc, types_pb2

DEVICE = "GPU-" + "0" * 36
SHARES = json.dumps({DEVICE: [1.5, 20.25, 95.125, True, 1.5e11, 1e8, "energy_counter", []]})
FIGURES = {
    "own_mj": 21.75,
    "own_active_mj": 20.25,
    "own_correlated_mj": 0.25,
    "own_independent_mj": 2.125,
    "shares": SHARES,
    "flags": '["short"]',
}

assert isinstance(WindowRow.__table__, Table)
COLUMNS = [column.name for column in WindowRow.__table__.c]
INSERT = (
    f"insert into windows ({', '.join(COLUMNS)}) values ({', '.join(f':{it}' for it in COLUMNS)})"
)
CHANGED = ["stop_unix_ns", "state", "prompt_tokens", "output_tokens", *FIGURES]
UPDATE = (
    f"update windows set {', '.join(f'{it} = :{it}' for it in CHANGED)}"
    " where window_id = :window_id"
)


class Floor(metering_pb2_grpc.MeteringServiceServicer):
    """Answers, and commits if there is a database."""

    def __init__(self, database: sqlite3.Connection | None) -> None:
        self._database = database

    async def RecordWindows(
        self, requests: AsyncIterator[pb.RecordWindowsRequest], context: object
    ) -> AsyncIterator[pb.RecordWindowsResponse]:
        """See the module."""
        rows: dict[str, dict[str, Any]] = {}
        async for request in requests:
            started: list[dict[str, Any]] = []
            stopped: list[dict[str, Any]] = []
            sequence = 0
            for event in request.batch.events:
                sequence = event.sequence
                match event.WhichOneof("event"):
                    case "start":
                        row = rows[event.window_id] = _row(event)
                        started.append(row)
                    case "usage":
                        row = rows[event.window_id]
                        row["prompt_tokens"] = event.usage.prompt_tokens
                        row["output_tokens"] = event.usage.output_tokens
                    case "stop":
                        row = rows.pop(event.window_id)
                        stopped.append(row | FIGURES | {"stop_unix_ns": event.monotonic_ns})
            if self._database is not None and request.HasField("batch"):
                self._database.execute("begin")
                self._database.executemany(INSERT, started)
                self._database.executemany(UPDATE, stopped)
                self._database.execute("commit")
            yield pb.RecordWindowsResponse(
                acknowledged_sequence=sequence, windows=[_window(row) for row in stopped]
            )


def _row(event: pb.WindowEvent) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {
        "window_id": event.window_id,
        "request_id": event.start.request_id,
        "tags": json.dumps(dict(event.start.tags)),
        "devices": json.dumps([DEVICE]),
        "start_unix_ns": event.monotonic_ns,
        "state": "open",
        "weight": 1.0,
        "parent_id": "",
        "cards": "[]",
        "token_digest": b"0" * 32,
        "descendants_idle_mj": 0.0,
        "descendants_active_mj": 0.0,
        "descendants_correlated_mj": 0.0,
        "descendants_independent_mj": 0.0,
        "iteration_driven": False,
        "phases": "[]",
        "shares": "{}",
        "flags": "[]",
    }


def _window(row: dict[str, Any]) -> types_pb2.Window:
    return types_pb2.Window(
        window_id=row["window_id"],
        request_id=row["request_id"],
        tags=json.loads(row["tags"]),
        devices=[DEVICE],
        state="final",
        weight=1.0,
        start_unix_ns=row["start_unix_ns"],
        stop_unix_ns=row["stop_unix_ns"],
        duration_s=0.1,
        energy_j=0.02175,
        idle_energy_j=0.0015,
        active_energy_j=0.02025,
        device_energy_j=0.095125,
        avg_power_w=95.0,
        source="energy_counter",
        uncertainty_j=0.0023,
        flags=["short"],
        usage=types_pb2.Usage(
            prompt_tokens=row["prompt_tokens"], output_tokens=row["output_tokens"]
        ),
        device_energies=[
            types_pb2.DeviceEnergy(
                device=DEVICE,
                own_energy_j=0.02175,
                own_idle_energy_j=0.0015,
                own_active_energy_j=0.02025,
                device_energy_j=0.095125,
            )
        ],
    )


async def serve(socket: str, database: str | None) -> None:
    """Serves until it is killed."""
    connection = None
    if database is not None:
        engine = open_engine(Path(database))
        migrate(engine)
        engine.dispose()
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=normal")
    server = grpc.aio.server()
    metering_pb2_grpc.add_MeteringServiceServicer_to_server(
        Floor(connection),  # type: ignore[abstract]
        server,
    )
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
