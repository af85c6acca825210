import json
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from greend_proto.v1 import metering_pb2, types_pb2
from tests.client.memory_daemon import GPU_0, GPU_1, MemoryDaemon, serving
from tests.greenctl.conftest import Run

NOW_NS = time.time_ns()


def add_windows(daemon: MemoryDaemon, count: int) -> list[types_pb2.Window]:
    made = []
    for n in range(count):
        window = types_pb2.Window(
            window_id=f"01970000-0000-7000-8000-{n:012x}",
            request_id=f"request-{n}",
            tags={"model": ("llama", "qwen")[n % 2]},
            devices=[(GPU_0, GPU_1)[n % 2]],
            state="final",
            weight=1,
            start_unix_ns=NOW_NS - n * 10**9,
            stop_unix_ns=NOW_NS - n * 10**9 + 1,
            duration_s=1.25,
            energy_j=100.5 + n,
            uncertainty_j=0.25,
            source="energy_counter",
        )
        daemon.windows[window.window_id] = window
        made.append(window)
    return made


def ledger_row(device: str, windows_j: float = 70) -> types_pb2.LedgerRow:
    return types_pb2.LedgerRow(
        device=device,
        start_unix_ns=NOW_NS - 60 * 10**9,
        stop_unix_ns=NOW_NS,
        measured_j=100,
        windows_j=windows_j,
        idle_j=20,
        unattributed_j=10,
        unknown_s=1.5,
    )


def data(done: "subprocess.CompletedProcess[str]") -> Any:
    return json.loads(done.stdout)


def test_status_says_how_the_daemon_is(address: str, greenctl: Run, daemon: MemoryDaemon) -> None:
    daemon.status.parts.add(name="store", state="failed", message="the disk is full")
    text = greenctl("status").stdout
    assert f"greend 1.2.3 is serving at {address}" in text
    assert "2 of 2 answer" in text
    assert "store    failed: the disk is full" in text
    assert data(greenctl("status", "--json"))["parts"][1]["message"] == "the disk is full"


def test_waiting_ends_as_soon_as_the_daemon_serves(
    socket: Path, daemon: MemoryDaemon, command: list[str], environment: dict[str, str]
) -> None:
    began = time.monotonic()
    waiting = subprocess.Popen([*command, "status", "--wait", "60"], env=environment)
    time.sleep(1)  # long enough that it is tried in vain first
    with serving(daemon, socket):
        assert waiting.wait(30) == 0
    assert time.monotonic() - began < 20


def test_waiting_in_vain_fails_and_says_what_to_do(greenctl: Run) -> None:
    began = time.monotonic()
    done = greenctl("status", "--wait", "0.5", code=1)
    assert time.monotonic() - began >= 0.5
    assert "greend serve" in done.stderr


@pytest.mark.parametrize("name", ["status", "devices", "windows", "window x", "ledger"])
def test_without_a_daemon_one_line_says_what_to_do(greenctl: Run, name: str) -> None:
    done = greenctl(*name.split(), "--address", "unix:///nowhere/greend.sock", code=1)
    (line,) = done.stderr.splitlines()
    assert line.startswith("greenctl: no greend daemon answers at unix:///nowhere/greend.sock: ")
    assert "systemctl start greend" in line
    assert done.stdout == ""


