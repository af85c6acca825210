"""Every call with any message, or with bytes that are none: only what is documented comes back."""

import base64
import json
import os
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import hypothesis.strategies as st
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings

from greend_proto.v1 import admin_pb2, control_pb2, metering_pb2
from greend_proto.v1 import metering_pb2 as pb
from tests.daemon import Daemon
from tests.faults.host import Host, host
from tests.faults.messages import Pool, messages
from tests.nvml_double import NvmlDouble

# scripts/soak asks for more.
EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", "0"))
ANSWER_S, LINGER_S = 10.0, 0.1
NOT_BUILT = grpc.StatusCode.UNIMPLEMENTED
DOCUMENTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAVAILABLE,
}
METHODS = [
    method
    for file in (metering_pb2, control_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
any_of = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Host]:
    """One daemon for all calls, with windows of each state."""
    with (
        tempfile.TemporaryDirectory(prefix="greend-", dir="/tmp") as path,
        NvmlDouble(Path(path), ["a100", "a100"]) as double,
        host(Daemon(Path(path), os.environ | double.environment), double) as running,
    ):
        with running.daemon.stub() as stub:
            for number, token in enumerate(("", "secret", "")):
                start = pb.StartWindowRequest(window_id=known_id(number), session_token=token)
                stub.StartWindow(start)
            stop = pb.StopWindowRequest(window_id=known_id(2), wait_s=10)
            assert stub.StopWindow(stop).state == "final"
        yield running


def known_id(number: int) -> str:
    return str(uuid.UUID(int=0x0197_0000_0000_7000_8000_0000_0000_0000 + number))


def page_token(*key: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def pool(running: Host) -> Pool:
    """What is known there, so that calls get further than their first check."""
    ids = st.sampled_from([known_id(number) for number in range(4)])
    instants = st.integers(-5, 5).map(lambda s: time.time_ns() + s * 10**9)
    texts = st.text(max_size=10)
    return {
        "window_id": ids,
        "parent_id": ids,
        "devices": st.sampled_from([*running.uuids, "GPU-none"]),
        "session_token": st.sampled_from(["", "secret"]),
        "states": st.sampled_from(["open", "stopped", "final"]),
        "wait_s": st.sampled_from([0.0, 0.01]),
        "page_size": st.integers(0, 1000),
        "page_token": st.builds(
            page_token, st.integers(), st.text() | st.integers() | st.just("\ud800")
        ),
        "by": st.sampled_from(["model", "tenant"]),
        "bucket_s": st.sampled_from([1.0, 60.0]),
        "idle": st.sampled_from(["", "include", "exclude"]),
        "tags": st.dictionaries(st.sampled_from(["model", "tenant"]), texts, max_size=2),
        **dict.fromkeys(("start_unix_ns", "stop_unix_ns"), instants),
        **dict.fromkeys(("since_unix_ns", "until_unix_ns"), instants),
        "weight": st.floats(1e-3, 1e6),
    }


def call(
    channel: grpc.Channel, method: MethodDescriptor, data: list[bytes]
) -> tuple[grpc.StatusCode, str]:
    """Calls with these bytes as messages; returns what came of it."""
    name = f"/{method.containing_service.full_name}/{method.name}"
    timeout_s = LINGER_S if lingers(method) else ANSWER_S
    answers: Any
    if method.client_streaming:
        answers = channel.stream_stream(name, bytes, bytes)(iter(data), timeout=timeout_s)
    else:
        answers = channel.unary_stream(name, bytes, bytes)(data[0], timeout=timeout_s)
    with suppress(grpc.RpcError):
        deque(answers, maxlen=0)
    return answers.code(), answers.details()


def lingers(method: MethodDescriptor) -> bool:
    """Whether its answer may take as long as its caller likes."""
    return method.name.startswith("Watch") or "wait_s" in method.input_type.fields_by_name


def check_call(running: Host, method: MethodDescriptor, data: list[bytes]) -> None:
    """Through the reading door and the control door alike."""
    allowed = set(DOCUMENTED)
    if lingers(method):
        allowed.add(grpc.StatusCode.DEADLINE_EXCEEDED)
    if method.containing_service.name == "ControlService":
        allowed.add(NOT_BUILT)
    for control in (False, True):
        with running.daemon.channel(control=control) as channel:
            code, words = call(channel, method, data)
        # Each door has its own services.
        there = control == (method.containing_service.name != "MeteringService")
        assert code in (allowed if there else {*allowed, NOT_BUILT}), (code, words)


def by_name(method: MethodDescriptor) -> str:
    return str(method.name)


@pytest.mark.timeout(120 + EXAMPLES)
@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_any_message_is_answered_as_documented(fuzzed: Host, method: MethodDescriptor) -> None:
    @any_of
    @given(st.lists(messages(method.input_type, pool(fuzzed)), min_size=1, max_size=3))
    def check(said: list[Message]) -> None:
        check_call(fuzzed, method, [message.SerializeToString() for message in said])

    run(fuzzed, check)


@pytest.mark.timeout(120 + EXAMPLES)
@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_any_bytes_are_answered_as_documented(fuzzed: Host, method: MethodDescriptor) -> None:
    @any_of
    @given(st.lists(st.binary(max_size=60), min_size=1, max_size=2))
    def check(said: list[bytes]) -> None:
        check_call(fuzzed, method, said)

    run(fuzzed, check)


def run(running: Host, check: Callable[[], None]) -> None:
    check()
    running.check_healthy()
