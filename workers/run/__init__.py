"""Runs the handlers of events, within their time limits, and says how that ended."""
