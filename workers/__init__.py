"""Between the streams and the handlers; the only place that knows Celery."""
