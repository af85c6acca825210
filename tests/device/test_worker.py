"""Rounds of calls: paces, hung devices, lost devices. Threads and clock are real."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from greend.device.protocol import DeviceLostError
from greend.device.worker import HANGS_NS, Worker
from greend.model import NS_PER_MS, NS_PER_S, Capabilities, DeviceInfo, Limits, Sample

ABLE = Capabilities(True, True, True, True, True)
FAST_NS, SLOW_NS = 20 * NS_PER_MS, 30 * NS_PER_S


@dataclass
class Scripted:
    """A device that does what it is told."""

    uuid: str
    free: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.info = DeviceInfo(self.uuid, 0, "scripted", ABLE, Limits())
        self.entered = threading.Event()
        self.free.set()

    def read(self) -> Sample:
        self.entered.set()
        assert self.free.wait(20)
        if self.error is not None:
            raise self.error
        return Sample(self.uuid, time.monotonic_ns())

    def renew(self) -> DeviceInfo:
        return self.info

    def context_alive(self) -> bool | None:
        return None


class Heard:
    """What the worker told."""

    def __init__(self) -> None:
        self.rounds: list[list[Sample]] = []
        self.losses: list[tuple[str, str]] = []

    def counts(self) -> Counter[str]:
        return Counter(sample.device for round_ in list(self.rounds) for sample in round_)

    def lost(self, uuid: str, reason: str) -> None:
        self.losses.append((uuid, reason))


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.002)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def worker(heard: Heard) -> Iterator[Worker[Sample]]:
    worker: Worker[Sample] = Worker(
        "test", lambda device: device.read(), heard.rounds.append, heard.lost
    )
    yield worker
    worker.stop(10)


def test_devices_of_one_pace_are_called_in_one_round(worker: Worker[Sample], heard: Heard) -> None:
    for name in "abcd":
        worker.add(Scripted(name), FAST_NS)
    eventually(lambda: len(heard.rounds) > 20)
    assert [len(round_) for round_ in heard.rounds[-5:]] == [4] * 5


def test_each_device_has_its_own_pace(worker: Worker[Sample], heard: Heard) -> None:
    worker.add(Scripted("slow"), SLOW_NS)
    worker.add(Scripted("fast"), FAST_NS)
    eventually(lambda: heard.counts()["fast"] > 20)
    assert heard.counts()["slow"] == 1


def test_the_mean_interval_is_kept_though_it_varies(worker: Worker[Sample], heard: Heard) -> None:
    worker.add(Scripted("a"), FAST_NS)
    eventually(lambda: len(heard.rounds) >= 60)
    instants = [round_[0].monotonic_ns for round_ in heard.rounds]
    gaps = [after - before for before, after in itertools.pairwise(instants)]
    # On a busy machine calls come late, never early.
    assert sum(gaps) / len(gaps) > 0.95 * FAST_NS
    assert max(gaps) > 1.1 * FAST_NS
    assert min(gaps) < 0.9 * FAST_NS


def test_a_shorter_interval_calls_at_once(worker: Worker[Sample], heard: Heard) -> None:
    worker.add(Scripted("a"), SLOW_NS)
    eventually(lambda: heard.counts()["a"] == 1)
    worker.set_interval("a", SLOW_NS // 2)
    eventually(lambda: heard.counts()["a"] == 2)


def test_a_hung_device_delays_no_other_and_comes_back(worker: Worker[Sample], heard: Heard) -> None:
    before, stuck, after = Scripted("before"), Scripted("stuck"), Scripted("after")
    for device in (before, stuck, after):
        worker.add(device, FAST_NS)
    eventually(lambda: heard.counts()["after"] > 3)
    stuck.entered.clear()
    stuck.free.clear()
    assert stuck.entered.wait(10)
    worker.relieve()  # too early: it may be just slow
    assert not heard.losses
    time.sleep(HANGS_NS / 1e9)
    count = heard.counts()
    worker.relieve()
    eventually(lambda: heard.counts()["after"] > count["after"] + 3)
    eventually(lambda: heard.counts()["before"] > count["before"] + 3)
    assert heard.counts()["stuck"] == count["stuck"]
    stuck.free.set()
    eventually(lambda: heard.counts()["stuck"] > count["stuck"] + 3)
    instants = [s.monotonic_ns for round_ in heard.rounds for s in round_ if s.device == "stuck"]
    assert instants == sorted(instants)
    assert worker.stop(10)


def test_what_was_read_before_the_hang_is_told(worker: Worker[Sample], heard: Heard) -> None:
    first, stuck = Scripted("first"), Scripted("stuck")
    stuck.free.clear()
    worker.add(stuck, SLOW_NS)
    assert stuck.entered.wait(10)
    worker.add(first, SLOW_NS)
    assert heard.counts() == Counter()
    time.sleep(HANGS_NS / 1e9)
    worker.relieve()
    eventually(lambda: heard.counts() == Counter(first=1))
    stuck.free.set()
    eventually(lambda: heard.counts()["stuck"] >= 1)


def test_with_all_devices_hung_nothing_grows_and_all_come_back(
    worker: Worker[Sample], heard: Heard
) -> None:
    devices = [Scripted(name) for name in "abc"]
    for device in devices:
        device.free.clear()
        worker.add(device, FAST_NS)
    threads = threading.active_count()
    for _ in range(8):
        time.sleep(HANGS_NS / 1e9)
        worker.relieve()
    assert threading.active_count() <= threads + len(devices)
    assert not worker.stop(0)
    for device in devices:
        device.free.set()
    assert worker.stop(10)


@pytest.mark.parametrize("error", [DeviceLostError("gone"), ZeroDivisionError()])
def test_a_lost_device_is_told_once_and_called_no_more(
    worker: Worker[Sample], heard: Heard, error: Exception
) -> None:
    lost, kept = Scripted("lost", error=error), Scripted("kept")
    worker.add(lost, FAST_NS)
    worker.add(kept, FAST_NS)
    eventually(lambda: heard.counts()["kept"] > 10)
    ((uuid, reason),) = heard.losses
    assert uuid == "lost"
    assert "gone" in reason or "ZeroDivisionError" in reason
    assert heard.counts()["lost"] == 0


def test_a_lost_device_can_be_added_again(worker: Worker[Sample], heard: Heard) -> None:
    worker.add(Scripted("a", error=DeviceLostError("gone")), FAST_NS)
    eventually(lambda: heard.losses)
    worker.add(Scripted("a"), FAST_NS)
    eventually(lambda: heard.counts()["a"] > 2)


def test_removed_while_it_hangs_it_is_forgotten(worker: Worker[Sample], heard: Heard) -> None:
    stuck = Scripted("stuck")
    stuck.free.clear()
    worker.add(stuck, FAST_NS)
    assert stuck.entered.wait(10)
    time.sleep(HANGS_NS / 1e9)
    worker.relieve()
    worker.remove("stuck")
    stuck.free.set()
    assert worker.stop(10)
    assert heard.rounds == []
    assert heard.losses == []
