"""Makes a checked registration of what a user registers."""
