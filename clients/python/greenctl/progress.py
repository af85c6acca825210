"""A progress bar for what takes over a second, on a terminal."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """How far something is: ``done`` of ``total``, None: not known."""

    total: int | None
    done: int = 0


@contextmanager
def after_a_second(what: str, total: int | None = None) -> Iterator[Progress]:
    """Show on standard error how ``what`` goes on, from its second second on.

    Nothing is shown, and rich not imported, where standard error is no terminal.
    """
    progress = Progress(total)
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
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    counted = (MofNCompleteColumn(),) if progress.total is not None else ()
    columns = (TextColumn("{task.description}"), BarColumn(), *counted, TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=progress.total)
        while not ended.wait(0.1):
            bar.update(task, completed=progress.done)
