"""The floor of a daemon that does nothing: two gRPC servers on Unix sockets, nobody calling.

Run as `python -m benchmarks.idle_server DIRECTORY`.
"""

import asyncio
import sys
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc


async def serve(directory: Path) -> None:
    """Serves until it is killed."""
    servers = [grpc.aio.server(), grpc.aio.server()]
    for name, server in zip(("one", "two"), servers, strict=True):
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
        server.add_insecure_port(f"unix:{directory / name}.sock")
        await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
