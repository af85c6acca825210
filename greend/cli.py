"""The command `greend`."""

import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from greend import __version__
from greend.service.commands import service

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command, by default the process's own, and ends the process."""
    if sys.stdout is None:  # it was closed before we began
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    else:
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(sys.stdout.fileno(), "w", closefd=False)),
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=True,  # nothing is left for the interpreter to fail at
        )
    commands.main(arguments, prog_name="greend")


class _Output(io.FileIO):
    """Standard output, whose errors are told from those of files and sockets."""

    def write(self, data: "ReadableBuffer", /) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            raise _CannotPrint(error) from None


class _CannotPrint(click.ClickException):
    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write: {error.strerror}")
        self._quiet = isinstance(error, BrokenPipeError)  # the reader has seen enough

    def show(self, file: object = None) -> None:
        # What could not be written would be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not self._quiet:
            click.echo(f"greend: {self.message}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="greend", message="greend %(version)s")
def commands() -> None:
    """The energy meter of a GPU node."""


@commands.command()
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file (TOML).")
@click.option("--state-dir", metavar="DIR", help="Where the database lies.")
@click.option("--runtime-dir", metavar="DIR", help="Where both sockets lie.")
@click.option("--metrics", metavar="ADDRESS", help="HTTP endpoint; '' switches it off.")
@click.option(
    "--simulate",
    metavar="PROFILExCOUNT",
    help="Simulated GPUs instead of real ones, e.g. h100x2; marks every figure.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
)
@click.option("--print-config", is_flag=True, help="Print the settings in force and end.")
def serve(
    config: Path | None,
    state_dir: str | None,
    runtime_dir: str | None,
    metrics: str | None,
    simulate: str | None,
    log_level: str | None,
    print_config: bool,
) -> None:
    """Measure until SIGTERM."""
    # Imported here: `greend --version` needs none of it.
    from greend.config import load, render
    from greend.daemon import run
    from greend.errors import GreendError

    try:
        settings = load(
            config,
            os.environ,
            {
                "daemon": {
                    "state_dir": state_dir,
                    "runtime_dir": runtime_dir,
                    "log_level": log_level,
                },
                "metrics": {"address": metrics},
            },
        )
        if print_config:
            click.echo(render(settings), nl=False)
            return
        logging.basicConfig(
            level=settings.daemon.log_level.upper(),
            # The journal knows the time.
            format=("" if "JOURNAL_STREAM" in os.environ else "%(asctime)s ")
            + "%(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        run(settings, simulate)
    except GreendError as error:
        click.echo(f"greend: {error}", err=True)
        sys.exit(1)


@commands.command()
@click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default="/var/lib/greend",
    show_default=True,
    envvar="GREEND_DAEMON_STATE_DIR",
    help="Where the daemon's database lies.",
)
# The same line serves the daemon and its restore; nothing is looked for there yet.
@click.option("--runtime-dir", metavar="DIR", expose_value=False, help="Where its sockets lie.")
def restore(state_dir: Path) -> None:
    """Put back what a daemon that is gone had set on GPUs."""
    from greend.errors import GreendError
    from greend.restore import restore

    try:
        click.echo(restore(state_dir))
    except GreendError as error:
        click.echo(f"greend: {error}", err=True)
        sys.exit(1)


@commands.command()
@click.option("--requests", default=40, show_default=True, help="How many requests to serve.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
def demo(requests: int, as_json: bool) -> None:
    """Measure a small workload on simulated GPUs, beside the truth."""
    from greend.demo import run_demo

    sys.exit(run_demo(requests=requests, json=as_json))


@commands.command()
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file (TOML).")
@click.option("--state-dir", metavar="DIR", help="Where the database lies.")
@click.option("--runtime-dir", metavar="DIR", help="Where both sockets lie.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a list.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 600),
    default=3.0,
    show_default=True,
    help="How long to read each GPU.",
)
def doctor(
    config: Path | None,
    state_dir: str | None,
    runtime_dir: str | None,
    as_json: bool,
    seconds: float,
) -> None:
    """Check driver, GPUs, daemon, store and service; say what to do.

    Changes nothing. Exits 1 if there is an error among what was found.
    """
    # gRPC's own log would stand among the findings; read when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from greend.doctor import run_doctor

    sys.exit(
        run_doctor(
            config=config,
            state_dir=state_dir,
            runtime_dir=runtime_dir,
            json=as_json,
            seconds=seconds,
        )
    )


commands.add_command(service)
