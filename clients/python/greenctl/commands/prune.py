"""Deleting history."""

import sys
from typing import TYPE_CHECKING

import click

from greenctl.options import (
    CONTROL_ADDRESS,
    DEVICE,
    REQUEST_ID,
    TAG,
    open_client,
    print_json,
    reading,
)
from greenctl.progress import after_a_second

if TYPE_CHECKING:
    from greend_client import Client
    from greend_proto.v1 import admin_pb2

_TIME = '"30d" (that long ago) or a date-time.'


@click.command()
@click.option("--before", metavar="WHEN", help=f"Windows that started before it: {_TIME}")
@click.option("--since", metavar="WHEN", help="Windows that started at or after it.")
@TAG
@REQUEST_ID
@DEVICE
@click.option(
    "--minutes",
    is_flag=True,
    help="The ledger's minutes of that time, too; the last 15 stay.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@CONTROL_ADDRESS
@reading
def prune(
    before: str | None,
    since: str | None,
    tag: dict[str, str],
    request_id: str | None,
    device: tuple[str, ...],
    minutes: bool,
    dry_run: bool,
    yes: bool,
    control_address: str | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Delete windows that meet all conditions; those that are not final stay.

    Asks first. Through the control socket, for members of its group. What becomes
    free in the database is used again; the file does not shrink.
    """
    if not (before or since or tag or request_id is not None or device):
        raise click.UsageError(
            "say which windows: at least one of --before, --since, --tag, --request-id, --device"
        )
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("there is nobody to ask on a terminal: add --yes or --dry-run")
    with open_client(address, control_address) as client:
        from greend_proto.v1 import admin_pb2

        chosen = client.window_filter(since, before, request_id, device or None)
        chosen.tags.update(tag)
        request = admin_pb2.PruneWindowsRequest(filter=chosen, minutes=minutes)
        answer = _look(client, request)
        there = bool(answer.matching_windows or answer.matching_minutes)
        if not dry_run and there:
            if not yes and not click.confirm(f"Delete {_what(answer)}?", err=True):
                click.echo("Nothing was deleted.", err=True)
                click.get_current_context().exit(1)
            # Just what was asked about.
            request.filter.until_unix_ns = answer.until_unix_ns
            answer = _delete(client, request, answer)
        if as_json:
            print_json(answer)
        elif not there:
            click.echo("No such windows that are final.")
        elif dry_run:
            click.echo(f"Would delete {_what(answer)}.")
        else:
            click.echo(f"Deleted {_deleted(answer)}.")


def _look(
    client: "Client", request: "admin_pb2.PruneWindowsRequest"
) -> "admin_pb2.PruneWindowsResponse":
    from greend_proto.v1 import admin_pb2

    look = admin_pb2.PruneWindowsRequest(
        filter=request.filter, minutes=request.minutes, dry_run=True
    )
    stub = client.control.admin
    with (
        after_a_second("Counting windows"),
        client.control.stream(stub.PruneWindows, look, lambda message: message) as told,
    ):
        return next(told)


def _delete(
    client: "Client",
    request: "admin_pb2.PruneWindowsRequest",
    answer: "admin_pb2.PruneWindowsResponse",
) -> "admin_pb2.PruneWindowsResponse":
    total = answer.matching_windows + answer.matching_minutes
    stub = client.control.admin
    try:
        with (
            after_a_second("Deleting", total) as progress,
            client.control.stream(stub.PruneWindows, request, lambda message: message) as told,
        ):
            for answer in told:
                progress.done = answer.deleted_windows + answer.deleted_minutes
    except KeyboardInterrupt:
        click.echo(f"\ngreenctl: stopped after at least {_deleted(answer)}", err=True)
        raise
    return answer


def _what(answer: "admin_pb2.PruneWindowsResponse") -> str:
    from greenctl.formats import count, minute

    parts = []
    if answer.matching_windows:
        first, last = answer.first_start_unix_ns, answer.last_start_unix_ns
        parts.append(
            f"{count(answer.matching_windows, 'window')} from {minute(first)} to {minute(last)}"
        )
    if answer.matching_minutes:
        parts.append(f"{count(answer.matching_minutes, 'minute')} of the ledger")
    return " and ".join(parts)


def _deleted(answer: "admin_pb2.PruneWindowsResponse") -> str:
    from greenctl.formats import count

    windows = count(answer.deleted_windows, "window")
    if not answer.matching_minutes:
        return windows
    return f"{windows} and {count(answer.deleted_minutes, 'minute')} of the ledger"
