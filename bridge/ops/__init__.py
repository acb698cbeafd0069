"""Health, status and metrics of a bridge, over HTTP and in Redis."""
