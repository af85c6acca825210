"""The account of an interval."""

import click

from greenctl.options import DEVICE, SINCE, UNTIL, open_client, print_json, reading
from greenctl.progress import after_a_second


@click.command()
@SINCE
@UNTIL
@DEVICE
@reading
def ledger(
    since: str | None,
    until: str | None,
    device: tuple[str, ...],
    as_json: bool,
    address: str | None,
) -> None:
    """Show where every measured joule went, device by device."""
    with open_client(address) as client:
        request = client.ledger_request(since, until, device or None)
        with after_a_second("Reading the ledger"):
            answer = client.call(client.stub.GetLedger, request)
        if as_json:
            print_json(answer)
            return
        from greend_client import LedgerRow

        rows = [LedgerRow.from_message(row) for row in answer.rows]
        if not rows:
            click.echo("Nothing was measured in that time.")
            return
        from greenctl import tables

        tables.show(tables.ledger_columns(rows), tables.ledger_notes(rows))
