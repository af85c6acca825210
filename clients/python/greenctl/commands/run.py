"""A command, measured."""

import logging
import os
import sys
import time
from typing import IO, TYPE_CHECKING, Any

import click

from greenctl.options import ADDRESS, REQUEST_ID, TAG, open_client
from greenctl.output import warn

if TYPE_CHECKING:
    from greend_client import Client, Window

_RESULT_S = 10.0
_SHOWN_S = 1.0


def _gpus(context: click.Context, parameter: click.Parameter, given: str) -> str | list[str]:
    return given if given == "auto" else [gpu.strip() for gpu in given.split(",")]


@click.command(context_settings={"allow_interspersed_args": False})
@TAG
@REQUEST_ID
@click.option(
    "--gpus",
    default="auto",
    callback=_gpus,
    metavar="GPUS",
    help='Indices or UUIDs (MIG instances\', too) with commas between; "auto" (default): those it'
    " can see.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard error.")
@click.option("--output", type=click.File("w", lazy=False), help="Write the result as JSON there.")
@ADDRESS
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD ARGS")
@click.pass_context
def run(
    context: click.Context,
    tag: dict[str, str],
    request_id: str | None,
    gpus: str | list[str],
    as_json: bool,
    output: IO[str] | None,
    address: str | None,
    command: tuple[str, ...],
) -> None:
    """Run a command and say what energy it used.

    Its windows become parts of this one. The exit code is the command's: 128+N where
    signal N ended it, 127 not found, 126 not executable. Without a daemon it runs all
    the same, with one warning.
    """
    taken = {"request_id", "gpus", "weight", "parent"} & tag.keys()
    if taken:
        raise click.BadParameter(f"{taken.pop()} cannot be a tag", param_hint="--tag")
    from greenctl import child

    more: dict[str, Any] = dict(tag)

    logging.getLogger("greend_client").addHandler(logging.NullHandler())  # we warn ourselves
    logging.getLogger("greend_client").propagate = False
    with child.signals_held() as held, open_client(address) as client:
        window = client.window(request_id, gpus=gpus, **more).start()
        warned = _warn_unless_open(client, window)
        environment = os.environ | {
            "GREEND_PARENT_WINDOW": window.window_id,
            "GREEND_ADDRESS": client.address,
        }
        code, error = child.run(command, environment, held)
        window.stop()
        if error:
            warn(error)
        held.release()
        try:
            _tell(client, window, as_json, output, warned)
        except KeyboardInterrupt:
            warn("not waited for its energy")
    context.exit(code)


def _warn_unless_open(client: "Client", window: "Window") -> bool:
    """Wait until the daemon knows the window, so that its children find it."""
    from greend_client import GreendError
    from greend_proto.v1 import metering_pb2

    request = metering_pb2.GetWindowRequest(window_id=window.window_id)
    deadline = time.monotonic() + _SHOWN_S
    while time.monotonic() < deadline:
        try:
            client.call(client.stub.GetWindow, request, timeout_s=_SHOWN_S)
            return False
        except GreendError as error:
            if error.code.name != "NOT_FOUND":
                warn(f"not measured: {error}")
                return True
        time.sleep(0.005)
    return False  # refused, perhaps: the result will tell


def _tell(
    client: "Client", window: "Window", as_json: bool, output: IO[str] | None, warned: bool
) -> None:
    from greenctl.documents import document
    from greenctl.formats import duration, energy, number, with_unit
    from greenctl.progress import after_a_second
    from greend_client import GreendError
    from greend_proto.v1 import metering_pb2

    request = metering_pb2.GetWindowRequest(window_id=window.window_id)
    try:
        with after_a_second("Waiting for the energy to be final"):
            result = window.result(_RESULT_S)
        if as_json or output:
            _write(document(client.call(client.stub.GetWindow, request)), output)
    except GreendError as error:
        if not warned:
            warn(f"not measured: {error}")
        return
    if not as_json:
        power = with_unit(number(result.avg_power_w, 1), "W")
        parts = f"active {energy(result.active_energy_j)}, idle {energy(result.idle_energy_j)}"
        warn(
            f"{energy(result.energy_j, result.uncertainty_j)} ({parts}) in "
            f"{duration(result.duration_s)} on {len(result.devices)} GPU(s), mean power {power}"
            + (f"; {' '.join(result.flags)}" if result.flags else "")
        )


def _write(text: str, output: IO[str] | None) -> None:
    """What cannot be written must not change the exit code, which is the command's."""
    try:
        print(text, file=output or sys.stderr, flush=True)
    except OSError as error:
        warn(f"cannot write the result: {error.strerror}")
