"""Each GPU's energy counter: does it count what the power sensor says."""

from collections.abc import Iterator

from greend.doctor.answers import Read
from greend.doctor.comparison import Comparison, compare
from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host
from greend.model import DeviceInfo

# The sensor sees a part of the time only, and a board's gain may be 5 % off (FACTS.md).
RESIDUAL = 0.10
# No GPU draws more, by far, than it is allowed to.
ABSURD = 2.0
# Counters step every 10 to 106 ms; so many steps make the ends of the span unimportant.
STEPS, STILL_S = 5, 1.0

_RESET = "load the driver again or reset the GPU; until then greend's figures for it are wrong"


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """Compares what was read of each GPU."""
    opened = host.probe.opened
    for info in opened.devices if opened else ():
        read = host.probe.reads.get(info.index)
        gpu = f"GPU {info.index}"
        if read is None:
            yield say.error(
                f"{gpu} hung while it was read", "see `sudo dmesg`; often a reset helps"
            )
        elif read.lost:
            yield say.error(f"{gpu} was lost while it was read: {read.lost}", "see `sudo dmesg`")
        elif not info.capabilities.energy_counter or not read.readings:
            yield say.info(f"{gpu} has no counter to compare")
        else:
            yield _judge(gpu, info, read, say)


def _judge(gpu: str, info: DeviceInfo, read: Read, say: Findings) -> Finding:
    seen = compare(read.readings)
    if seen.back:
        return say.error(f"{gpu}: the counter went back", _RESET)
    if seen.still_s >= max(STILL_S, 5 * (seen.step_s or 0)):
        return _still(gpu, seen, say)
    if seen.steps < STEPS:
        return say.info(
            f"{gpu}: the counter stepped {seen.steps} times in this short time: not compared",
            "read longer: greend doctor --seconds 5",
        )
    found = f"{gpu}: counted {seen.counted_j:.1f} J in {seen.span_s:.2f} s"
    step = f"the counter steps every {1e3 * (seen.step_s or 0):.0f} ms"
    if seen.counted_j / seen.span_s > ABSURD * (info.limits.power_limit_mw or 1_000_000) / 1e3:
        return say.error(f"{found}, more than the GPU can draw; {step}", _RESET)
    if seen.residual is None:
        return say.info(f"{found}; no power is told to compare it with; {step}")
    percent = round(100 * seen.residual, 1) + 0.0  # -0.0 becomes 0.0
    found += f", power adds up to {seen.integrated_j:.1f} J ({percent:+.1f} %); {step}"
    if abs(seen.residual) <= RESIDUAL:
        return say.ok(found)
    return say.warning(
        found,
        "repeat it while the load is steady, or longer (--seconds 30): the power sensor sees"
        " a part of the time only, and both differ where power changes quickly. If they differ"
        " at rest, too, compare with a wall meter (docs/checking.md)",
    )


def _still(gpu: str, seen: Comparison, say: Findings) -> Finding:
    found = f"{gpu}: the counter has stood still for {seen.still_s:.1f} s"
    if not seen.mean_power_w:
        return say.warning(f"{found}; no power is told", "see `nvidia-smi -q -d POWER`")
    return say.error(f"{found} at {seen.mean_power_w:.0f} W", _RESET)
