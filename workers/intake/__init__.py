"""Reads the streams, claims and keeps events, settles outcomes."""
