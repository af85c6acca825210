"""A disk of a few MB that only those in a mount namespace of its own see."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHUNK = bytes(1 << 16)


@dataclass(frozen=True)
class SmallDisk:
    """A tmpfs at `path`; `prefix` runs a command where it is."""

    path: Path
    prefix: tuple[str, ...]
    seen_from_here: Path

    def fill(self) -> None:
        """Takes all the room that is left."""
        with (self.seen_from_here / "filler").open("ab", buffering=0) as file:
            for size in (len(CHUNK), 1):
                while True:
                    try:
                        if not file.write(CHUNK[:size]):
                            break
                    except OSError:
                        break

    def free(self) -> None:
        """Gives it back."""
        (self.seen_from_here / "filler").unlink()


@contextmanager
def small_disk(path: Path, size_mib: int) -> Iterator[SmallDisk]:
    """Needs no root: the namespace has users of its own, too."""
    path.mkdir()
    holder = subprocess.Popen(
        [
            *("unshare", "--map-root-user", "--mount", "sh", "-ec"),
            f"mount -t tmpfs -o size={size_mib}m tmpfs '{path}'; echo mounted; exec cat",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            assert holder.stdout.readline() == b"mounted\n"
            enter = (
                "nsenter",
                f"--target={holder.pid}",
                "--user",
                "--mount",
                "--preserve-credentials",
            )
            yield SmallDisk(path, enter, Path(f"/proc/{holder.pid}/root{path}"))
        finally:
            holder.stdin.close()
