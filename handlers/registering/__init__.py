"""From what a user registers to a checked registration."""
