"""The command line: what can be asked, and how errors end.

greend_client and rich are imported where they are used: ``--version``, ``--help``
and mistakes are answered without them.
"""

import importlib.metadata
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from greend_client import Client
    from greend_proto.v1 import metering_pb2, types_pb2

_MOST_IN_A_PAGE = 1000


def main() -> None:
    """Run the command; ends the process with 0, 1 (failed), 2 (usage) or 130 (Ctrl-C)."""
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:  # whoever read our output has seen enough
        # Or the interpreter would fail to flush it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        import greend_client

        if not isinstance(error, greend_client.GreendError):
            raise
        click.echo(f"greenctl: {error}", err=True)
        code = 1
    sys.exit(code)


def _version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        try:
            version = importlib.metadata.version("greend")
        except importlib.metadata.PackageNotFoundError:
            version = "of a source tree that is not installed"
        click.echo(f"greenctl {version}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
@click.option("--address", metavar="ADDRESS", help="The daemon's socket [GREEND_ADDRESS].")
@click.pass_context
def cli(context: click.Context, address: str | None) -> None:
    """Ask the greend daemon what it measured, and how it is."""
    context.obj = address


def _reading(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every command has: --json and --address."""
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(
        command
    )
    return click.option("--address", metavar="ADDRESS", help="The daemon's socket.")(command)


def _client(address: str | None) -> "Client":
    from greend_client import Client

    return Client(address or click.get_current_context().find_root().obj)


def _print_json(message: "Message") -> None:
    from greenctl.documents import document

    click.echo(document(message))


@cli.command()
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait this long for the daemon to serve.",
)
@_reading
def status(wait_s: float | None, as_json: bool, address: str | None) -> None:
    """Show how the daemon is. Exits 0 when it serves, else 1."""
    with _client(address) as client:
        answer = _status(client, wait_s)
        if as_json:
            _print_json(answer)
            return
        from greenctl.details import status_lines
        from greend_client import Status

        for line in status_lines(Status.from_message(answer), client.address):
            click.echo(line)


def _status(client: "Client", wait_s: float | None) -> "metering_pb2.GetStatusResponse":
    from greend_client import GreendError
    from greend_proto.v1 import metering_pb2

    request = metering_pb2.GetStatusRequest()
    deadline = time.monotonic() + (wait_s or 0)
    while True:
        rest = deadline - time.monotonic()
        try:
            if rest <= 0:
                return client.call(client.stub.GetStatus, request)
            return client.call(
                client.stub.GetStatus, request, timeout_s=min(rest, 0.5), wait_for_daemon=True
            )
        except GreendError as error:
            # Not there yet, or it goes down and comes back. The last try is one
            # without waiting: its error says what is wrong.
            if rest <= 0 or error.code.name not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise
            if error.code.name == "UNAVAILABLE":
                time.sleep(min(rest, 0.05))


@cli.command()
@_reading
def devices(as_json: bool, address: str | None) -> None:
    """Show the GPUs and how they are."""
    with _client(address) as client:
        from greend_client import Device
        from greend_proto.v1 import metering_pb2

        answer = client.call(client.stub.ListDevices, metering_pb2.ListDevicesRequest())
        if as_json:
            _print_json(answer)
            return
        found = [Device.from_message(device) for device in answer.devices]
        if not found:
            click.echo("No devices. `greenctl status` says whether the driver answers.")
            return
        from greenctl import tables

        tables.show(tables.device_columns(found), tables.device_notes(found))


def _tag(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> Any:
    pairs = [tag.partition("=") for tag in given]
    if not all(key and equals for key, equals, _ in pairs):
        raise click.BadParameter("write KEY=VALUE")
    return {key: value for key, _, value in pairs}


_SINCE = click.option("--since", metavar="WHEN", help='"24h", "30m", "7d" ago, or a date-time.')
_UNTIL = click.option("--until", metavar="WHEN", help="In the same forms; by default now.")
_DEVICE = click.option(
    "--device",
    "device",
    multiple=True,
    metavar="GPU",
    help="Index, UUID or its beginning. Repeatable.",
)


@cli.command()
@_SINCE
@_UNTIL
@click.option("--tag", multiple=True, callback=_tag, metavar="KEY=VALUE", help="Repeatable.")
@click.option("--request-id", metavar="ID", help="The caller's name for the request.")
@_DEVICE
@click.option(
    "--state",
    multiple=True,
    type=click.Choice(["open", "stopped", "final"]),
    help="Repeatable.",
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@_reading
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
    with _client(address) as client:
        chosen = client.window_filter(since, until, request_id, device or None, state)
        chosen.tags.update(tag)
        answer = _list_windows(client, chosen, limit)
        if as_json:
            _print_json(answer)
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
    """Return at most ``limit`` windows, of several pages if need be, as one page."""
    from greend_proto.v1 import metering_pb2

    answer = metering_pb2.ListWindowsResponse()
    while True:
        request = metering_pb2.ListWindowsRequest(
            filter=chosen,
            page_size=min(_MOST_IN_A_PAGE, limit - len(answer.windows)),
            page_token=answer.next_page_token,
        )
        page = client.call(client.stub.ListWindows, request)
        answer.windows.extend(page.windows)
        answer.next_page_token = page.next_page_token
        if not page.next_page_token or len(answer.windows) >= limit:
            return answer


@cli.command()
@click.argument("window_id", metavar="ID")
@_reading
def window(window_id: str, as_json: bool, address: str | None) -> None:
    """Show one window in full.

    ID is its id, or the beginning or end of it that the table shows, looked for
    among the newest 1000 windows.
    """
    with _client(address) as client:
        answer = _one_window(client, window_id)
        if as_json:
            _print_json(answer)
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


@cli.command()
@_SINCE
@_UNTIL
@_DEVICE
@_reading
def ledger(
    since: str | None,
    until: str | None,
    device: tuple[str, ...],
    as_json: bool,
    address: str | None,
) -> None:
    """Show where every measured joule went, device by device."""
    with _client(address) as client:
        request = client.ledger_request(since, until, device or None)
        answer = client.call(client.stub.GetLedger, request)
        if as_json:
            _print_json(answer)
            return
        from greend_client import LedgerRow

        rows = [LedgerRow.from_message(row) for row in answer.rows]
        if not rows:
            click.echo("Nothing was measured in that time.")
            return
        from greenctl import tables

        tables.show(tables.ledger_columns(rows), tables.ledger_notes(rows))
