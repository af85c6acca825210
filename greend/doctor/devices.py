"""Each GPU: what it can tell, and what greend makes of it."""

from collections.abc import Iterator

from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host
from greend.model import DeviceInfo


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """All that greend's own driver module found."""
    answers = host.probe
    driver = answers.driver
    if answers.opened is None:
        if driver is None or driver.result or answers.failed:
            return
        if len(answers.answered) < driver.gpu_count:
            yield say.info("not looked at, because a GPU hangs")
        elif answers.silent:
            yield say.error("finding out what the GPUs can do hangs", "see `sudo dmesg`")
        return
    for info in answers.opened.devices:
        yield from _device(info, say)
    if not any(answer.error for answer in answers.answered.values()):
        for reason in answers.opened.missing:
            yield say.error(reason, "see `sudo dmesg`; the daemon tries again every 5 s")


def _device(info: DeviceInfo, say: Findings) -> Iterator[Finding]:
    able = info.capabilities
    gpu = f"GPU {info.index}, {info.name} ({info.uuid[:12]})"
    tells = [name for name in ("power", "utilization", "clocks") if getattr(able, name)]
    also = f"; tells {', '.join(tells)}" if tells else ""
    if able.energy_counter:
        yield say.ok(f"{gpu}: energy by its counter{also}")
    elif able.power:
        yield say.info(
            f"{gpu}: no energy counter, so that its power is added up: less exact for windows"
            f" under a second (flag power_integrated){also}"
        )
    else:
        yield say.error(
            f"{gpu} tells neither energy nor power: nothing can be measured",
            "a newer driver may tell them; a virtual GPU's host has to let them through",
        )
    if able.energy_scope == "module":
        yield say.info(f"GPU {info.index}: its counter may cover the whole module, CPU included")
    if able.mig:
        yield say.info(
            f"GPU {info.index}: MIG is on; energy is the whole card's, and windows on its"
            f" instances ({len(info.instances)} now) share by compute slices; no utilization is"
            " told"
        )
    elif not able.utilization:
        yield say.info(
            f"GPU {info.index} tells no utilization: its floor is learned without it, and work"
            " that no window covers may be taken for the floor"
        )
