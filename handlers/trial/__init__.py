"""Attempts in a test, behind `flybridge.testing.run`."""
