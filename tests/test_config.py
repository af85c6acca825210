"""Configuration: who wins, and what is said of mistakes."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from greend.config import Settings, load, render
from greend.errors import InvalidArgument


def from_text(tmp_path: Path, text: str, **environment: str) -> Settings:
    file = tmp_path / "greend.toml"
    file.write_text(text)
    return load(file, environment, {})


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "greend.toml"
    assert load(None, {}, {}).metering.fast_hz == 25
    file.write_text("[metering]\nfast_hz = 10\nslow_hz = 2\nlateness_s = 1\n")
    environment = {"GREEND_METERING_SLOW_HZ": "3", "GREEND_METERING_LATENESS_S": "2"}
    flags = {"metering": {"lateness_s": "4", "fast_hz": None}}
    metering = load(file, environment, flags).metering
    assert (metering.fast_hz, metering.slow_hz, metering.lateness_s) == (10, 3, 4)


def test_addresses_of_the_client_are_not_taken_for_settings() -> None:
    assert load(None, {"GREEND_ADDRESS": "unix:///x", "GREEND_CONTROL_ADDRESS": "y"}, {}) == load(
        None, {}, {}
    )


def test_what_is_printed_is_a_file_that_says_the_same(tmp_path: Path) -> None:
    settings = from_text(tmp_path, '[daemon]\nstate_dir = "/a \\"b\\""\n[metering]\nfast_hz = 7\n')
    printed = render(settings)
    assert from_text(tmp_path, printed) == settings
    assert set(tomllib.loads(printed)) == {"daemon", "metering", "store", "metrics"}
    assert all(
        line.startswith(("#", "[")) or " = " in line or not line for line in printed.split("\n")
    )


def test_floors_are_set_by_device_and_compute_context(tmp_path: Path) -> None:
    text = '[metering]\nfloors = ["GPU-a=58.5", "GPU-b=60/86"]'
    assert from_text(tmp_path, text).metering.settings().floors_mw == {
        "GPU-a": {False: 58_500.0, True: 58_500.0},
        "GPU-b": {False: 60_000.0, True: 86_000.0},
    }
    from_environment = load(None, {"GREEND_METERING_FLOORS": "GPU-a=58.5, GPU-b=60/86"}, {})
    assert from_environment == from_text(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[metering]\nfloors = ["GPU-a"]', ["floors", "UUID=W"]),
        ('[metering]\nfloors = ["GPU-a=-3"]', ["floors", "UUID=W"]),
        ("[metring]\nfast_hz = 1", ["metring", "'metering'"]),
        ("[zzz]", ["zzz", "daemon", "metering", "metrics"]),
        ("[metering]\nfast_hertz = 1", ["fast_hertz", "'fast_hz'"]),
        ("[metering]\nlateness = 1", ["lateness", "'lateness_s'"]),
        ("[metering]\nxyz = 1", ["xyz", "slow_hz"]),
        ("[daemon]\nstatedir = 'x'", ["statedir", "'state_dir'"]),
        ("fast_hz = 1", ["fast_hz", "there are", "metering"]),
        ("metering = 1", ["[metering]", "section"]),
        ("[metering]\nfast_hz = 0", ["fast_hz", ">= 1", "greend.toml"]),
        ("[metering]\nfast_hz = 500", ["fast_hz", "<= 200"]),
        ("[metering]\nfast_hz = '25'", ["fast_hz", "`float`", "`str`"]),
        ("[metering]\nfast_hz = true", ["fast_hz", "`float`", "`bool`"]),
        ("[metering]\nslow_hz = 0.1", ["slow_hz", ">= 0.25"]),
        ("[metering]\nslow_hz = []", ["slow_hz", "`array`"]),
        ("[metering]\nslow_hz = nan", ["slow_hz", "nan"]),
        ("[metering]\nlateness_s = -1", ["lateness_s", ">= 0"]),
        ("[metering]\nlateness_s = 121", ["lateness_s", "<= 120"]),
        ("[metering]\nlateness_s = 'soon'", ["lateness_s", "`float`"]),
        ("[metering]\nmost_open_windows = 0", ["most_open_windows", ">= 1"]),
        ("[metering]\nmost_open_windows = 1.5", ["most_open_windows", "`int`"]),
        ("[metering]\nmost_open_windows = 2000000", ["most_open_windows", "<= 1000000"]),
        ("[daemon]\nstate_dir = ''", ["state_dir", "length"]),
        ("[daemon]\nstate_dir = 3", ["state_dir", "`str`"]),
        ("[daemon]\nruntime_dir = ''", ["runtime_dir", "length"]),
        ("[daemon]\nruntime_dir = {}", ["runtime_dir", "`object`"]),
        ("[daemon]\ngroup = 3", ["group", "`str`"]),
        ("[daemon]\ncontrol_group = false", ["control_group", "`bool`"]),
        ("[daemon]\nlog_level = 'loud'", ["log_level", "'loud'", "debug, info, warning, error"]),
        ("[daemon]\nlog_level = 10", ["log_level", "10", "debug, info, warning, error"]),
        ("[store]\nsynchronous = 'off'", ["synchronous", "none of normal, full"]),
        ("[metering]\nfast_hz = 1\nslow_hz = 2", ["fast_hz = 1", "slow_hz = 2", "raise fast_hz"]),
        ("[metering]\nslow_hz = 26", ["fast_hz = 25", "slow_hz = 26", "lower slow_hz"]),
        ("[metrics]\naddress = 9477", ["address", "`str`", "HOST:PORT"]),
        ("[metrics]\nadress = ''", ["adress", "'address'"]),
        ("[metering", ["not TOML"]),
        ("[metering]\nfast_hz = ", ["not TOML"]),
        ("[metering]\nfast_hz = 1\nfast_hz = 2", ["not TOML"]),
    ],
)
def test_a_wrong_file_is_refused_with_key_and_remedy(
    text: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        from_text(tmp_path, text)
    for word in [*words, "greend.toml"]:
        assert word in str(caught.value), str(caught.value)


def test_a_wrong_environment_or_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="GREEND_METERING_FAST_HZ"):
        load(None, {"GREEND_METERING_FAST_HZ": "often"}, {})
    with pytest.raises(InvalidArgument, match="--state-dir"):
        load(None, {}, {"daemon": {"state_dir": ""}})
    with pytest.raises(InvalidArgument, match="--config"):
        load(tmp_path / "none.toml", {}, {})


def test_paces_that_contradict_are_told_with_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"in GREEND_METERING_FAST_HZ or .*greend\.toml"):
        from_text(tmp_path, "[metering]\nslow_hz = 2", GREEND_METERING_FAST_HZ="1")
    assert from_text(tmp_path, "[metering]\nslow_hz = 2\nfast_hz = 2").metering.fast_hz == 2


def test_words_may_be_written_in_upper_case(tmp_path: Path) -> None:
    assert from_text(tmp_path, "[daemon]\nlog_level = 'WARNING'").daemon.log_level == "warning"
    assert load(None, {"GREEND_DAEMON_LOG_LEVEL": "Debug"}, {}).daemon.log_level == "debug"
    printed = subprocess.run(
        [sys.executable, "-m", "greend", "serve", "--print-config", "--log-level", "ERROR"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert 'log_level = "error"' in printed


def test_a_variable_that_is_nearly_a_setting_is_refused_with_the_setting() -> None:
    for wrong, right in {
        "GREEND_METERING_FASTHZ": "GREEND_METERING_FAST_HZ",
        "GREEND_STORE_WINDOW_DAYS": "GREEND_STORE_WINDOWS_DAYS",
        "GREEND_DAEMON_STATEDIR": "GREEND_DAEMON_STATE_DIR",
    }.items():
        with pytest.raises(InvalidArgument, match=f"{wrong}.*'{right}'"):
            load(None, {wrong: "1"}, {})


def test_variables_that_others_set_are_left_alone() -> None:
    others = ("GREEND_PARENT_WINDOW", "GREEND_METRICS_PORT", "GREEND_METRICS_SERVICE_HOST")
    assert load(None, dict.fromkeys(others, "1"), {}) == load(None, {}, {})
