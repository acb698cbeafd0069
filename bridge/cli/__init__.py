"""The `flybridge` command, one module for each group of subcommands."""
