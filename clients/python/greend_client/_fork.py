"""Forks: senders hold still while the process is forked, and end in the child."""

import os
import weakref
from functools import cache
from typing import Protocol


class Forking(Protocol):
    """Who has a thread and a connection."""

    def before_fork(self) -> None:
        """Have no call in flight from here on."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Forget what did not come along."""


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
    for member in list(_members):
        member.after_fork_in_child()


@cache
def connected() -> None:
    """Note that there is a channel.

    With the first one gRPC registers its handlers, and whose were registered last are
    called first: a call must not be in flight when gRPC's are.
    """
    os.register_at_fork(before=_before, after_in_parent=_in_parent)


os.register_at_fork(after_in_child=_in_child)
