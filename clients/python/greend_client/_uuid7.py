"""UUIDs of version 7, which sort by the time they were made."""

import os
import time
import uuid
from collections.abc import Callable


def _uuid7() -> uuid.UUID:
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version (RFC 9562, 5.7)
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return uuid.UUID(int=value)


uuid7: Callable[[], uuid.UUID] = getattr(uuid, "uuid7", _uuid7)
"""Make a UUIDv7; Python's own from 3.14 on."""