def test_a_socket_that_may_not_be_opened_names_the_group(
    daemon: MemoryDaemon, environment: dict[str, str]
) -> None:
    # As nobody where this runs as root, which may open anything.
    code = """
        import os, sys, greend_client, greend_proto.v1.metering_pb2, encodings.idna
        from greenctl.cli import main
        if os.getuid() == 0:
            os.setuid(65534)
        sys.argv = ["greenctl", "status"]
        main()
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        socket = Path(folder, "greend.sock")
        with serving(daemon, socket) as address:
            socket.chmod(0)
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(code)],
                env=environment | {"GREEND_ADDRESS": address},
                capture_output=True,
                text=True,
            )
    assert done.returncode == 1
    assert done.stderr.startswith(f"greenctl: no permission to open {address}: ")
    assert "usermod -aG greend" in done.stderr


def test_the_address_may_stand_before_or_behind_the_command(address: str, greenctl: Run) -> None:
    greenctl("--address", address, "status", GREEND_ADDRESS="unix:///nowhere")
    greenctl("status", "--address", address, GREEND_ADDRESS="unix:///nowhere")


def test_the_daemons_own_words_are_shown(address: str, greenctl: Run, daemon: MemoryDaemon) -> None:
    daemon.refuse = lambda request: (grpc.StatusCode.UNAVAILABLE, "no driver since 12:00")
    assert greenctl("devices", code=1).stderr == "greenctl: no driver since 12:00\n"


def test_devices_shows_mig_instances(greenctl: Run, daemon: MemoryDaemon, address: str) -> None:
    assert "MIG" not in greenctl("devices").stdout
    uuid = "MIG-11111111-0000-5000-8000-000000000000"
    daemon.devices[1].compute_slices = 7
    daemon.devices[1].mig_instances.add(uuid=uuid, name="H100 MIG 3g.40gb", compute_slices=3)
    line = greenctl("devices").stdout.splitlines()[-1]
    assert line.split() == ["1", "3g.40gb", uuid, "3/7"]
    document = json.loads(greenctl("devices", "--json").stdout)
    assert document["devices"][1]["mig_instances"][0]["uuid"] == uuid
    assert document["devices"][1]["mig_instances"][0]["compute_slices"] == 3
    assert document["devices"][0]["mig_instances"] == []


def test_devices_shows_the_gpus_and_why_one_is_not_well(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    daemon.devices[1].state = "lost"
    daemon.devices[1].state_reason = "fell off the bus"
    daemon.devices[1].ClearField("floor_w")
    text = greenctl("devices").stdout
    assert GPU_0[:14] in text
    assert "GPU 1 is lost: fell off the bus" in text
    first, second = text.splitlines()[2:4]
    assert " 70.5 " in first
    assert " – " in second


def test_windows_are_a_table_of_80_columns_without_colours_in_a_pipe(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    for window in add_windows(daemon, 60):
        window.flags.extend(["simulated"])
    daemon.windows["01970000-0000-7000-8000-000000000001"].flags.extend(["short", "gap", "late"])
    lines = greenctl("windows").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)
    titles = ["window", "request", "start", "lasted", "energy J", "± J", "remarks"]
    assert lines[0].split() == " ".join(titles).split()
    assert lines[2].split()[:2] == ["…00000000", "request-0"]
    assert "100.500" in lines[2]
    assert "short gap" in lines[3]
    assert lines[-2:] == [
        "All of them: simulated.",
        "There are more than these 50: see --limit and --since.",
    ]


def test_what_is_unknown_is_a_dash(address: str, greenctl: Run, daemon: MemoryDaemon) -> None:
    (window,) = add_windows(daemon, 1)
    for name in ("energy_j", "uncertainty_j", "duration_s", "stop_unix_ns"):
        window.ClearField(name)
    window.state = "open"
    row = greenctl("windows").stdout.splitlines()[2]
    assert row.split()[-2:] == ["–", "open"]
    assert " 0.000" not in row
    details = greenctl("window", "00000000").stdout
    assert "energy        –\n" in details
    assert "first token   –\n" in details
    assert "± –" not in details
    assert "stop          runs" in details
    document = data(greenctl("window", window.window_id, "--json"))
    assert "energy_j" not in document


def test_windows_can_be_chosen(address: str, greenctl: Run, daemon: MemoryDaemon) -> None:
    add_windows(daemon, 6)

    def ids(*arguments: str) -> list[str]:
        found = data(greenctl("windows", "--json", *arguments))["windows"]
        return [window["request_id"].removeprefix("request-") for window in found]

    assert ids() == ["0", "1", "2", "3", "4", "5"]
    assert ids("--limit", "2") == ["0", "1"]
    assert ids("--tag", "model=qwen") == ["1", "3", "5"]
    assert ids("--request-id", "request-4") == ["4"]
    assert ids("--device", "0") == ids("--device", "GPU-aaaa") == ["0", "2", "4"]
    assert ids("--device", GPU_0, "--device", "1", "--state", "final") == list("012345")
    assert ids("--state", "open") == []
    assert ids("--limit", "0", "--since", "24h") == list("012345")
    assert ids("--until", "2025-01-31T12:00Z") == []
    ids("--since", "24h", "--until", "2025-01-31T12:00Z")
    sent = daemon.requests[-1].filter
    assert abs(sent.since_unix_ns - (time.time_ns() - 86400 * 10**9)) < 60 * 10**9
    assert sent.until_unix_ns == 1738324800 * 10**9


def test_a_limit_beyond_a_page_takes_several(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    add_windows(daemon, 1500)
    answer = data(greenctl("windows", "--json", "--limit", "1200"))
    assert len(answer["windows"]) == 1200
    assert answer["next_page_token"]
    sizes = [r.page_size for r in daemon.seen(metering_pb2.ListWindowsRequest)]
    assert sizes == [1000, 200]


def test_a_window_is_found_by_the_part_of_its_id_that_the_table_shows(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    add_windows(daemon, 3)
    text = greenctl("window", "…00000002").stdout
    assert "window        01970000-0000-7000-8000-000000000002" in text
    assert "energy        102.500 J ± 0.250 J" in text
    assert "3 of the newest windows begin or end so" in greenctl("window", "0197", code=1).stderr
    assert "none of the newest" in greenctl("window", "zz", code=1).stderr
    whole = "01970000-0000-7000-8000-00000000000f"
    assert greenctl("window", whole, code=1).stderr == f"greenctl: no window {whole}\n"


def test_what_others_wrote_cannot_steer_the_terminal(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    (window,) = add_windows(daemon, 1)
    window.request_id = "[red]\x1b[31mx\n"
    for text in (greenctl("windows").stdout, greenctl("window", "00000000").stdout):
        assert "\x1b" not in text
        assert "[red]�[31mx�" in text


def test_json_has_the_fields_of_the_messages_with_integers_as_numbers(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    (window,) = add_windows(daemon, 1)
    window.usage.output_tokens = 128
    window.phases.add(name="decode", start_unix_ns=5)
    document = data(greenctl("window", window.window_id, "--json"))
    assert document["start_unix_ns"] == NOW_NS
    assert document["usage"] == {"output_tokens": 128}
    # All else as protobuf's own mapping has it.
    whole = MessageToDict(
        window, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )

    def as_text(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_text(item) for key, item in value.items()}
        if isinstance(value, list):
            return [as_text(item) for item in value]
        return str(value) if type(value) is int else value

    assert as_text(document) == whole


def test_the_ledger_shows_totals_and_that_the_bookings_add_up(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    daemon.ledger = [ledger_row(GPU_0), ledger_row(GPU_1)]
    lines = greenctl("ledger").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    total = next(line for line in lines if line.startswith("total"))
    assert total.split()[1:] == ["200.000", "140.000", "40.000", "20.000", "0.000", "3.000"]
    assert lines[-1] == "✓ windows + idle + unattributed + gap = measured, on every device."
    assert data(greenctl("ledger", "--json"))["rows"][0]["unknown_s"] == 1.5
    greenctl("ledger", "--device", "1", "--since", "1h")
    assert daemon.requests[-1].devices == [GPU_1]


def test_what_rounding_leaves_is_nothing(address: str, greenctl: Run, daemon: MemoryDaemon) -> None:
    row = ledger_row(GPU_0)
    row.idle_j, row.unattributed_j, row.gap_j = -4e-15, 9e-10, 2e-9
    daemon.ledger = [row]
    shown = next(line for line in greenctl("ledger").stdout.splitlines() if "GPU-" in line)
    assert shown.split()[3:6] == ["0.000", "0.000", "2e-09"]


def test_a_ledger_that_does_not_add_up_says_by_how_much(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    daemon.ledger = [ledger_row(GPU_0), ledger_row(GPU_1, windows_j=70.5)]
    last = greenctl("ledger").stdout.splitlines()[-1]
    assert last.startswith(f"✗ {GPU_1}")
    assert "+0.5 J off" in last


def test_nothing_to_show_is_said_in_words(
    address: str, greenctl: Run, daemon: MemoryDaemon
) -> None:
    daemon.devices.clear()
    assert greenctl("windows").stdout == "No windows.\n"
    assert greenctl("ledger").stdout == "Nothing was measured in that time.\n"
    assert greenctl("devices").stdout.startswith("No devices.")
    assert data(greenctl("windows", "--json")) == {"windows": [], "next_page_token": ""}


@pytest.mark.parametrize(
    "arguments",
    ["nothing", "windows --tag x", "windows --state lost", "windows --limit -1", "window", "-x"],
)
def test_wrong_usage_ends_with_2(greenctl: Run, arguments: str) -> None:
    assert "Usage:" in greenctl(*arguments.split(), code=2).stderr


def test_a_wrong_time_or_device_says_what_can_be_written(address: str, greenctl: Run) -> None:
    assert '"24h"' in greenctl("windows", "--since", "soon", code=1).stderr
    assert f"0: {GPU_0}, 1: {GPU_1}" in greenctl("ledger", "--device", "7", code=1).stderr


def test_the_version_and_help_need_neither_grpc_nor_rich(
    greenctl: Run, command: list[str], environment: dict[str, str]
) -> None:
    assert greenctl("--version").stdout.startswith("greenctl ")
    for arguments in (["--version"], ["windows", "--help"]):
        done = subprocess.run(
            [command[0], "-X", "importtime", "-m", "greenctl", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert not {"grpc", "rich", "greend_client"} & loaded


def test_ctrl_c_ends_with_130_and_no_traceback(
    address: str, daemon: MemoryDaemon, command: list[str], environment: dict[str, str]
) -> None:
    daemon.gate.clear()
    # A test run in the background of a shell has SIGINT ignored, and so its children.
    code = """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from greenctl.cli import main
        main()
    """
    running = subprocess.Popen(
        [command[0], "-c", textwrap.dedent(code), "status"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    daemon.wait_for(lambda: daemon.requests)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.parametrize("arguments", ["windows", "windows --json"])
def test_a_reader_that_goes_away_is_no_error(
    address: str,
    daemon: MemoryDaemon,
    command: list[str],
    environment: dict[str, str],
    arguments: str,
) -> None:
    add_windows(daemon, 1000)
    running = subprocess.Popen(
        [*command, *arguments.split(), "--limit", "1000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.stderr.read() == ""
    running.wait(30)
    running.stderr.close()
