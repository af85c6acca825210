"""The endpoint over real HTTP."""

import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from greend.errors import InvalidArgument
from greend.export.endpoint import MOST_AT_ONCE, parse_address
from greend.export.exporter import on_loop
from greend.export.recorder import USUAL_MAX_SERIES
from greend.export.tag_groups import OTHER
from tests.export import scrape_time
from tests.export.fed import Fed, booking, device_uuid, fed, window
from tests.export.text import Scrape, scrape

FIRST, SECOND = ({"device": device_uuid(index)} for index in (0, 1))
READ_FROM_SAMPLES = {
    "greend_device_power_watts": 412.5,
    "greend_device_sm_clock_hertz": 1.98e9,
    "greend_device_memory_clock_hertz": 2.619e9,
    "greend_device_temperature_celsius": 61,
    "greend_device_gpu_utilization_ratio": 0.87,
    "greend_device_memory_utilization_ratio": 0.4,
    "greend_device_power_limit_watts": 650,
}


def test_a_device_is_told_in_base_units() -> None:
    with fed() as made:
        on_loop(made.loop, made.feed)
        seen = Scrape(made.url)
    for name, value in READ_FROM_SAMPLES.items():
        assert seen.value(name, FIRST) == pytest.approx(value)
    assert seen.value("greend_device_energy_joules_total", FIRST) == 20
    for kind, joules in {"windows": 12.9, "idle": 5, "unattributed": 2, "gap": 0.1}.items():
        series = {**FIRST, "booking": kind}
        assert seen.value("greend_device_booked_joules_total", series) == joules
    assert seen.value("greend_device_unknown_seconds_total", FIRST) == 0.001
    assert seen.value("greend_device_floor_watts", {**FIRST, "context": "without"}) == 70
    assert seen.value("greend_device_floor_watts", {**FIRST, "context": "with"}) == 110
    assert seen.value("greend_device_up", FIRST) == 1
    named = {**FIRST, "name": "NVIDIA H100 80GB HBM3", "index": "0", "simulated": "true"}
    assert seen.value("greend_device_info", named) == 1
    assert 0 <= seen.value("greend_device_sample_age_seconds", FIRST) < 5


