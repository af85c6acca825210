"""UUIDs of version 7 (RFC 9562, 5.7), which sort by the time they were made.

In two steps: a number is drawn and the clock read when one is needed, which is all that
costs its maker anything; its text is made of both when somebody wants it.
"""

import itertools
import os
import secrets
from collections.abc import Callable

_Draw = Callable[[], int]


def _numbers() -> _Draw:
    # From a random one on, so that no two processes draw the same; a bit less than there
    # is room for, so that they do not run over.
    return itertools.count(secrets.randbits(61)).__next__


draw: _Draw = _numbers()
"""Draws a number that no other UUID has; atomic. Look it up anew: a fork changes it."""


def _forked() -> None:
    global draw
    draw = _numbers()


os.register_at_fork(after_in_child=_forked)


def text(number: int, made_unix_ns: int) -> str:
    """Return the UUID that has a number that was drawn, and when it was made."""
    milliseconds, rest_ns = divmod(made_unix_ns, 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000  # RFC 9562, 6.2, method 3
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | number
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
