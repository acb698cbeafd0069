"""Logs and traces, with secrets taken out of both."""
