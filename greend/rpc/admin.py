"""AdminService: convert, call, convert."""

from collections.abc import AsyncIterator

from greend.metering.pruning import Pruned, Pruner
from greend.metering.query import Query
from greend.rpc import convert
from greend.rpc.interceptor import Context
from greend_proto.v1 import admin_pb2 as pb
from greend_proto.v1 import admin_pb2_grpc


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """What only operators may do; for control doors."""

    def __init__(self, pruner: Pruner, query: Query) -> None:
        self._pruner = pruner
        self._query = query

    async def PruneWindows(  # noqa: N802
        self, request: pb.PruneWindowsRequest, context: Context
    ) -> AsyncIterator[pb.PruneWindowsResponse]:
        """Deletes windows."""
        query = convert.filter_from_message(request.filter)
        await self._query.check_filter(query)
        async for pruned in self._pruner.prune(
            query, minutes=request.minutes, dry_run=request.dry_run
        ):
            yield _to_message(pruned)


def _to_message(pruned: Pruned) -> pb.PruneWindowsResponse:
    return pb.PruneWindowsResponse(
        matching_windows=pruned.matching.count,
        deleted_windows=pruned.windows,
        matching_minutes=pruned.matching_minutes,
        deleted_minutes=pruned.minutes,
        first_start_unix_ns=pruned.matching.first_start_unix_ns,
        last_start_unix_ns=pruned.matching.last_start_unix_ns,
        until_unix_ns=pruned.until_unix_ns,
    )
