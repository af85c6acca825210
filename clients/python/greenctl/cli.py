"""The command line: what can be asked, and how errors end.

greend_client and rich are imported where they are used: ``--version``, ``--help``
and mistakes are answered without them.
"""

import contextlib
import importlib.metadata
import sys

import click

from greenctl import output
from greenctl.commands import (
    backup,
    completion,
    ledger,
    prune,
    run,
    status,
    summary,
    watch,
    windows,
)


def main() -> None:
    """Run the command; ends the process with 0, 1 (failed), 2 (usage) or 130 (Ctrl-C)."""
    output.prepare()
    try:
        code = cli.main(prog_name="greenctl", standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:
        code = _explain(error)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _explain(error: Exception) -> int:
    """Say in a line what went wrong; return the exit code. Raises what is a bug of ours."""
    if isinstance(error, click.ClickException):
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    if isinstance(error, click.Abort):
        return 130
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        output.give_up()
        return 1
    if isinstance(error, OSError):
        output.give_up()
        output.warn(f"cannot write: {error.strerror or error}")
        return 1
    if isinstance(error, UnicodeEncodeError):
        output.warn("an argument is no text in UTF-8")
        return 2
    import greend_client

    if not isinstance(error, greend_client.GreendError):
        raise error
    output.warn(str(error))
    return 1


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


for command in (
    status.status,
    status.devices,
    windows.windows,
    windows.window,
    summary.summary,
    ledger.ledger,
    watch.watch,
    run.run,
    prune.prune,
    backup.backup,
    completion.completion,
):
    cli.add_command(command)
