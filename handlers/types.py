"""Event types that Feishu is known to send, aliases of them, and patterns that match them.

Other types may arrive as well; they are published and handled like any other.
Sources: the registry of the official SDK 1.7.5 and the event pages of the documentation.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

__all__ = [
    "KNOWN_TYPES",
    "canonical",
    "domain",
    "matches",
]

_V2 = {
    "acs": "access_record.created_v1 user.updated_v1",
    "apaas": "workspace.record_change_v1",
    "application": (
        "application.app_version.audit_v6 application.app_version.publish_apply_v6 "
        "application.app_version.publish_revoke_v6 application.created_v6 "
        "application.feedback.created_v6 application.feedback.updated_v6 "
        "application.visibility.added_v6 bot.menu_v6"
    ),
    "approval": (
        "approval.updated_v4 instance.remedy_group_update_v4 instance.status_changed_v4 "
        "instance.trip_group_update_v4 task.status_changed_v4"
    ),
    "auth": "user_access_token.revoked_v4",
    "calendar": (
        "calendar.acl.created_v4 calendar.acl.deleted_v4 calendar.changed_v4 "
        "calendar.event.changed_v4"
    ),
    "card": "action.trigger",
    "compensation": "archive.changed_v1",
    "contact": (
        "custom_attr_event.updated_v3 department.created_v3 department.deleted_v3 "
        "department.updated_v3 employee_type_enum.actived_v3 employee_type_enum.created_v3 "
        "employee_type_enum.deactivated_v3 employee_type_enum.deleted_v3 "
        "employee_type_enum.updated_v3 scope.updated_v3 user.created_v3 user.deleted_v3 "
        "user.updated_v3"
    ),
    "corehr": (
        "approval_groups.updated_v2 common_data.id.user_mapping_changed_v1 "
        "common_data.meta_data.updated_v1 company.created_v2 company.deleted_v2 "
        "company.updated_v2 contract.created_v1 contract.deleted_v1 contract.updated_v1 "
        "cost_center.created_v2 cost_center.deleted_v2 cost_center.updated_v2 "
        "custom_org.created_v2 custom_org.deleted_v2 custom_org.updated_v2 "
        "department.created_v1 department.created_v2 department.deleted_v1 "
        "department.updated_v1 department.updated_v2 employee.domain_event_v2 "
        "employment.converted_v1 employment.created_v1 employment.deleted_v1 "
        "employment.resigned_v1 employment.updated_v1 job.created_v1 job.deleted_v1 "
        "job.updated_v1 job_change.status_updated_v2 job_change.updated_v1 "
        "job_change.updated_v2 job_data.changed_v1 job_data.created_v1 job_data.deleted_v1 "
        "job_data.employed_v1 job_data.updated_v1 job_family.created_v2 job_family.deleted_v2 "
        "job_family.updated_v2 job_grade.created_v2 job_grade.deleted_v2 job_grade.updated_v2 "
        "job_level.created_v2 job_level.deleted_v2 job_level.updated_v2 location.created_v2 "
        "location.deleted_v2 location.updated_v2 offboarding.checklist_updated_v2 "
        "offboarding.status_updated_v2 offboarding.updated_v1 offboarding.updated_v2 "
        "onboarding_qr_code.inactive_v2 org_role_authorization.updated_v1 pathway.created_v2 "
        "pathway.deleted_v2 pathway.updated_v2 person.created_v1 person.deleted_v1 "
        "person.updated_v1 position.created_v2 position.deleted_v2 position.updated_v2 "
        "pre_hire.onboarding_task_changed_v2 pre_hire.updated_v1 probation.updated_v2 "
        "process.approver.updated_v2 process.cc.updated_v2 process.node.updated_v2 "
        "process.status.update_v2 process.updated_v2 process_comment_info.updated_v2 "
        "signature_file.status_updated_v2"
    ),
    "directory": (
        "department.created_v1 department.deleted_v1 department.updated_v1 employee.created_v1 "
        "employee.regular_v1 employee.resigned_v1 employee.resurrect_v1 "
        "employee.to_be_resigned_v1 employee.updated_v1"
    ),
    "drive": (
        "file.bitable_field_changed_v1 file.bitable_record_changed_v1 file.created_in_folder_v1 "
        "file.deleted_v1 file.edit_v1 file.permission_member_added_v1 "
        "file.permission_member_applied_v1 file.permission_member_removed_v1 file.read_v1 "
        "file.title_updated_v1 file.trashed_v1 notice.comment_add_v1"
    ),
    "elearning": (
        "course_registration.created_v2 course_registration.deleted_v2 "
        "course_registration.updated_v2"
    ),
    "helpdesk": (
        "notification.approve_v1 ticket.created_v1 ticket.updated_v1 ticket_message.created_v1"
    ),
    "hire": (
        "application.deleted_v1 application.stage_changed_v1 eco_account.created_v1 "
        "eco_background_check.canceled_v1 eco_background_check.created_v1 eco_exam.created_v1 "
        "ehr_import_task.imported_v1 ehr_import_task_for_internship_offer.imported_v1 "
        "offer.status_changed_v1 referral_account.assets_update_v1 talent.deleted_v1 "
        "talent.tag_subscription_v1"
    ),
    "im": (
        "chat.access_event.bot_p2p_chat_entered_v1 chat.disbanded_v1 chat.member.bot.added_v1 "
        "chat.member.bot.deleted_v1 chat.member.user.added_v1 chat.member.user.deleted_v1 "
        "chat.member.user.withdrawn_v1 chat.updated_v1 message.message_read_v1 "
        "message.reaction.created_v1 message.reaction.deleted_v1 message.recalled_v1 "
        "message.receive_v1"
    ),
    "mail": "user_mailbox.event.message_received_v1",
    "meeting_room": (
        "meeting_room.created_v1 meeting_room.deleted_v1 meeting_room.status_changed_v1 "
        "meeting_room.updated_v1"
    ),
    "minutes": "minute.generated_v1",
    "moments": (
        "comment.created_v1 comment.deleted_v1 post.created_v1 post.deleted_v1 "
        "post_statistics.updated_v1 reaction.created_v1 reaction.deleted_v1"
    ),
    "payroll": "payment_activity.approved_v1 payment_activity.status_changed_v1",
    "performance": "review_data.changed_v2 stage_task.open_result_v2",
    "security_and_compliance": (
        "device_apply_record.device_apply_event_v2 device_record.device_change_event_v2"
    ),
    "task": (
        "task.comment.updated_v1 task.update_tenant_v1 task.update_user_access_v2 task.updated_v1"
    ),
    "url": "preview.get",
    "vc": (
        "bot.meeting_activity_v1 bot.meeting_ended_v1 bot.meeting_invited_v1 "
        "bot.meeting_started_v1 meeting.all_meeting_ended_v1 meeting.all_meeting_started_v1 "
        "meeting.join_meeting_v1 meeting.leave_meeting_v1 meeting.meeting_ended_v1 "
        "meeting.meeting_started_v1 meeting.participant_meeting_ended_v1 "
        "meeting.recording_ended_v1 meeting.recording_ready_v1 meeting.recording_started_v1 "
        "meeting.share_ended_v1 meeting.share_started_v1 note.generated_v1 "
        "reserve_config.updated_v1 room.created_v1 room.deleted_v1 room.updated_v1 "
        "room_level.created_v1 room_level.deleted_v1 room_level.updated_v1"
    ),
}

_V1 = {
    "approval": (
        "approval_cc approval_instance approval_task leave_approval leave_approvalV2 "
        "leave_approval_revert out_approval out_approval_revert remedy_approval shift_approval "
        "trip_approval work_approval work_approval_revert"
    ),
    "application": "app_open app_status_change app_ticket app_uninstalled order_paid",
    "contact": (
        "contact_scope_change dept_add dept_delete dept_update user_add user_leave "
        "user_status_change user_update"
    ),
    "im": (
        "add_bot add_user_to_chat chat_disband group_setting_update message message_read "
        "p2p_chat_create remove_bot remove_user_from_chat revoke_add_user_from_chat"
    ),
    "meeting_room": (
        "third_party_meeting_room_event_created third_party_meeting_room_event_deleted "
        "third_party_meeting_room_event_updated"
    ),
}

_DOMAIN_OF_V1 = {name: domain for domain, names in _V1.items() for name in names.split()}

KNOWN_TYPES: frozenset[str] = frozenset(_DOMAIN_OF_V1) | {
    f"{domain}.{name}" for domain, names in _V2.items() for name in names.split()
}
"""Full names, as they stand in `header.event_type` (v2) and `event.type` (v1)."""

ALIASES: dict[str, str] = {
    "im.chat.member.user_added_v1": "im.chat.member.user.added_v1",
    "im.chat.member.user_deleted_v1": "im.chat.member.user.deleted_v1",
    "meeting.meeting.started_v1": "vc.meeting.meeting_started_v1",
    "meeting.meeting.ended_v1": "vc.meeting.meeting_ended_v1",
    "calendar.event.updated_v4": "calendar.calendar.event.changed_v4",
    "approval.approval.approved_v1": "approval_instance",
    "approval.approval.rejected_v1": "approval_instance",
}
"""Alias -> the name that Feishu sends. Documents and other libraries use these aliases."""

STATUS_OF_ALIAS: dict[str, str] = {
    "approval.approval.approved_v1": "APPROVED",
    "approval.approval.rejected_v1": "REJECTED",
}
"""Alias -> the status that it stands for, of an event that Feishu sends for every status."""

DEFAULT_DOMAIN = "default"


def canonical(event_type: str) -> str:
    """The name that Feishu sends for an alias; other names as they are."""
    return ALIASES.get(event_type, event_type)


def matches(pattern: str, event_type: str) -> bool:
    """Whether a pattern covers an event type; `*` stands for any characters, dots included."""
    return fnmatchcase(canonical(event_type), canonical(pattern))


def domain(event_type: str) -> str:
    """The domain of an event type, which names its queue: `im`, `contact`, …, or `default`.

    The number of domains is limited, whatever types a sender invents.
    """
    name = canonical(event_type)
    first = name.partition(".")[0]
    return first if first in _V2 else _DOMAIN_OF_V1.get(name, DEFAULT_DOMAIN)
