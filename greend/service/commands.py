"""`greend service`: the service of systemd."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from greend.service.places import Places


@click.group()
def service() -> None:
    """Run greend as a service of systemd."""


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Options and errors that all have in common."""

    @wraps(function)
    def run(root: Path, **options: Any) -> None:
        # Imported here: `greend --version` needs none of it.
        from greend.errors import GreendError
        from greend.service.places import Places

        try:
            function(Places(root.resolve()), **options)
        except GreendError as error:
            click.echo(f"greend: {error}", err=True)
            sys.exit(1)

    return click.option(
        "--root",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default="/",
        metavar="DIR",
        help="Work on the files under DIR, as packagers do; the running system is left alone.",
    )(run)


@service.command()
@click.option("--no-start", is_flag=True, help="Neither start it nor enable it at boot.")
@_command
def install(places: "Places", no_start: bool) -> None:
    """Install the service, or bring it up to date.

    Settings and data stay; a service that runs is restarted.
    """
    from greend.service.install import install
    from greend.service.interpreter import own

    _need_root(places, "install")
    install(places, own(), start=not no_start, say=click.echo)


@service.command()
@click.option("--purge", is_flag=True, help="Remove data and settings, too.")
@click.option("--yes", is_flag=True, help="Do not ask before data is removed.")
@_command
def uninstall(places: "Places", purge: bool, yes: bool) -> None:
    """Stop and remove the service. Data and settings stay."""
    from greend.service.uninstall import kept, uninstall

    _need_root(places, "uninstall")
    doomed = kept(places) if purge else []
    if doomed and not yes:
        click.echo("This removes what was measured and set, for good:")
        for path in doomed:
            click.echo(f"  {path}")
        click.confirm("Remove it?", abort=True)
    uninstall(places, purge=purge, say=click.echo)


@service.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@_command
def status(places: "Places", as_json: bool) -> None:
    """Show how the service is. Exits 0 if it runs, 3 if not, 4 if it is not installed."""
    import json
    from dataclasses import asdict

    from greend.service.interpreter import own
    from greend.service.status import lines, read

    state = read(places, own())
    if as_json:
        known = {name: value for name, value in asdict(state).items() if value is not None}
        click.echo(json.dumps(known, indent=2))
    else:
        for line in lines(state):
            click.echo(line)
    sys.exit(state.exit_code)


def _need_root(places: "Places", command: str) -> None:
    from greend.errors import PermissionDenied

    if os.geteuid() == 0 or places.staged:
        return
    # In full: sudo does not look where a virtual environment has its commands.
    script = Path(sys.executable).with_name("greend")
    greend = str(script) if script.exists() else f"{sys.executable} -m greend"
    raise PermissionDenied(f"needs root: sudo {greend} service {command}")
