"""What happens now: samples of devices, windows that become final."""

import sys
from typing import TYPE_CHECKING, Any

import click

from greenctl.options import DEVICE, REQUEST_ID, TAG, length_s, open_client, reading

if TYPE_CHECKING:
    from greend_client import Client


@click.command()
@DEVICE
@click.option(
    "--interval",
    type=length_s,
    default="1s",
    show_default=True,
    metavar="LENGTH",
    help="Least time between samples of a device; 0: every sample.",
)
@click.option("--windows", is_flag=True, help="Follow windows as they become final.")
@TAG
@REQUEST_ID
@reading
def watch(
    device: tuple[str, ...],
    interval: float,
    windows: bool,
    tag: dict[str, str],
    request_id: str | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Show power, clocks and utilization of the GPUs as they are read, until Ctrl-C.

    A table on a terminal, a line a sample in a pipe. --json prints a document a line.
    """
    if (tag or request_id) and not windows:
        raise click.UsageError("--tag and --request-id choose windows: add --windows")
    with open_client(address) as client:
        if windows:
            _windows(client, device, tag, request_id, as_json)
        else:
            _samples(client, device, interval, as_json)


def _samples(client: "Client", devices: tuple[str, ...], interval_s: float, as_json: bool) -> None:
    from greend_client import Sample
    from greend_proto.v1 import metering_pb2

    known = client.devices()
    chosen = client.window_filter(devices=devices or None).devices
    request = metering_pb2.WatchSamplesRequest(devices=chosen, interval_s=interval_s or None)
    if as_json:
        _print_lines(client.stream(client.stub.WatchSamples, request, lambda message: message))
        return
    from greenctl import live

    watched = [device for device in known if not chosen or device.uuid in chosen]
    samples = client.stream(client.stub.WatchSamples, request, Sample.from_message)
    if sys.stdout.isatty():
        live.show(watched, samples)
    else:
        for sample in samples:
            click.echo(live.line(sample, watched))


def _windows(
    client: "Client",
    devices: tuple[str, ...],
    tags: dict[str, str],
    request_id: str | None,
    as_json: bool,
) -> None:
    from greend_client import WindowResult
    from greend_proto.v1 import metering_pb2

    chosen = client.window_filter(request_id=request_id, devices=devices or None)
    chosen.tags.update(tags)
    request = metering_pb2.WatchWindowsRequest(filter=chosen)
    if as_json:
        _print_lines(client.stream(client.stub.WatchWindows, request, lambda message: message))
        return
    from greenctl.live import window_line

    for window in client.stream(client.stub.WatchWindows, request, WindowResult.from_message):
        click.echo(window_line(window))


def _print_lines(messages: Any) -> None:
    from greenctl.documents import document

    for message in messages:
        click.echo(document(message, indent=None))
