"""Handlers for people and departments. They log numbers and states, never names."""

from __future__ import annotations

from flybridge.handlers import Context, Event, Handler, handles
from flybridge.handlers.payloads import contact


@handles("contact.user.created_v3")
class UserCreated(Handler):
    """Somebody joined the company."""

    def handle(self, event: Event[contact.UserChanged], context: Context) -> None:
        payload = event.payload
        context.logger.info(
            "user.created",
            departments=len(payload.object.department_ids),
            activated=payload.object.status.is_activated,
        )
