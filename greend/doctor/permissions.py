"""Who runs this, and what they may do."""

import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """Both doors, for the user who runs this."""
    if os.geteuid() == 0:
        yield say.ok("run by root, who may do everything")
        return
    user = _user()
    yield say.ok(f"run by {user}, without root: all but setting limits works so")
    groups = host.settings.daemon
    for socket, group, right in (
        ("greend.sock", groups.group, "read and measure"),
        ("control.sock", groups.control_group, "set limits"),
    ):
        yield _door(host.runtime_dir / socket, group, right, user, say)


def _door(socket: Path, group: str, right: str, user: str, say: Findings) -> Finding:
    if os.access(socket, os.R_OK | os.W_OK):
        return say.ok(f"may {right}: {socket}")
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return say.info(f"may not {right}: there is no group {group}")
    if entry.gr_gid in {os.getegid(), *os.getgroups()}:
        return say.ok(f"may {right}: member of {group}")
    if user in entry.gr_mem:
        return say.warning(
            f"may not {right} yet: {user} is in the group {group}, this login is not",
            f"log in again, or `newgrp {group}`",
        )
    return say.info(
        f"may not {right}: not in the group {group}",
        f"sudo usermod -aG {group} {user}, then log in again",
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
