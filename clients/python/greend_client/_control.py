"""The control door: what only its group may do."""

from greend_client._calls import Calls
from greend_proto.v1 import admin_pb2_grpc


class ControlDoor(Calls):
    """The control door's calls, made as those of the reading door: through ``call``."""

    def __init__(self, address: str) -> None:
        super().__init__(address, control=True)
        self.admin = admin_pb2_grpc.AdminServiceStub(self._channel)

    def close(self) -> None:
        """Disconnect. May be repeated."""
        self._closed = True
        self._channel.close()
