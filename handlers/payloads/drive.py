"""Bodies of the domain `drive`: files, tables and comments."""

from __future__ import annotations

from flybridge.handlers.payloads.base import Items, Part, Payload, UserId


class FileEdited(Payload):
    """Somebody edited a file."""

    file_type: str = ""
    """`docx`, `sheet`, `bitable`, …"""
    file_token: str = ""
    operator_id_list: Items[UserId] = ()
    subscriber_id_list: Items[UserId] = ()
    sheet_id: str = ""


class FieldUser(Part):
    """A person in a field for people: the assignee of a record, its creator, who changed it."""

    user_id: UserId = UserId()
    name: str = ""
    en_name: str = ""
    avatar_url: str = ""


class FieldIdentity(Part):
    """Who is named in a field that holds people."""

    users: Items[FieldUser] = ()


class FieldValue(Part):
    field_id: str = ""
    field_value: str = ""
    field_identity_value: FieldIdentity = FieldIdentity()


class RecordAction(Part):
    record_id: str = ""
    action: str = ""
    """`record_added`, `record_edited` or `record_deleted`."""
    before_value: Items[FieldValue] = ()
    after_value: Items[FieldValue] = ()


class RecordChanged(Payload):
    """Records of a table (bitable) were added, edited or deleted."""

    file_type: str = ""
    file_token: str = ""
    table_id: str = ""
    revision: int | None = None
    operator_id: UserId = UserId()
    action_list: Items[RecordAction] = ()
    subscriber_id_list: Items[UserId] = ()
    update_time: int | None = None
    """Unix seconds."""


class NoticeMeta(Part):
    file_type: str = ""
    file_token: str = ""
    from_user_id: UserId = UserId()
    to_user_id: UserId = UserId()
    from_user_type: str = ""
    notice_type: str = ""
    """`add_comment` or `add_reply`."""


class CommentAdded(Payload):
    """Somebody commented on a file, or answered a comment."""

    notice_meta: NoticeMeta = NoticeMeta()
    comment_id: str = ""
    reply_id: str = ""
    is_mentioned: bool | None = None
    visibility: str = ""


MODELS: dict[str, type[Payload]] = {
    "drive.file.edit_v1": FileEdited,
    "drive.file.bitable_record_changed_v1": RecordChanged,
    "drive.notice.comment_add_v1": CommentAdded,
}
