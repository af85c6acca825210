"""Where output goes, and what if it cannot."""

import contextlib
import os
import sys
from io import TextIOWrapper

import click


def prepare() -> None:
    """Make both streams such that printing on them fails for want of room alone."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before we began
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack a dash


def give_up() -> None:
    """Drop what is still to be written, which the interpreter would fail to flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(text: str) -> None:
    """Say something on standard error, if anybody hears it."""
    with contextlib.suppress(OSError):
        click.echo(f"greenctl: {text}", err=True)
