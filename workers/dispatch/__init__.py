"""Hands claimed events to a pool as it has room, and takes back what the pool gives up."""
