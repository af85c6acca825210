"""Forks: senders hold still while the process is forked, and end in the child.

gRPC outlives a fork only where GRPC_ENABLE_FORK_SUPPORT was set before it was first
imported. So this is imported before gRPC, and sets it. Where somebody else was faster, and
calls were made before the fork, no client of the child's sends any: gRPC might hang.
"""

import os
import sys
import weakref
from typing import Protocol


class Forking(Protocol):
    """Who has a thread and a connection."""

    def before_fork(self) -> None:
        """Have no call in flight from here on."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Forget what did not come along."""


PATIENCE_S = 5.0
"""A fork waits this long for a thread to come out of gRPC, as gRPC does for its own."""

_VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"

if "grpc" not in sys.modules:
    os.environ.setdefault(_VARIABLE, "1")
_supported = os.environ.get(_VARIABLE, "").lower() in ("1", "true", "yes")

_ordered = False
_connected = False  # a call was made, in this process or one that it was forked from
_broken = False

_members: "weakref.WeakSet[Forking]" = weakref.WeakSet()


def register(member: Forking) -> None:
    """Tell a member of forks for as long as it lives."""
    _members.add(member)


def _before() -> None:
    for member in list(_members):
        member.before_fork()


def _in_parent() -> None:
    for member in list(_members):
        member.after_fork_in_parent()


def _in_child() -> None:
    global _broken
    _broken = _connected and not _supported
    for member in list(_members):
        member.after_fork_in_child()


def channel_made() -> None:
    """Have members told of forks in time.

    With the first channel gRPC registers its handlers, and whose were registered last are
    called first: a call must not be in flight when gRPC's are.
    """
    global _ordered
    if not _ordered:
        _ordered = True
        os.register_at_fork(before=_before, after_in_parent=_in_parent)


def connected() -> None:
    """Note that a call is made."""
    global _connected
    _connected = True


def broken() -> bool:
    """Whether this is a child in which no call may be made."""
    return _broken


os.register_at_fork(after_in_child=_in_child)