def test_there_is_nothing_but_the_metrics() -> None:
    with fed() as made:
        root = made.url.removesuffix("/metrics")
        for path in ("/", "/metrics", "/metrics?name[]=greend_device_up"):
            assert "greend_device_up" in scrape(root + path)
        for path in ("/anything", "/metrics/x", "/favicon.ico"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                scrape(root + path)
            with caught.value as response:
                assert response.code == 404
                assert b"/metrics" in response.read()


def test_clock_event_reasons_are_told_by_name() -> None:
    with fed() as made:
        seen = Scrape(made.url)
    reasons = {
        dict(labels)["reason"]: value
        for labels, value in seen.samples["greend_device_clock_event_reason"].items()
        if dict(labels)["device"] == device_uuid(0)
    }
    assert len(reasons) == 9
    assert {name for name, active in reasons.items() if active} == {
        "sw_power_cap",
        "sw_thermal_slowdown",
    }


def test_windows_are_told_by_allow_listed_tags_and_never_by_request() -> None:
    with fed() as made:
        on_loop(made.loop, lambda: made.recorder.window_final(window(model="m", tenant="t")))
        seen = Scrape(made.url)
    assert seen.value("greend_windows_total", {"model": "m"}) == 1
    assert seen.value("greend_window_energy_joules_total", {"model": "m"}) == 50
    tokens = {
        kind: seen.value("greend_window_tokens_total", {"model": "m", "kind": kind})
        for kind in ("prompt", "cached", "output")
    }
    assert tokens == {"prompt": 512, "cached": 128, "output": 100}
    assert seen.value("greend_request_energy_joules_sum") == 50
    assert seen.value("greend_request_energy_joules_bucket", {"le": "50.0"}) == 1
    assert seen.value("greend_request_energy_joules_bucket", {"le": "20.0"}) == 0
    assert seen.value("greend_output_token_energy_joules_sum") == 0.5
    assert "request-7" not in seen.text
    assert "tenant" not in seen.text


def test_tag_values_of_any_kind_come_through_whole() -> None:
    odd = 'a"b\\c\nd{}é,'
    with fed() as made:
        on_loop(made.loop, lambda: made.recorder.window_final(window(model=odd)))
        assert Scrape(made.url).value("greend_windows_total", {"model": odd}) == 1


def test_what_is_unknown_is_absent() -> None:
    with fed() as made:
        on_loop(made.loop, lambda: made.recorder.window_final(window(None, None, model="m")))
        on_loop(made.loop, lambda: _forget(made))
        seen = Scrape(made.url)
    assert not seen.has("greend_device_energy_joules_total")
    assert not seen.has("greend_window_energy_joules_total")
    assert not seen.has("greend_window_tokens_total", {"kind": "output"})
    for name in READ_FROM_SAMPLES.keys() - {"greend_device_power_limit_watts"}:
        assert not seen.has(name, FIRST), name
        assert seen.has(name, SECOND), name
    assert not seen.has("greend_device_sample_age_seconds", FIRST)


def test_a_device_that_does_not_answer_tells_no_old_readings() -> None:
    with fed() as made:
        on_loop(made.loop, made.feed)
        on_loop(made.loop, lambda: made.lose(0))
        on_loop(made.loop, lambda: made.age(1, 60))
        seen = Scrape(made.url)
    for name in READ_FROM_SAMPLES:
        assert not seen.has(name), name
    for device, state in ((FIRST, "lost"), (SECOND, "hung")):
        assert seen.value("greend_device_up", device) == 0
        states = {
            name: seen.value("greend_device_state", {**device, "state": name})
            for name in ("ok", "lost", "hung")
        }
        assert [name for name, here in states.items() if here] == [state]
        assert seen.has("greend_device_energy_joules_total", device), "history stays"
    assert seen.value("greend_device_sample_age_seconds", SECOND) == pytest.approx(60, abs=5)
    assert seen.value("greend_devices_ok") == 0
    assert seen.value("greend_devices") == 2


def test_the_daemons_own_health_is_told() -> None:
    with fed() as made:
        before = Scrape(made.url)
        made.store_error = "disk full"
        on_loop(made.loop, lambda: setattr(made.registry, "driver_error", "no driver"))
        after = Scrape(made.url)
    assert before.has("greend_build_info", {})
    assert before.value("process_resident_memory_bytes") > 0
    assert before.value("greend_open_windows") == 3
    for name in ("greend_store_error", "greend_driver_error"):
        assert (before.value(name), after.value(name)) == (0, 1)


def test_energy_that_a_late_window_takes_from_idle_makes_no_counter_fall() -> None:
    idle = {**FIRST, "booking": "idle"}
    with fed() as made:

        def idle_after(**amounts: float) -> float:
            on_loop(made.loop, lambda: made.recorder.booked(booking(0, **amounts)))
            return Scrape(made.url).value("greend_device_booked_joules_total", idle)

        assert idle_after(measured_mj=10_000, idle_mj=10_000) == 10
        assert idle_after(windows_mj=4_000, idle_mj=-4_000) == 10
        assert idle_after(measured_mj=3_000, idle_mj=3_000) == 10
        assert idle_after(measured_mj=3_000, idle_mj=3_000) == 12


def test_open_metrics_has_every_family_once() -> None:
    with fed() as made:
        on_loop(made.loop, made.feed)
        text = scrape(made.url, "application/openmetrics-text; version=1.0.0")
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert text.endswith("# EOF\n")
    assert len(families) == len(set(families))


def test_every_metric_has_a_help_text_and_counters_end_in_total() -> None:
    with fed() as made:
        on_loop(made.loop, made.feed)
        lines = scrape(made.url).splitlines()
    helps = {line.split(" ", 3)[2] for line in lines if line.startswith("# HELP ")}
    kinds = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE ")}
    assert kinds.keys() == helps
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in kinds.items())


