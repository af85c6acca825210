"""The thread that connects to the daemon, and sends what is in the outbox."""

import logging
import threading
from collections.abc import Iterator

import grpc

from greend_client._channel import open_channel
from greend_client._encoding import Encoder
from greend_client._errors import GreendError
from greend_client._outbox import Outbox
from greend_client._record import Event
from greend_client._stream import Ended, Stream
from greend_proto.v1 import metering_pb2

logger = logging.getLogger("greend_client")

_BATCH = 200  # events a message
ANSWER_S = 10.0
"""A daemon that takes longer does not answer."""

_RETRY_S = (0.1, 2.0)  # first and longest wait between attempts

Request = metering_pb2.RecordWindowsRequest


class Delivery:
    """Sends events in the order in which they happened, as the session of ``opening``.

    What is not acknowledged is sent again on the next connection. It connects when there
    is something to send, or at once where it ``stays``. Once it was connected it stays, as
    the daemon ends the windows of a session that is away for long.
    """

    def __init__(
        self, address: str, opening: metering_pb2.OpenSession, outbox: Outbox, *, stays: bool
    ) -> None:
        self._address = address
        self._opening = opening
        self._outbox = outbox
        self._stays = stays
        self._channel: grpc.Channel | None = None
        self.parked = threading.Event()  # without a call, and not about to make one
        self._thread = threading.Thread(target=self._run, name="greend-client-sender", daemon=True)

    def start(self) -> None:
        """Start the thread; raises RuntimeError where there is none to be had."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        retry_s = _RETRY_S[0]
        while (stream := self._next_stream()) is not None:
            try:
                self._talk(stream)
            except GreendError as reason:
                if stream.established:
                    retry_s = _RETRY_S[0]
                self._failed(reason, retry_s)
                retry_s = min(retry_s * 2, _RETRY_S[1])
            except Exception:  # ours; it must not end the thread
                logger.exception("greend: sending windows failed")
                self._failed(GreendError("windows could not be sent"), _RETRY_S[1])

    def _next_stream(self) -> Stream | None:
        """Wait until there is something to connect for; None at the end."""
        outbox = self._outbox
        while True:
            self.parked.set()
            outbox.wait_for(
                lambda: outbox.ended or (not outbox.paused and (outbox.events or self._stays))
            )
            with outbox.work:
                if outbox.ended and not outbox.events:
                    break
                if outbox.paused and not outbox.ended:
                    continue
                self.parked.clear()
                outbox.attempt += 1
                self._channel = self._channel or open_channel(self._address)
                outbox.stream = stream = Stream(self._channel, self._address, outbox.attempt)
                return stream
        self._disconnect()
        return None

    def _talk(self, stream: Stream) -> None:
        outbox = self._outbox
        try:
            for response in stream.talk(self._requests(stream)):
                with outbox.work:
                    outbox.receive(stream, response)
        finally:
            self._stays = self._stays or stream.established
            with outbox.work:
                outbox.cut(stream)
                paused = outbox.paused and not outbox.ended
            if not paused:
                self._disconnect()
        with outbox.work:
            if not outbox.paused and (outbox.events or not outbox.ended):
                raise GreendError("the daemon went away", grpc.StatusCode.UNAVAILABLE)

    def _disconnect(self) -> None:
        """Close the channel; not for a fork.

        Of one that was just closed or opened gRPC may keep something that the child cannot be
        rid of, and before some version ends it: forks in a row are to find it connected.
        """
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _failed(self, reason: GreendError, retry_s: float) -> None:
        """Tell who waited for a connection that it failed, and wait before the next one."""
        outbox = self._outbox
        with outbox.work:
            if outbox.paused:
                return
            outbox.waiting.tell_failed(outbox.attempt, reason)
            if outbox.ended:
                outbox.lose_all(reason)
                return
            if not outbox.events and not self._stays:
                return
            outbox.warn("no daemon", f"{reason}; until then windows have no results")
        outbox.wait_for(lambda: outbox.hurry or outbox.ended or outbox.paused, retry_s)
        with outbox.work:
            outbox.hurry = False

    # On gRPC's thread, which asks for what is to be sent.

    def _requests(self, stream: Stream) -> Iterator[Request]:
        outbox = self._outbox
        yield self._open()
        encoder = Encoder(stream.list_devices)
        while True:
            # Of a frozen daemon, or a gRPC that hangs, nothing comes.
            outbox.wait_for(
                lambda: self._may_send(stream), None if stream.established else ANSWER_S
            )
            with outbox.work:
                if stream.ended or outbox.paused:
                    return
                if not stream.established:
                    stream.cut_unanswered()
                    return
                events = outbox.events.after(stream.position, _BATCH)
                if not events and not outbox.ended:
                    continue  # it has been established meanwhile, and that was all
                if not events:
                    break
                stream.position = events[-1].sequence
                outbox.events.sent(stream.position)
            try:
                messages = list(self._messages(encoder, events))
            except Ended:
                return
            if messages:
                stream.sends(messages[-1].sequence)
                yield Request(
                    batch=metering_pb2.EventBatch(events=messages), lost_windows=outbox.lost
                )
            if len(events) < _BATCH and not outbox.ended:
                outbox.linger()
        yield Request(close=metering_pb2.CloseSession(), lost_windows=outbox.lost)

    def _open(self) -> Request:
        outbox = self._outbox
        with outbox.work:
            outbox.collect()
            self._opening.last_sequence = outbox.events.last
            return Request(open=self._opening, lost_windows=outbox.lost)

    def _may_send(self, stream: Stream) -> bool:
        outbox = self._outbox
        if stream.ended or outbox.paused:
            return True
        if stream.held_up:
            return False
        return bool(outbox.ended or outbox.events.after(stream.position, 1))

    def _messages(
        self, encoder: Encoder, events: list[Event]
    ) -> Iterator[metering_pb2.WindowEvent]:
        """Give events as messages, without those that cannot be sent; raises Ended."""
        for event in events:
            lost = event.record is not None and event.record.error is not None
            try:
                message = None if lost else encoder.message(event)
            except GreendError as error:
                message = None
                with self._outbox.work:
                    self._outbox.refused(event, error)
            if message is not None:
                yield message
                continue
            with self._outbox.work:
                self._outbox.events.discard(event)
