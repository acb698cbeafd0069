"""Bodies of the domain `approval`; most of its events are v1."""

from __future__ import annotations

from pydantic import Field

from flybridge.handlers.payloads.base import Items, Part, Payload, PayloadV1, UserId


class ApprovalInstance(PayloadV1):
    """v1; an instance changed its status."""

    approval_code: str = ""
    instance_code: str = ""
    status: str = ""
    """PENDING, APPROVED, REJECTED, CANCELED, DELETED, REVERTED, OVERTIME_CLOSE, …_RECOVER."""
    operate_time: str = ""
    """Unix ms. Feishu: an integer when the status is REVERTED, text otherwise; always text here."""
    instance_operate_time: str = ""
    uuid: str = ""
    """Set by who created the instance; it may repeat, and is not the id of the event."""


class ApprovalTask(PayloadV1):
    """v1; one step of an instance changed its status."""

    approval_code: str = ""
    instance_code: str = ""
    task_id: str = ""
    status: str = ""
    """PENDING, APPROVED, REJECTED, DONE, TRANSFERRED, ROLLBACK, OVERTIME_CLOSE, …_RECOVER."""
    operate_time: str = ""
    """Unix ms."""
    open_id: str = ""
    user_id: str = ""
    custom_key: str = ""
    def_key: str = ""
    extra: str = ""


class ApprovalCc(PayloadV1):
    """v1; somebody got or read a copy of an instance."""

    approval_code: str = ""
    instance_code: str = ""
    id: str = ""
    user_id: str = ""
    """Who got the copy."""
    from_: str = Field(default="", alias="from")
    """Who sent it; Feishu's name is `from`, which Python keeps for itself."""
    operate: str = ""
    """`CREATE` or `READ`."""
    create_time: int | None = None
    """Unix ms."""


class ApprovalDefinition(Part):
    approval_id: str = ""
    approval_code: str = ""
    version_id: str = ""
    widget_group_type: int | None = None
    form_definition_id: str = ""
    process_obj: str = ""
    """The steps, as JSON text."""
    timestamp: str = ""
    """Unix seconds."""
    extra: str = ""


class ApprovalUpdated(Payload):
    """The definition of an approval was changed."""

    object: ApprovalDefinition = ApprovalDefinition()


class InstanceStatusChanged(Payload):
    """v4; an instance changed its status."""

    approval_code: str = ""
    instance_code: str = ""
    external_id: str = ""
    status: str = ""
    operate_time: str = ""
    """Unix ms."""
    start_user: UserId = UserId()
    subscriber_id_list: Items[UserId] = ()


class TaskStatusChanged(Payload):
    """v4; one step of an instance changed its status."""

    approval_code: str = ""
    instance_code: str = ""
    task_id: str = ""
    task_external_id: str = ""
    assigned_user: UserId = UserId()
    status: str = ""
    operate_time: str = ""
    """Unix ms."""
    subscriber_id_list: Items[UserId] = ()


MODELS: dict[str, type[Payload]] = {
    "approval_instance": ApprovalInstance,
    "approval_task": ApprovalTask,
    "approval_cc": ApprovalCc,
    "approval.approval.updated_v4": ApprovalUpdated,
    "approval.instance.status_changed_v4": InstanceStatusChanged,
    "approval.task.status_changed_v4": TaskStatusChanged,
}
