"""`python -m bridge`: the `flybridge` command where the console script is not on PATH."""

from bridge.cli import main

main()
