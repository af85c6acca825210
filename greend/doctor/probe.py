"""Starts the process that asks the driver, and gives it up when it falls silent."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO

import msgspec

from greenctl.progress import Progress
from greend.doctor.answers import Answer, Answered, Driver, Failed, Library, Opened, Read

# Without persistence mode the driver starts, and each GPU with it, when it is asked.
START_S = 15.0
# A healthy GPU answers within a second or two of the one before it.
SILENCE_S = 5.0
_POLL_S = 0.2
_KILL_S = 1.0


@dataclass(slots=True)
class Probe:
    """All that the driver answered; what is missing was not answered.

    `silent` when it was given up; otherwise `status` is the exit status of the process
    that asked, and `last_words` the last line of its errors.
    """

    library: Library | None = None
    driver: Driver | None = None
    answered: dict[int, Answered] = field(default_factory=dict)
    opened: Opened | None = None
    failed: Failed | None = None
    reads: dict[int, Read] = field(default_factory=dict)
    silent: bool = False
    status: int | None = None
    last_words: str = ""

    def add(self, answer: Answer) -> None:
        """Keeps an answer."""
        match answer:
            case Library():
                self.library = answer
            case Driver():
                self.driver = answer
            case Answered():
                self.answered[answer.index] = answer
            case Opened():
                self.opened = answer
            case Failed():
                self.failed = answer
            case Read():
                self.reads[answer.index] = answer


def probe(seconds: float, progress: Progress) -> Probe:
    """Asks the driver all, and reads the GPUs for so long; never waits for a hung driver."""
    found = Probe()
    decoder = msgspec.json.Decoder(Answer)
    with TemporaryFile() as errors, _asking(seconds, errors) as process:
        for line in _lines(process, found, seconds, progress):
            found.add(decoder.decode(line))
        if not found.silent:
            found.status = process.wait()
            errors.seek(0)
            found.last_words = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    return found


@contextmanager
def _asking(seconds: float, errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "greend.doctor.asking", str(seconds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        # Ctrl-C is for the doctor, which then ends it.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        assert process.stdout is not None
        process.stdout.close()
        process.kill()
        # One that hangs inside the kernel cannot be ended: it is left behind.
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_S)


def _lines(
    process: subprocess.Popen[bytes], found: Probe, seconds: float, progress: Progress
) -> Iterator[bytes]:
    """Its lines, until it ends or, then setting `silent`, says nothing for too long."""
    assert process.stdout is not None
    rest = b""
    since = time.monotonic()
    while not found.silent:
        patience_s = SILENCE_S if found.driver else START_S
        if found.opened:
            patience_s += seconds
            progress.done = min(int(time.monotonic() - since), int(seconds))
        if not select.select([process.stdout], [], [], _POLL_S)[0]:
            found.silent = time.monotonic() - since > patience_s
            continue
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            return
        since = time.monotonic()
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
