"""What the doctor says of the service; `systemctl` is a stand-in that prints as it does."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from greend.doctor.finding import Finding, Level
from tests.doctor.hosts import findings, only

DEVICES = """\
Character devices:
  1 mem
195 nvidia
195 nvidia-modeset
195 nvidiactl
234 nvidia-nvswitch
235 nvidia-caps
508 nvidia-uvm

Block devices:
195 nvidia-caps
"""
ALL = ("char-nvidia", "char-nvidia-uvm", "char-nvidia-caps")

Show = Callable[..., list[Finding]]


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Show:
    """Runs the check where systemd shows these properties of the unit."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/devices").write_text(DEVICES)
    program = tmp_path / "greend"
    program.write_text(f"#!{sys.executable}\n")

    def run(*, status: int = 0, allow: tuple[str, ...] = ALL, **changes: str) -> list[Finding]:
        properties = {
            "LoadState": "loaded",
            "UnitFileState": "enabled",
            "ActiveState": "active",
            "SubState": "running",
            "Result": "success",
            "ExecStart": f"{{ path={program} ; argv[]={program} serve ; ignore_errors=no ;"
            " start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }",
            "DevicePolicy": "closed",
            "ProtectHome": "no",
        } | changes
        lines = [f"{name}={text}" for name, text in properties.items()]
        lines += [f"DeviceAllow={entry} rw" for entry in allow]
        stand_in = tmp_path / "bin/systemctl"
        stand_in.parent.mkdir(exist_ok=True)
        (tmp_path / "shown").write_text("\n".join(lines) + "\n")
        stand_in.write_text(
            f'#!/bin/sh\n[ "$1 $2" = "show greend.service" ] && cat {tmp_path}/shown\n'
            f"exit {status}\n"
        )
        stand_in.chmod(0o755)
        monkeypatch.setenv("PATH", f"{stand_in.parent}:/usr/bin:/bin")
        return findings("service", tmp_path)

    return run


def test_a_service_that_runs_is_fine(show: Show) -> None:
    found = show()
    assert {finding.level for finding in found} == {Level.OK}
    assert only(found, "greend.service is enabled, active (running)")
    assert only(found, "covers nvidia, nvidia-caps, nvidia-uvm, nvidiactl")


@pytest.mark.parametrize(
    ("changes", "level", "words", "remedy"),
    [
        ({"LoadState": "not-found"}, "info", "is not installed", "service install"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "warning", "inactive", "enable --now"),
        ({"ActiveState": "failed", "Result": "exit-code"}, "error", "exit-code", "journalctl"),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "Result": "watchdog"},
            *("error", "watchdog", "journalctl"),
        ),
        ({"UnitFileState": "disabled"}, "info", "not started at boot", "enable greend"),
        (
            {"ExecStart": "{ path=/nowhere/greend ; argv[]=/nowhere/greend serve ; }"},
            *("error", "/nowhere/greend does not exist", "service install"),
        ),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(
    show: Show, changes: dict[str, str], level: str, words: str, remedy: str
) -> None:
    found = only(show(**changes), words)
    assert found.level == level
    assert remedy in found.remedy


def test_devices_that_the_sandbox_lacks_are_named(show: Show) -> None:
    missing = only(show(allow=("char-nvidia", "char-nvidia-uvm")), "does not cover nvidia-caps")
    assert missing.level is Level.ERROR
    assert "DeviceAllow=char-nvidia-caps rw" in missing.remedy
    # The same major number has several names, and patterns are allowed.
    assert only(show(allow=("char-nvidia*",)), "covers").level is Level.OK
    assert only(show(allow=("/dev/null",)), "nvidiactl").level is Level.ERROR
    assert not any(
        "DeviceAllow" in finding.found for finding in show(allow=(), DevicePolicy="auto")
    )


def test_a_program_that_the_sandbox_hides_is_an_error(
    show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from greend.doctor import service

    monkeypatch.setattr(service, "_HOMES", (str(tmp_path),))
    hidden = only(show(ProtectHome="yes"), "ProtectHome=yes hides from it")
    assert hidden.level is Level.ERROR
    assert "/opt" in hidden.remedy
    assert only(show(ProtectHome="read-only"), "it runs").level is Level.OK


def test_without_systemd_something_else_has_to_start_it(
    show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(show(status=1), "systemd does not run here").level is Level.INFO
    monkeypatch.setenv("PATH", "/nowhere")
    assert only(findings("service"), "no systemd here").level is Level.INFO
