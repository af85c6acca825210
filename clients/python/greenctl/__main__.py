"""Lets ``python -m greenctl`` be the command."""

from greenctl.cli import main

main()
