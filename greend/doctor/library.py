"""The library that speaks to the driver: nvidia-ml-py, whose module is `pynvml`."""

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from greend.doctor.finding import Finding, Findings
from greend.doctor.host import Host

PACKAGE, MODULE = "nvidia-ml-py", "pynvml"
_PIP = f"{sys.executable} -m pip"


def check(host: Host, say: Findings) -> Iterator[Finding]:
    """Is it there, is it itself, and does it work."""
    package = _find(PACKAGE)
    if package is None:
        yield say.error(f"{PACKAGE} is not installed", f"{_PIP} install {PACKAGE}")
        return
    yield say.ok(f"{PACKAGE} {package.version}")
    yield from _shadow(package, say)
    failed = host.probe.failed
    if failed is not None:
        yield say.error(
            f"greend cannot use the driver through it: {failed.error}",
            f"try a newer one: {_PIP} install --upgrade {PACKAGE}",
        )


def _shadow(package: Distribution, say: Findings) -> Iterator[Finding]:
    spec = find_spec(MODULE)
    origin = Path(spec.origin or "") if spec else None
    own = {Path(str(package.locate_file(file))) for file in package.files or ()}
    shim = _find(MODULE)
    if origin not in own:
        where = f"from {origin}" if origin else "nowhere"
        yield say.error(
            f"the module {MODULE} comes {where}, not from {PACKAGE}",
            f"{_PIP} uninstall --yes {MODULE} && {_PIP} install --force-reinstall {PACKAGE}",
        )
    elif shim is not None:
        yield say.info(
            f"the deprecated package {MODULE} {shim.version} is installed, too; it does no harm"
            " now, older ones replace the module",
            f"{_PIP} uninstall --yes {MODULE} && {_PIP} install --force-reinstall {PACKAGE}",
        )


def _find(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
