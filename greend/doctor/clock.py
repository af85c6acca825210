"""The clocks: intervals are measured by the monotonic one, told by the wall's."""

import ctypes
import time
from collections.abc import Iterator

from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host

LOOK_S = 0.05
COARSE_S = 1e-6
FIRST_YEAR = 2024
# As systemd has it: the kernel's estimate of the error stays at 16 s for as long as
# nobody disciplines the clock. STA_UNSYNC is no sign: chrony may leave it set.
UNSYNCHRONIZED_US = 16_000_000


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """Do they run, alike, and does somebody set the wall's."""
    yield _pace(say)
    if time.gmtime().tm_year < FIRST_YEAR:
        yield say.error(
            f"the wall clock says {time.strftime('%Y-%m-%d')}", "set it: see timedatectl"
        )
    yield _synchronized(say)
    try:
        boot = (host.root / "proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError as error:
        yield say.warning(f"the boot id cannot be read: {error.strerror}", "mount /proc")
    else:
        yield say.ok(f"boot id {boot}")


def _pace(say: Findings) -> Finding:
    resolution = time.get_clock_info("monotonic").resolution
    before = time.monotonic_ns(), time.time_ns()
    time.sleep(LOOK_S)
    monotonic_s, wall_s = (
        (after - begun) / 1e9
        for begun, after in zip(before, (time.monotonic_ns(), time.time_ns()), strict=True)
    )
    if monotonic_s < LOOK_S / 2 or resolution > COARSE_S:
        return say.error(
            f"the monotonic clock advanced by {monotonic_s:.3f} s within {LOOK_S} s"
            f" (resolution {resolution:g} s)",
            "see /sys/devices/system/clocksource/clocksource0/current_clocksource",
        )
    if abs(wall_s - monotonic_s) > LOOK_S / 5:
        return say.warning(
            f"within {monotonic_s:.3f} s the wall clock moved by {wall_s:.3f} s",
            "somebody sets it now: instants are bent, energies are not",
        )
    return say.ok(f"the monotonic clock runs, in steps of {1e9 * resolution:.0f} ns")


class _Timex(ctypes.Structure):
    """The beginning of struct timex (adjtimex(2)), and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # µs
        ("rest", ctypes.c_char * 256),
    )


def _synchronized(say: Findings) -> Finding:
    told = _Timex()  # modes 0: only asks
    if ctypes.CDLL(None).adjtimex(ctypes.byref(told)) < 0:
        return say.info("the kernel does not tell whether the wall clock is synchronized")
    if told.maxerror >= UNSYNCHRONIZED_US:
        return say.warning(
            "nobody synchronizes the wall clock: instants may not agree with other hosts';"
            " energies do not depend on it",
            "run chrony or systemd-timesyncd (`timedatectl set-ntp true`), on the host",
        )
    return say.ok(f"the wall clock is synchronized, to {told.maxerror / 1e3:.1f} ms at worst")
