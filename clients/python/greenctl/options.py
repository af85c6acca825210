"""What commands have in common: options, the client, JSON."""

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from greend_client import Client


_LONGEST_PATH_BYTES = 107

ADDRESS = click.option("--address", metavar="ADDRESS", help="The daemon's socket.")


def reading(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every command has: --json and --address."""
    return ADDRESS(
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
    )


CONTROL_ADDRESS = click.option(
    "--control-address",
    metavar="ADDRESS",
    help="The control socket [GREEND_CONTROL_ADDRESS, or control.sock beside the other].",
)


def open_client(address: str | None, control_address: str | None = None) -> "Client":
    """Return a client for the address given behind the command, before it, or nowhere."""
    from greend_client import Client

    address = address or click.get_current_context().find_root().obj
    _check(address or os.environ.get("GREEND_ADDRESS") or "")
    return Client(address, control_address)


def _check(address: str) -> None:
    """Say in a line what gRPC would say in many lines of its own log; raises GreendError."""
    import grpc

    from greend_client import GreendError

    path = address.removeprefix("unix:").removeprefix("//")
    absolute = path.startswith("/") or not address.startswith("unix://")
    if address.startswith("unix:") and not (
        path and absolute and len(os.fsencode(path)) <= _LONGEST_PATH_BYTES
    ):
        raise GreendError(
            f'the address "{address[:80]}" is no socket\'s: write unix:// and an absolute path of'
            f" at most {_LONGEST_PATH_BYTES} bytes, as in unix:///run/greend/greend.sock",
            grpc.StatusCode.INVALID_ARGUMENT,
        )


def print_json(message: "Message") -> None:
    """Print a message as one JSON document."""
    from greenctl.documents import document

    click.echo(document(message))


def _tag(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> Any:
    pairs = [tag.partition("=") for tag in given]
    if not all(key and equals for key, equals, _ in pairs):
        raise click.BadParameter("write KEY=VALUE")
    return {key: value for key, _, value in pairs}


SINCE = click.option("--since", metavar="WHEN", help='"24h", "30m", "7d" ago, or a date-time.')
UNTIL = click.option("--until", metavar="WHEN", help="In the same forms; by default now.")
TAG = click.option("--tag", multiple=True, callback=_tag, metavar="KEY=VALUE", help="Repeatable.")
REQUEST_ID = click.option("--request-id", metavar="ID", help="The caller's name for the request.")
DEVICE = click.option(
    "--device",
    "device",
    multiple=True,
    metavar="GPU",
    help="Index, UUID or its beginning. Repeatable.",
)


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def length_s(text: str) -> float:
    """Return the seconds of "30s", "1h", or of a bare figure; raises BadParameter."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip())
    if parts is None:
        raise click.BadParameter(f'"{text}" is no length of time: write "30s", "15m" or "1h"')
    return float(parts[1]) * _SECONDS[parts[2]]
