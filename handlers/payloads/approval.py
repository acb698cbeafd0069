"""Bodies of the domain `approval`, where v1 events are the rule."""

from __future__ import annotations

from handlers.payloads.base import Part, Payload, UserId


class ApprovalInstance(Payload):
    """v1; comes for every change of status."""

    app_id: str = ""
    tenant_key: str = ""
    type: str = ""
    approval_code: str = ""
    instance_code: str = ""
    status: str = ""
    """PENDING, APPROVED, REJECTED, CANCELED, DELETED, REVERTED, OVERTIME_CLOSE, …_RECOVER."""
    operate_time: str = ""
    """Unix ms. Feishu: an integer when the status is REVERTED, text otherwise; always text here."""
    instance_operate_time: str = ""
    uuid: str = ""
    """The creator's own id; may repeat, never the event's."""


class ApprovalTask(ApprovalInstance):
    """v1; one step of an instance."""

    open_id: str = ""
    user_id: str = ""
    task_id: str = ""
    custom_key: str = ""
    def_key: str = ""
    extra: str = ""


class ApprovalDefinition(Part):
    approval_id: str = ""
    approval_code: str = ""
    version_id: str = ""
    form_definition_id: str = ""
    process_obj: str = ""
    timestamp: str = ""
    extra: str = ""


class ApprovalUpdated(Payload):
    object: ApprovalDefinition = ApprovalDefinition()


class InstanceStatusChanged(Payload):
    approval_code: str = ""
    instance_code: str = ""
    external_id: str = ""
    status: str = ""
    operate_time: str = ""
    start_user: UserId = UserId()
    subscriber_id_list: tuple[UserId, ...] = ()


class TaskStatusChanged(Payload):
    approval_code: str = ""
    instance_code: str = ""
    task_id: str = ""
    task_external_id: str = ""
    assigned_user: UserId = UserId()
    status: str = ""
    operate_time: str = ""
    subscriber_id_list: tuple[UserId, ...] = ()


MODELS: dict[str, type[Payload]] = {
    "approval_instance": ApprovalInstance,
    "approval_task": ApprovalTask,
    "approval.approval.updated_v4": ApprovalUpdated,
    "approval.instance.status_changed_v4": InstanceStatusChanged,
    "approval.task.status_changed_v4": TaskStatusChanged,
}
