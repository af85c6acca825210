"""Windows of the past and the present."""

from typing import TYPE_CHECKING

import click

from greenctl.options import DEVICE, REQUEST_ID, SINCE, TAG, UNTIL, open_client, print_json, reading
from greenctl.progress import after_a_second

if TYPE_CHECKING:
    from greend_client import Client
    from greend_proto.v1 import metering_pb2, types_pb2

_MOST_IN_A_PAGE = 1000


@click.command()
@SINCE
@UNTIL
@TAG
@REQUEST_ID
@DEVICE
@click.option(
    "--state",
    multiple=True,
    type=click.Choice(["open", "stopped", "final"]),
    help="Repeatable.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="At most this many; 0: all.",
)
@reading
def windows(
    since: str | None,
    until: str | None,
    tag: dict[str, str],
    request_id: str | None,
    device: tuple[str, ...],
    state: tuple[str, ...],
    limit: int,
    as_json: bool,
    address: str | None,
) -> None:
    """Show windows, usually requests, newest first."""
    with open_client(address) as client:
        chosen = client.window_filter(since, until, request_id, device or None, state)
        chosen.tags.update(tag)
        answer = _list_windows(client, chosen, limit)
        if as_json:
            print_json(answer)
            return
        from greend_client import WindowResult

        found = [WindowResult.from_message(window) for window in answer.windows]
        if not found:
            click.echo("No windows.")
            return
        from greenctl import tables

        notes = tables.window_notes(found)
        if answer.next_page_token:
            notes.append(f"There are more than these {len(found)}: see --limit and --since.")
        tables.show(tables.window_columns(found), notes)


def _list_windows(
    client: "Client", chosen: "types_pb2.WindowFilter", limit: int
) -> "metering_pb2.ListWindowsResponse":
    """Return at most ``limit`` windows (0: all), of several pages if need be, as one page."""
    from greend_proto.v1 import metering_pb2

    answer = metering_pb2.ListWindowsResponse()
    with after_a_second("Reading windows", limit or None) as progress:
        while True:
            rest = limit - len(answer.windows) if limit else _MOST_IN_A_PAGE
            request = metering_pb2.ListWindowsRequest(
                filter=chosen,
                page_size=min(_MOST_IN_A_PAGE, rest),
                page_token=answer.next_page_token,
            )
            page = client.call(client.stub.ListWindows, request)
            answer.windows.extend(page.windows)
            answer.next_page_token = page.next_page_token
            progress.done = len(answer.windows)
            if not page.next_page_token or len(answer.windows) == limit:
                return answer


@click.command()
@click.argument("window_id", metavar="ID")
@reading
def window(window_id: str, as_json: bool, address: str | None) -> None:
    """Show one window in full.

    ID is its id, or the beginning or end of it that the table shows, looked for
    among the newest 1000 windows.
    """
    with open_client(address) as client:
        answer = _one_window(client, window_id)
        if as_json:
            print_json(answer)
            return
        from greenctl.details import window_lines
        from greend_client import WindowResult

        for line in window_lines(WindowResult.from_message(answer)):
            click.echo(line)


def _one_window(client: "Client", window_id: str) -> "types_pb2.Window":
    from greend_client import GreendError
    from greend_proto.v1 import metering_pb2, types_pb2

    part = window_id.strip("…")
    if len(part) < 36:  # of a UUID
        newest = _list_windows(client, types_pb2.WindowFilter(), _MOST_IN_A_PAGE).windows
        found = [w for w in newest if w.window_id.startswith(part) or w.window_id.endswith(part)]
        if len(found) != 1:
            several = "begin or end so" if found else "begins or ends so"
            raise GreendError(
                f'{len(found) or "none"} of the newest windows {several} ("{part}"); '
                "give the whole id (`greenctl windows --json` shows it)"
            )
        part = found[0].window_id
    return client.call(client.stub.GetWindow, metering_pb2.GetWindowRequest(window_id=part))
