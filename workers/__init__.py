"""Between the streams and the handlers; the only place that knows Celery."""

from workers.shadows import refuse_shadows

refuse_shadows()