def test_a_loop_that_is_busy_or_has_ended_is_told_as_unavailable() -> None:
    with fed() as made:
        begun, over = threading.Event(), threading.Event()

        def block() -> None:
            begun.set()
            over.wait(20)

        made.loop.call_soon_threadsafe(block)
        assert begun.wait(10)
        try:
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(made.url, timeout=15)
            with refused.value as response:
                assert response.code == 503
                assert "event loop was busy for 5 s" in response.read().decode()
        finally:
            over.set()
        assert Scrape(made.url).value("greend_devices") == 2


def test_more_scrapers_than_allowed_are_hung_up_on_and_others_served_again() -> None:
    with fed() as made:
        host, port = parse_address(made.exporter.address)
        silent = [socket.create_connection((host, port)) for _ in range(MOST_AT_ONCE)]
        try:
            with socket.create_connection((host, port), timeout=10) as one_more:
                assert one_more.recv(1) == b""
        finally:
            for connection in silent:
                connection.close()
        _until_served(made.url)


def test_an_address_in_use_is_refused_with_what_to_do() -> None:
    with fed() as made:
        address = made.exporter.address
        with pytest.raises(InvalidArgument) as refused, fed(address=address):
            pass
    port = address.rpartition(":")[2]
    told = str(refused.value)
    assert told.startswith(f"[metrics] address: {address}: the port is in use")
    assert f"sport = :{port}" in told
    assert "--metrics" in told


def test_an_address_is_free_again_at_once_after_the_stop() -> None:
    with fed() as made:
        address = made.exporter.address
        scrape(made.url)
    with fed(address=address) as made:
        scrape(made.url)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("address", ["[::1]:0", "[::]:0"])
def test_ipv6_addresses_are_served(address: str) -> None:
    with fed(address=address) as made:
        host, port = parse_address(made.exporter.address)
        assert host == address[1:-3]
        assert Scrape(f"http://[::1]:{port}/metrics").value("greend_devices") == 2


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("9477", "is not HOST:PORT"),
        (":9477", "0.0.0.0:9477 or [::]:9477 for all interfaces"),
        ("::1:9477", "is not HOST:PORT"),
        ("localhost:http", "'http' is not a port between 0 and 65535"),
        ("localhost:65536", "'65536' is not a port between 0 and 65535"),
        ("192.0.2.1:9477", "this machine has no such address"),
    ],
)
def test_addresses_that_cannot_be_are_refused_with_what_to_do(address: str, told: str) -> None:
    with pytest.raises(InvalidArgument) as refused, fed(address=address):
        pass
    assert told in str(refused.value)
    assert str(refused.value).startswith("[metrics] address: ")


def _forget(made: Fed) -> None:
    made.registry.devices[device_uuid(0)].latest = None
    made.registry.devices[device_uuid(0)].lost_reason = "gone"


def _until_served(url: str) -> None:
    """The daemon notices one by one that those who hung have gone."""
    deadline = time.monotonic() + 10
    while True:
        try:
            scrape(url)
        except OSError:
            assert time.monotonic() < deadline, "nothing is served any more"
        else:
            return


def test_at_the_bound_a_scrape_has_all_its_series() -> None:
    with scrape_time.at_the_bound() as made:
        seen = Scrape(made.url)
    by_tags = [
        series
        for name in ("windows_total", "window_energy_joules_total", "window_tokens_total")
        for series in seen.samples[f"greend_{name}"]
    ]
    assert len(by_tags) == USUAL_MAX_SERIES
    assert seen.value("greend_windows_total", {"tenant": OTHER}) == seen.value(
        "greend_series_dropped_total"
    )
