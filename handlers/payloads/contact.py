"""Bodies of the domain `contact`: people and departments. They hold names, phones and e-mails."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from flybridge.handlers.payloads.base import Items, Part, Payload, UserId


class Avatar(Part):
    """Addresses of the picture, by width in pixels."""

    avatar_72: str = ""
    avatar_240: str = ""
    avatar_640: str = ""
    avatar_origin: str = ""


class UserStatus(Part):
    is_frozen: bool | None = None
    is_resigned: bool | None = None
    is_activated: bool | None = None
    is_exited: bool | None = None
    is_unjoin: bool | None = None


class UserOrder(Part):
    department_id: str = ""
    user_order: int | None = None
    department_order: int | None = None
    is_primary_dept: bool | None = None


class GenericUser(Part):
    id: str = ""
    type: int | None = None


class CustomAttrValue(Part):
    """Filled by the attribute's type: a text, a link, a choice, a picture or a person."""

    text: str = ""
    url: str = ""
    pc_url: str = ""
    option_id: str = ""
    option_value: str = ""
    name: str = ""
    picture_url: str = ""
    generic_user: GenericUser = GenericUser()


class CustomAttr(Part):
    type: str = ""
    """`TEXT`, `HREF`, `ENUMERATION`, …"""
    id: str = ""
    value: CustomAttrValue = CustomAttrValue()


class Position(Part):
    position_code: str = ""
    position_name: str = ""
    department_id: str = ""
    leader_user_id: str = ""
    leader_position_code: str = ""
    is_major: bool | None = None


class User(Part):
    open_id: str = ""
    union_id: str = ""
    user_id: str = ""
    name: str = ""
    en_name: str = ""
    nickname: str = ""
    email: str = ""
    enterprise_email: str = ""
    mobile: str = ""
    mobile_visible: bool | None = None
    job_title: str = ""
    gender: int | None = None
    avatar: Avatar = Avatar()
    status: UserStatus = UserStatus()
    department_ids: Items[str] = ()
    leader_user_id: str = ""
    city: str = ""
    country: str = ""
    work_station: str = ""
    join_time: int | None = None
    """Unix seconds."""
    employee_no: str = ""
    employee_type: int | None = None
    orders: Items[UserOrder] = ()
    custom_attrs: Items[CustomAttr] = ()
    positions: Items[Position] = ()
    job_level_id: str = ""
    job_family_id: str = ""
    dotted_line_leader_user_ids: Items[str] = ()
    is_tenant_manager: bool | None = None
    time_zone: str = ""


class UserChanged(Payload):
    """Somebody joined, changed or left; a new phone or e-mail is an event of its own."""

    object: User = User()
    old_object: User = User()
    """What was before: all fields of an update, ids only of a deletion."""


class DepartmentStatus(Part):
    is_deleted: bool | None = None


class DepartmentLeader(Part):
    """Feishu spells these two differently from all others; its SDK's models do not."""

    leaderType: int | None = None  # noqa: N815
    leaderID: str = ""  # noqa: N815

    @model_validator(mode="before")
    @classmethod
    def _as_documented(cls, data: Any) -> Any:
        names = {"leader_type": "leaderType", "leader_id": "leaderID"}
        if not isinstance(data, dict):
            return data
        return {names.get(name, name): value for name, value in data.items()}


class Department(Part):
    name: str = ""
    department_id: str = ""
    open_department_id: str = ""
    parent_department_id: str = ""
    leader_user_id: str = ""
    chat_id: str = ""
    order: int | None = None
    """Feishu: text in `contact.scope.updated_v3`; always a number here."""
    unit_ids: Items[str] = ()
    status: DepartmentStatus = DepartmentStatus()
    leaders: Items[DepartmentLeader] = ()
    department_hrbps: Items[UserId] = ()


class DepartmentChanged(Payload):
    """A department was made, changed or deleted."""

    object: Department = Department()
    old_object: Department = Department()
    """What was before: all fields of an update, id and status only of a deletion."""


class UserGroup(Part):
    user_group_id: str = ""
    name: str = ""
    type: int | None = None
    member_count: int | None = None
    status: int | None = None


class Scope(Part):
    departments: Items[Department] = ()
    users: Items[User] = ()
    user_groups: Items[UserGroup] = ()


class ScopeUpdated(Payload):
    """The people and departments that the app may see changed."""

    added: Scope = Scope()
    removed: Scope = Scope()


MODELS: dict[str, type[Payload]] = {
    "contact.user.created_v3": UserChanged,
    "contact.user.updated_v3": UserChanged,
    "contact.user.deleted_v3": UserChanged,
    "contact.department.created_v3": DepartmentChanged,
    "contact.department.updated_v3": DepartmentChanged,
    "contact.department.deleted_v3": DepartmentChanged,
    "contact.scope.updated_v3": ScopeUpdated,
}
