"""Windows in groups."""

import click

from greenctl.options import (
    DEVICE,
    REQUEST_ID,
    SINCE,
    TAG,
    UNTIL,
    length_s,
    open_client,
    print_json,
    reading,
)
from greenctl.progress import after_a_second


@click.command()
@click.option("--by", multiple=True, metavar="KEY", help="A tag key that makes groups. Repeatable.")
@SINCE
@UNTIL
@click.option("--bucket", type=length_s, metavar="LENGTH", help='Time buckets of "1h", "15m".')
@click.option(
    "--idle",
    type=click.Choice(["include", "exclude"]),
    default="include",
    show_default=True,
    help="Whether the share of the idle power counts.",
)
@TAG
@REQUEST_ID
@DEVICE
@reading
def summary(
    by: tuple[str, ...],
    since: str | None,
    until: str | None,
    bucket: float | None,
    idle: str,
    tag: dict[str, str],
    request_id: str | None,
    device: tuple[str, ...],
    as_json: bool,
    address: str | None,
) -> None:
    """Show energy by group: per request, per output token.

    A window counts its own energy; windows inside it count for themselves.
    """
    with open_client(address) as client:
        chosen = client.window_filter(since, until, request_id, device or None)
        chosen.tags.update(tag)
        request = client.summary_request(chosen, by, bucket, idle)
        with after_a_second("Summing windows up"):
            answer = client.summarize(request)
        if as_json:
            print_json(answer)
            return
        from greend_client import Group

        groups = [Group.from_message(group) for group in answer.groups]
        if not groups:
            click.echo("No windows that are final.")
            return
        from greenctl import summaries, tables

        tables.show(summaries.columns(groups, by), summaries.notes(idle))
