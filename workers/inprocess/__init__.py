"""A worker without Celery: the running event loop is its pool."""
