"""Bodies of the domain `contact`: people and departments. They hold names, phones and e-mails."""

from __future__ import annotations

from pydantic import Field

from handlers.payloads.base import Number, Part, Payload, UserId


class UserStatus(Part):
    is_frozen: bool | None = None
    is_resigned: bool | None = None
    is_activated: bool | None = None
    is_exited: bool | None = None
    is_unjoin: bool | None = None


class UserOrder(Part):
    department_id: str = ""
    user_order: Number = None
    department_order: Number = None
    is_primary_dept: bool | None = None


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
    job_title: str = ""
    gender: Number = None
    avatar: dict[str, str | None] = Field(default_factory=dict)
    status: UserStatus = UserStatus()
    department_ids: tuple[str, ...] = ()
    leader_user_id: str = ""
    city: str = ""
    country: str = ""
    work_station: str = ""
    join_time: Number = None
    """Unix seconds."""
    employee_no: str = ""
    employee_type: Number = None
    orders: tuple[UserOrder, ...] = ()
    job_level_id: str = ""
    job_family_id: str = ""
    dotted_line_leader_user_ids: tuple[str, ...] = ()


class UserChanged(Payload):
    object: User = User()
    old_object: User = User()
    """What was before: all fields of an update, ids only of a deletion."""


class DepartmentStatus(Part):
    is_deleted: bool | None = None


class DepartmentLeader(Part):
    leader_type: Number = Field(default=None, alias="leaderType")
    leader_id: str = Field(default="", alias="leaderID")


class Department(Part):
    name: str = ""
    department_id: str = ""
    open_department_id: str = ""
    parent_department_id: str = ""
    leader_user_id: str = ""
    chat_id: str = ""
    order: Number = None
    unit_ids: tuple[str, ...] = ()
    status: DepartmentStatus = DepartmentStatus()
    leaders: tuple[DepartmentLeader, ...] = ()
    department_hrbps: tuple[UserId, ...] = ()


class DepartmentChanged(Payload):
    object: Department = Department()
    old_object: Department = Department()


MODELS: dict[str, type[Payload]] = {
    "contact.user.created_v3": UserChanged,
    "contact.user.updated_v3": UserChanged,
    "contact.user.deleted_v3": UserChanged,
    "contact.department.created_v3": DepartmentChanged,
    "contact.department.updated_v3": DepartmentChanged,
    "contact.department.deleted_v3": DepartmentChanged,
}
