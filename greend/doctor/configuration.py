"""The configuration: does it hold, and where does it come from."""

from collections.abc import Iterator

from greend.config import DEFAULT_FILE, variables
from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """The file, the environment."""
    if host.wrong:
        yield say.error(
            host.wrong.removeprefix("configuration: "),
            "correct it: greend serve refuses it; what follows was checked with the defaults",
        )
        return
    file = host.config or DEFAULT_FILE
    if file.exists():
        yield say.ok(f"{file} holds")
    else:
        yield say.ok(f"no file {file}: the defaults hold")
    if given := sorted(variables().keys() & host.environment.keys()):
        yield say.info(f"the environment sets {', '.join(given)}, here at least")
