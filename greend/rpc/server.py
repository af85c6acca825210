"""The two doors: one server a socket, rights by the socket's group."""

import contextlib
import grp
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from greend.errors import InvalidArgument
from greend.rpc.admin import AdminServicer
from greend.rpc.interceptor import DoorInterceptor
from greend.rpc.metering import MeteringServicer
from greend_proto.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    metering_pb2,
    metering_pb2_grpc,
    simulator_pb2,
    simulator_pb2_grpc,
)

if TYPE_CHECKING:
    from greend.rpc.simulator import SimulatorServicer

log = logging.getLogger(__name__)

LONGEST_SOCKET_PATH_BYTES = 107
SOCKET_MODE = 0o660
# A client that is frozen keeps its socket open: with a call in progress it is asked for a sign
# of life this often, and cut if it gives none for so long. Each asking wakes both once.
ASK_ALIVE_MS, ANSWER_ALIVE_MS = 20_000, 10_000
LARGEST_REQUEST_BYTES = 4 * 2**20
# Calls in progress: of a connection, beyond which its client waits; and in all, beyond which
# they are refused.
MOST_OF_CONNECTION, MOST_CALLS = 256, 4_096
OPTIONS = (
    ("grpc.max_concurrent_streams", MOST_OF_CONNECTION),
    # Or gRPC refuses calls at random where it should let them wait.
    ("grpc.http.overload_protection", 0),
    ("grpc.keepalive_time_ms", ASK_ALIVE_MS),
    ("grpc.keepalive_timeout_ms", ANSWER_ALIVE_MS),
    # The same by its newer name: gRPC 1.85 heeds this one.
    ("grpc.http2.ping_timeout_ms", ANSWER_ALIVE_MS),
    # Not where nothing is in progress: those cost nothing, and own no windows.
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_receive_message_length", LARGEST_REQUEST_BYTES),
)


def _is_news(record: logging.LogRecord) -> bool:
    """That an answer finds nobody any more is not: callers give up."""
    return not record.getMessage().startswith("ExecuteBatchError")


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)


class Door:
    """A socket and what is served on it."""

    def __init__(
        self,
        path: Path,
        group: str,
        denied: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH_BYTES:
            raise InvalidArgument(
                f"the socket {path} has a path of over {LONGEST_SOCKET_PATH_BYTES} bytes, more than"
                " a socket can have: choose a shorter --runtime-dir"
            )
        self.path = path
        self._group = group
        self._health = health.aio.HealthServicer()
        self.server = grpc.aio.server(interceptors=[DoorInterceptor(denied)], options=OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        # What reflection tells of; whoever adds a service names it here.
        self.services = [health.SERVICE_NAME, reflection.SERVICE_NAME]

    async def open(self) -> None:
        """Serves. The caller holds the lock of the runtime directory.

        The socket has its mode before anybody can reach it. Raises InvalidArgument if it
        cannot be made.
        """
        reflection.enable_server_reflection(self.services, self.server)
        mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            self.path.unlink(missing_ok=True)
            # gRPC reads it as a URI.
            self.server.add_insecure_port(f"unix:{quote(str(self.path))}")
        except (OSError, RuntimeError) as error:  # RuntimeError: gRPC's
            log.debug("gRPC's reason", exc_info=error)
            why = getattr(error, "strerror", None) or "see the log of --log-level debug"
            raise InvalidArgument(
                f"cannot make the socket {self.path} ({why}): remove what is in its place, or"
                " choose another --runtime-dir"
            ) from None
        finally:
            os.umask(mask)
        _give_to_group(self.path, self._group)
        await self.server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        log.info("serving on %s", self.path)

    async def close(self, grace_s: float) -> None:
        """Ends serving; calls in flight have `grace_s` to end."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace_s)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


# For doors without the rights of the control door.
NO_CONTROL = {
    "greend.v1.ControlService": "this socket is for measuring only: limits are set through"
    " control.sock (GREEND_CONTROL_ADDRESS), by members of the group greend-control",
    "greend.v1.AdminService": "this socket is for reading and measuring only: history is deleted"
    " through control.sock (GREEND_CONTROL_ADDRESS), by members of the group greend-control",
}


def reading_door(
    path: Path, group: str, metering: MeteringServicer, simulator: "SimulatorServicer | None"
) -> Door:
    """Reading and measuring; load and truth of simulated devices, where there are such."""
    door = Door(path, group, NO_CONTROL)
    metering_pb2_grpc.add_MeteringServiceServicer_to_server(metering, door.server)
    door.services.append(_name(metering_pb2, "MeteringService"))
    if simulator is not None:
        simulator_pb2_grpc.add_SimulatorServiceServicer_to_server(simulator, door.server)
        door.services.append(_name(simulator_pb2, "SimulatorService"))
    return door


def control_door(path: Path, group: str, admin: AdminServicer) -> Door:
    """Limits, and the deletion of history."""
    door = Door(path, group)
    # What is not built yet is abstract to the type checker and UNIMPLEMENTED to callers.
    control_pb2_grpc.add_ControlServiceServicer_to_server(
        control_pb2_grpc.ControlServiceServicer(),  # type: ignore[abstract]
        door.server,
    )
    door.services.append(_name(control_pb2, "ControlService"))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, door.server)
    door.services.append(_name(admin_pb2, "AdminService"))
    return door


def _name(module: Any, service: str) -> str:
    return str(module.DESCRIPTOR.services_by_name[service].full_name)


def _give_to_group(path: Path, group: str) -> None:
    """To the door's group where it exists; a user without root has the socket alone."""
    try:
        grp.getgrnam(group)
    except KeyError:
        log.info("there is no group %s: %s is for its owner's group", group, path)
        return
    if os.geteuid() == 0:
        shutil.chown(path, group=group)
