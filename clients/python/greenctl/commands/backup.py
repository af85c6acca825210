"""A copy of everything that is kept, while the daemon runs."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from greenctl.options import open_client, reading
from greenctl.progress import after_a_second

if TYPE_CHECKING:
    from greend_client import Client

_MAGIC = b"SQLite format 3\0"


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@reading
def backup(file: Path, force: bool, as_json: bool, address: str | None) -> None:
    """Copy the database of the running daemon to FILE, or to standard output (-).

    FILE is as of one instant, was checked, and has its name only when it is whole.
    To go back to it: stop greend, remove greend.db, greend.db-wal and greend.db-shm
    from its state directory, put FILE there as greend.db, start greend.
    """
    if file == Path("-"):
        if as_json or sys.stdout.isatty():
            raise click.UsageError("- is for the database itself, in a pipe or a file")
        with open_client(address) as client:
            _receive(client, sys.stdout.buffer)
        return
    if file.exists() and not file.is_file():
        # Renamed to it, the copy would take a device's or a pipe's place.
        raise click.UsageError(f"{file} is no file: choose another name, or write - into a pipe")
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists: choose another name, or add --force")
    from greenctl.partial import written

    with open_client(address) as client, written(file) as part:
        size = _receive(client, part)
        part.flush()
        with after_a_second("Checking the copy"):
            windows = _check(Path(part.name))
    if as_json:
        import json

        document = {"path": str(file), "bytes": size, "windows": windows}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from greenctl.formats import count

    click.echo(f"Wrote {file}: {count(windows, 'window')}, {size / 1e6:.1f} MB.")


def _receive(client: "Client", target: BinaryIO) -> int:
    """Write what the daemon sends; return its length."""
    from greend_proto.v1 import metering_pb2

    request = metering_pb2.BackupRequest()
    with (
        after_a_second("Copying", in_bytes=True) as progress,
        client.stream(client.stub.Backup, request, lambda message: message) as chunks,
    ):
        for chunk in chunks:
            if not progress.done:
                progress.total = chunk.total_bytes
                if not chunk.data.startswith(_MAGIC):
                    raise _damaged("it does not begin as a database")
            target.write(chunk.data)
            progress.done += len(chunk.data)
    if not progress.done:
        raise _damaged("nothing came")
    if progress.done != progress.total:
        raise _damaged(f"{progress.done} of {progress.total} bytes came")
    return progress.done


def _check(copy: Path) -> int:
    """Return how many windows are in it."""
    import sqlite3

    try:
        with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            (windows,) = database.execute("SELECT count(*) FROM windows").fetchone()
    except sqlite3.DatabaseError as error:
        raise _damaged(str(error)) from error
    if verdict != "ok":
        raise _damaged(verdict)
    return int(windows)


def _damaged(why: str) -> Exception:
    from greend_client import GreendError

    return GreendError(f"the copy is damaged ({why}): try again")
