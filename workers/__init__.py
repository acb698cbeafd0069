"""Reads events from the streams and runs their handlers, in Celery or on a program's own loop."""

from workers.shadows import refuse_shadows

refuse_shadows()
