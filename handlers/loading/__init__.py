"""Finds and imports users' handlers."""
