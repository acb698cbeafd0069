"""`python -m flybridge`: the `flybridge` command where the console script is not on PATH."""

from flybridge.bridge.cli.main import main

main()
