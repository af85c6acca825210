"""Form and exit status of `greend doctor`."""

import json
import os
import pty
import re
import subprocess
import time
from pathlib import Path

import pytest

from greend import __version__
from greend.doctor import run_doctor
from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host
from greend.doctor.run import CHECKS
from tests.doctor.conftest import Doctor
from tests.nvml_double import NvmlDouble

LEVELS = ["ok", "info", "warning", "error"]


def test_the_document_has_every_finding_and_their_numbers(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        doctor.environment = double.environment
        report = doctor.report()
    assert set(report.document) == {"version", "summary", "findings"}
    assert report.document["version"] == __version__
    assert list(report.document["summary"]) == LEVELS
    findings = report.document["findings"]
    for finding in findings:
        assert set(finding) == {"name", "level", "found", "remedy"}
        assert finding["found"]
        if finding["level"] == "ok":
            assert finding["remedy"] == ""
        if finding["level"] in ("warning", "error"):
            assert finding["remedy"]
    levels = [finding["level"] for finding in findings]
    assert report.document["summary"] == {level: levels.count(level) for level in LEVELS}
    assert {finding["name"] for finding in findings} == set(CHECKS)


def test_the_list_fits_in_80_columns_and_has_no_colour(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100", "h100", "p100"]) as double:
        double.gpus[0].stick_counter()
        double.gpus[1].lose()
        doctor.environment = double.environment
        ended = doctor.run()
    lines = ended.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in ended.stdout
    assert ended.stderr == ""
    assert [line for line in lines if line in CHECKS] == list(CHECKS)
    assert re.fullmatch(r"\d+ ok, \d+ info, \d+ warnings?, 2 errors", lines[-1])
    assert ended.returncode == 1


def test_a_terminal_sees_colours_and_progress(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        doctor.environment = double.environment | {"TERM": "xterm-256color"}
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            doctor.command("--seconds", "3"),
            env=doctor.full_environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as running:
            os.close(theirs)
            screen = b""
            try:
                while chunk := os.read(ours, 4096):
                    screen += chunk
            except OSError:
                pass  # a terminal without programs
        os.close(ours)
    assert running.returncode == 0
    assert b"Reading the GPUs" in screen
    assert b"\x1b[32m  ok" in screen


@pytest.mark.parametrize(
    "arguments", [["--seconds", "0"], ["--seconds", "soon"], ["--secnods", "1"], ["everything"]]
)
def test_wrong_usage_is_status_2(doctor: Doctor, arguments: list[str]) -> None:
    ended = doctor.run(*arguments)
    assert ended.returncode == 2
    assert "Usage:" in ended.stderr


def test_the_time_to_read_can_be_chosen(doctor: Doctor, tmp_path: Path) -> None:
    with NvmlDouble(tmp_path, ["a100"]) as double:
        doctor.environment = double.environment
        short = doctor.report("--seconds", "0.2")
        begun = time.monotonic()
        long = doctor.report("--seconds", "4")
        assert time.monotonic() - begun > 4
    assert "read longer" in short.one("counter", "not compared")["remedy"]
    assert re.search(r"counted .* in 3\.[89]\d s", long.one("counter", "counted")["found"])


def test_a_wrong_configuration_is_an_error_and_the_rest_is_checked(
    doctor: Doctor, tmp_path: Path
) -> None:
    file = tmp_path / "greend.toml"
    file.write_text("[metering]\nfast_hertz = 1\n")
    report = doctor.report("--config", str(file))
    wrong = report.one("configuration", "fast_hertz")
    assert wrong["level"] == "error"
    assert "'fast_hz'" in wrong["found"]
    assert str(file) in wrong["found"]
    assert str(doctor.directory) in report.one("store", "is writable")["found"]
    assert report.status == 1


def test_where_the_configuration_comes_from_is_told(doctor: Doctor, tmp_path: Path) -> None:
    file = tmp_path / "greend.toml"
    file.write_text("[metering]\nfast_hz = 10\n")
    doctor.environment = {"GREEND_METERING_SLOW_HZ": "2", "GREEND_ADDRESS": "unix:///none"}
    report = doctor.report("--config", str(file))
    assert report.one("configuration", str(file))["level"] == "ok"
    given = report.one("configuration", "the environment sets")
    assert "GREEND_METERING_SLOW_HZ" in given["found"]
    assert "GREEND_ADDRESS" not in given["found"]


def test_a_check_that_fails_itself_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(host: Host, say: Findings) -> list[Finding]:
        raise ZeroDivisionError

    monkeypatch.setitem(CHECKS, "clock", fails)
    status = run_doctor(
        config=Path(os.devnull),
        state_dir=str(tmp_path),
        runtime_dir=str(tmp_path),
        json=True,
        seconds=0.1,
    )
    out, _ = capfd.readouterr()
    findings = json.loads(out)["findings"]
    (clock,) = (finding for finding in findings if finding["name"] == "clock")
    assert clock["level"] == "error"
    assert "ZeroDivisionError" in clock["found"]
    assert "report it" in clock["remedy"]
    assert findings[-1]["name"] == "service"
    assert status == 1


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_findings_that_cannot_be_written_are_one_line(doctor: Doctor, form: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            doctor.command(*form),
            env=doctor.full_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.stderr == "greend: cannot write: No space left on device\n"
    assert ended.returncode == 1
