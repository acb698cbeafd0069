"""Bodies of the domain `task`."""

from __future__ import annotations

from flybridge.handlers.payloads.base import Items, Part, Payload, UserId


class TaskUpdated(Payload):
    """A task of the app changed."""

    task_id: str = ""
    obj_type: int | None = None
    """What changed, as a number from Feishu's list."""


class UserIds(Part):
    user_id_list: Items[UserId] = ()
    """Feishu: an unknown id may be the text "null"."""


class TenantTaskUpdated(Payload):
    """A task of the company changed."""

    user_id_list: UserIds = UserIds()
    task_id: str = ""
    object_type: str = ""
    event_type: str = ""


MODELS: dict[str, type[Payload]] = {
    "task.task.updated_v1": TaskUpdated,
    "task.task.update_tenant_v1": TenantTaskUpdated,
}
