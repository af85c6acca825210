"""The command line: what can be asked, and how errors end.

greend_client and rich are imported where they are used: ``--version``, ``--help``
and mistakes are answered without them.
"""

import importlib.metadata
import os
import sys

import click

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
    try:
        code = cli.main(prog_name="greenctl", standalone_mode=False)
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
