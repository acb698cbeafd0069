"""A Celery worker of ours: bootstep, pools, requests, tasks, remote control, broker."""
