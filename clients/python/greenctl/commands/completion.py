"""Completion of commands and options in a shell."""

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes greenctl in a shell.

    \b
    bash: greenctl completion bash > ~/.local/share/bash-completion/completions/greenctl
    zsh:  greenctl completion zsh > ~/.zfunc/_greenctl   (a folder of $fpath)
    fish: greenctl completion fish > ~/.config/fish/completions/greenctl.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root().command
    click.echo(kind(root, {}, "greenctl", "_GREENCTL_COMPLETE").source())
