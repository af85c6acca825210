"""A progress bar for what takes over a second, on a terminal."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


@dataclass(slots=True)
class Progress:
    """How far something is: ``done`` of ``total``, None: not known (yet)."""

    total: int | None
    in_bytes: bool = False
    done: int = 0


@contextmanager
def after_a_second(
    what: str, total: int | None = None, *, in_bytes: bool = False
) -> Iterator[Progress]:
    """Show on standard error how ``what`` goes on, from its second second on.

    Nothing is shown, and rich not imported, where standard error is no terminal.
    """
    progress = Progress(total, in_bytes)
    if not sys.stderr.isatty():
        yield progress
        return
    ended = threading.Event()
    shown = threading.Thread(target=_show, args=(what, progress, ended), daemon=True)
    shown.start()
    try:
        yield progress
    finally:
        ended.set()
        shown.join()


def _show(what: str, progress: Progress, ended: threading.Event) -> None:
    if ended.wait(1):
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as Bar

    counted: list[ProgressColumn] = []
    if progress.in_bytes:
        counted.append(DownloadColumn())
    elif progress.total is not None:
        counted.append(MofNCompleteColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), *counted, TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=progress.total)
        while not ended.wait(0.1):
            bar.update(task, total=progress.total, completed=progress.done)
