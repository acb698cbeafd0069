"""Claimed events that wait in this worker: for a slot, a rate limit, their batch, their turn."""
