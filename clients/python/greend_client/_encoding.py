"""Events as messages."""

from collections.abc import Callable

import grpc

from greend_client import _environment
from greend_client._errors import GreendError
from greend_client._gpus import resolve, shown_gpus
from greend_client._node import Device
from greend_client._record import Event, Iteration, Record
from greend_client._stream import Ended
from greend_proto.v1 import metering_pb2, types_pb2


class Encoder:
    """Makes messages of events, for one connection.

    ``list_devices`` asks the daemon for its devices; ``Ended``, if it raises that,
    passes through.
    """

    def __init__(self, list_devices: Callable[[], list[Device]]) -> None:
        self._list_devices = list_devices
        self._devices: list[Device] | None = None
        self._shown: frozenset[str] = frozenset()

    def message(self, event: Event) -> metering_pb2.WindowEvent | None:
        """Return an event as it is sent; None for an iteration whose windows are all lost.

        Raises:
            GreendError: It cannot be sent as it is.
        """
        try:
            message = self._message(event)
        except (GreendError, Ended):
            raise
        except Exception as error:  # whatever the caller's values do when they are read
            raise GreendError(
                f"its arguments cannot be sent: {error!r}", grpc.StatusCode.INVALID_ARGUMENT
            ) from error
        empty = event.kind == "iteration" and not message.iteration.costs
        return None if empty else message

    def _message(self, event: Event) -> metering_pb2.WindowEvent:
        message = metering_pb2.WindowEvent(sequence=event.sequence, monotonic_ns=event.at_ns)
        if event.record is not None:
            message.window_id = event.record.window_id
        value = event.value
        if event.kind == "start":
            assert event.record is not None
            message.start.CopyFrom(self._start(event.record))
        elif event.kind == "stop":
            message.stop.SetInParent()
        elif event.kind == "first_token":
            message.first_token.SetInParent()
        elif event.kind == "usage":
            assert isinstance(value, dict)
            message.usage.CopyFrom(types_pb2.Usage(**value))
        elif event.kind == "phase":
            message.phase = str(value)
        elif event.kind == "weight":
            message.weight = value  # type: ignore[assignment]  # the caller's, checked here
        else:
            assert isinstance(value, Iteration)
            message.iteration.CopyFrom(_iteration(value))
        return message

    def _start(self, record: Record) -> metering_pb2.WindowEvent.Start:
        return metering_pb2.WindowEvent.Start(
            request_id="" if record.request_id is None else str(record.request_id),
            devices=self._uuids(record),
            tags={key: str(value) for key, value in record.tags.items()},
            weight=record.weight,  # type: ignore[arg-type]
            parent_id="" if record.parent is None else record.parent,  # type: ignore[arg-type]
            iteration_driven=record.iteration_driven,
        )

    def _uuids(self, record: Record) -> tuple[str, ...]:
        environment = _environment.as_text(record.environment)
        if self._devices is not None:
            try:
                return resolve(record.gpus, self._devices, environment, self._shown)
            except GreendError:
                pass  # the daemon may know more devices than before
        self._devices = self._list_devices()
        self._shown = shown_gpus()
        return resolve(record.gpus, self._devices, environment, self._shown)


def _iteration(iteration: Iteration) -> metering_pb2.WindowEvent.Iteration:
    costs: dict[str, float] = {}
    for member, cost in iteration.costs:
        # Of a window that the daemon never had it would refuse all the others, too.
        if not isinstance(member, Record):
            costs[member] = cost  # type: ignore[assignment]
        elif member.error is None:
            costs[member.window_id] = cost  # type: ignore[assignment]
    return metering_pb2.WindowEvent.Iteration(stop_monotonic_ns=iteration.stop_ns, costs=costs)
