"""`python -m greend`."""

from greend.cli import main

main()
