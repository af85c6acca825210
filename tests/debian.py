"""Programs of Debian for tests: unpacked into a cache where they are not installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "greend-tests"


def unpacked(package: str, cache: Path = CACHE) -> Path:
    """The tree of a package and of what it needs that is not installed.

    Changes nothing outside `cache`, needs no root. Skips the test on systems without apt-get.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip(f"no {package} here, and no apt-get to fetch Debian's package with")
    tree = cache / package
    if not tree.exists():
        _unpack(package, cache, tree)
    return tree


def _unpack(package: str, cache: Path, tree: Path) -> None:
    work = cache / f"work-{os.getpid()}"
    lists, archives = work / "lists", work / "archives"
    for directory in (lists / "partial", archives / "partial"):
        directory.mkdir(parents=True)
    # Lists of its own: the system's may be missing, and belong to root.
    apt = ["apt-get", "-q", "-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={work}"]
    apt += ["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1"]
    fetch = ["install", "--download-only", "--reinstall", "--no-install-recommends", "--yes"]
    try:
        _run([*apt, "update"], work)
        _run([*apt, *fetch, package], work)
        for archive in sorted(archives.glob("*.deb")):
            _run(["dpkg", "-x", str(archive), str(work / "tree")], work)
        try:
            (work / "tree").rename(tree)
        except OSError:
            assert tree.exists(), "neither this process nor another could unpack it"
    finally:
        shutil.rmtree(work)


def _run(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
