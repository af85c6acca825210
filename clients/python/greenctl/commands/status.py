"""How the daemon and its devices are."""

import time
from typing import TYPE_CHECKING

import click

from greenctl.options import length_s, open_client, print_json, reading
from greenctl.progress import after_a_second

if TYPE_CHECKING:
    from greend_client import Client
    from greend_proto.v1 import metering_pb2


@click.command()
@click.option(
    "--wait",
    "wait_s",
    type=length_s,
    metavar="SECONDS",
    help="Wait this long for the daemon to serve.",
)
@reading
def status(wait_s: float | None, as_json: bool, address: str | None) -> None:
    """Show how the daemon is. Exits 0 when it serves, else 1."""
    with open_client(address) as client:
        with after_a_second("Waiting for the daemon"):
            answer = _status(client, wait_s)
        if as_json:
            print_json(answer)
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


@click.command()
@reading
def devices(as_json: bool, address: str | None) -> None:
    """Show the GPUs and how they are, and their MIG instances."""
    with open_client(address) as client:
        from greend_client import Device
        from greend_proto.v1 import metering_pb2

        answer = client.call(client.stub.ListDevices, metering_pb2.ListDevicesRequest())
        if as_json:
            print_json(answer)
            return
        found = [Device.from_message(device) for device in answer.devices]
        if not found:
            click.echo("No devices. `greenctl status` says whether the driver answers.")
            return
        from greenctl import tables

        tables.show(tables.device_columns(found), tables.device_notes(found))
        if any(device.mig_instances for device in found):
            click.echo()
            tables.show(tables.instance_columns(found))
