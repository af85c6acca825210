"""The systemd service: installed, running, and let at the GPUs."""

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host

UNIT = "greend.service"
PROPERTIES = (
    *("LoadState", "UnitFileState", "ActiveState", "SubState", "Result", "ExecStart"),
    *("DevicePolicy", "DeviceAllow", "ProtectHome"),
)
TIMEOUT_S = 5.0
# What NVML opens; other NVIDIA devices (NVLink, display) it does without.
_NEEDED = {"nvidia", "nvidia-frontend", "nvidiactl", "nvidia-uvm", "nvidia-caps"}
_HOMES = ("/home", "/root", "/run/user")

Properties = Mapping[str, Sequence[str]]


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """The unit as systemd knows it, drop-ins included."""
    unit = _show()
    if isinstance(unit, str):
        yield say.info(unit)
        return
    if unit["LoadState"] != ["loaded"]:
        yield say.info(
            f"{UNIT} is not installed", "sudo greend service install, to measure from boot on"
        )
        return
    yield _state(unit, say)
    yield from _program(unit, say)
    yield from _devices(unit, host.root, say)


def _show() -> Properties | str:
    """The unit's properties, or why there are none."""
    command = ["systemctl", "show", UNIT, f"--property={','.join(PROPERTIES)}"]
    try:
        shown = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        return "no systemd here: something else has to start greend"
    except subprocess.TimeoutExpired:
        return f"systemd does not answer within {TIMEOUT_S:.0f} s"
    if shown.returncode:
        return "systemd does not run here: something else has to start greend"
    properties: dict[str, list[str]] = defaultdict(list)
    for line in shown.stdout.splitlines():
        name, _, value = line.partition("=")
        properties[name].append(value)
    return properties


def _state(unit: Properties, say: Findings) -> Finding:
    enabled, active, sub, result = (
        "".join(unit[name]) for name in ("UnitFileState", "ActiveState", "SubState", "Result")
    )
    found = f"{UNIT} is {enabled or 'not enabled'}, {active} ({sub})"
    if active == "failed" or sub == "auto-restart":
        return say.error(f"{found}: {result}", "see why: journalctl -u greend -n 50")
    if active != "active":
        return say.warning(found, "sudo systemctl enable --now greend")
    if enabled != "enabled":
        return say.info(f"{found}: not started at boot", "sudo systemctl enable greend")
    return say.ok(found)


def _program(unit: Properties, say: Findings) -> Iterator[Finding]:
    for start in unit["ExecStart"]:
        path = re.search(r"path=(.*?) ;", start)
        if path is None:
            continue
        program = Path(path[1])
        try:
            files = _files(program)
        except FileNotFoundError:
            yield say.error(
                f"its program {program} does not exist", "sudo greend service install, again"
            )
        except OSError:
            yield say.info(f"its program {program} is closed to this user")
        else:
            yield _visible(program, files, "".join(unit["ProtectHome"]), say)


def _visible(program: Path, files: Sequence[Path], protection: str, say: Findings) -> Finding:
    hidden = [file for file in files if str(file).startswith(_HOMES)]
    if hidden and protection in ("yes", "tmpfs"):
        return say.error(
            f"its program needs {hidden[0]}, which ProtectHome={protection} hides from it",
            "install greend outside home directories (/opt/greend), then sudo greend service"
            " install",
        )
    return say.ok(f"it runs {program}")


def _files(program: Path) -> list[Path]:
    """The program, its interpreter if it is a script, and where links lead."""
    files = [program]
    with program.open("rb") as opened:
        first = opened.readline(256)
    if first.startswith(b"#!"):
        files.append(Path(first[2:].split()[0].decode()))
    return files + [file.resolve() for file in files]


def _devices(unit: Properties, root: Path, say: Findings) -> Iterator[Finding]:
    policy = "".join(unit["DevicePolicy"])
    allowed = [entry.split()[0] for entry in unit["DeviceAllow"] if entry]
    if policy == "auto" and not allowed:
        return  # everything is
    there = _nvidia_majors(root)
    covered = {
        major
        for name, major in there.items()
        for pattern in allowed
        if fnmatchcase(name, pattern.removeprefix("char-"))
    }
    # Names share majors: what one entry allows, it allows by the number.
    missing = sorted(name for name, major in there.items() if major not in covered)
    if missing:
        yield say.error(
            f"its DeviceAllow does not cover {', '.join(missing)}",
            f"sudo systemctl edit greend: [Service] DeviceAllow=char-{missing[0]} rw",
        )
    elif there:
        yield say.ok(f"its DeviceAllow covers {', '.join(sorted(there))}")


def _nvidia_majors(root: Path) -> dict[str, int]:
    """The kernel's character devices that NVML needs, by name."""
    characters, _, _ = (root / "proc/devices").read_text().partition("Block devices:")
    rows = [line.split() for line in characters.splitlines()]
    return {row[1]: int(row[0]) for row in rows if len(row) == 2 and row[1] in _NEEDED}
