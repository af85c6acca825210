"""Hosts as checks are given them, for what cannot be had on every machine."""

from pathlib import Path

from greend.config import Settings
from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host
from greend.doctor.probe import Probe
from greend.doctor.run import CHECKS


def findings(
    name: str, root: Path = Path("/"), probe: Probe | None = None, settings: Settings | None = None
) -> list[Finding]:
    """What a check finds on such a host."""
    host = Host(
        settings=settings or Settings(),
        config=None,
        wrong="",
        address="unix:///nowhere",
        environment={},
        seconds=3.0,
        probe=probe or Probe(),
        root=root,
    )
    return list(CHECKS[name](host, Findings(name)))


def only(found: list[Finding], words: str) -> Finding:
    """The one finding with these words."""
    (one,) = (finding for finding in found if words in finding.found)
    return one
