from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest
import structlog

from flybridge.handlers import Batch, Context, Event, Handler, Registry
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registry import _MAX_CACHED, Registration


class Greet(Handler):
    queue: ClassVar[str | None] = "greetings"
    max_attempts: ClassVar[int] = 2

    def handle(self, event: Event, context: Context) -> None: ...


def audit(event: Event, context: Context) -> None: ...


async def mirror(event: Event, context: Context) -> None: ...


def names(registrations: tuple[Registration, ...]) -> list[str]:
    return [registration.name.partition(":")[2] for registration in registrations]


@pytest.fixture
def table() -> Registry:
    return Registry()


def test_a_registration_carries_the_options_of_its_class(table: Registry) -> None:
    registration = table.register(Greet, "im.message.receive_v1", max_attempts=7)
    assert registration.name == f"{__name__}:Greet"
    assert registration.patterns == ("im.message.receive_v1",)
    assert (registration.queue, registration.max_attempts, registration.timeout) == (
        "greetings",
        7,
        30.0,
    )
    assert not registration.is_async
    assert table.list() == (registration,)


def test_exact_types_and_patterns_run_together_in_the_order_of_registration(
    table: Registry,
) -> None:
    table.register(audit, "*")
    table.register(Greet, "im.message.receive_v1")
    table.register(mirror, "im.message.*")
    assert names(table.lookup("im.message.receive_v1")) == ["audit", "Greet", "mirror"]
    assert names(table.lookup("im.message.recalled_v1")) == ["audit", "mirror"]
    assert names(table.lookup("approval_instance")) == ["audit"]


def test_the_default_runs_only_when_nothing_else_does(table: Registry) -> None:
    table.register(Greet, "im.message.receive_v1")
    assert table.lookup("vc.room.created_v1") == (table.default,)
    assert names((table.default,)) == ["LogUnhandled"]
    assert not table.is_registered("vc.room.created_v1")
    assert table.is_registered("im.message.receive_v1")
    replaced = table.set_default(audit, max_attempts=1)
    assert table.lookup("vc.room.created_v1") == (replaced,) == (table.default,)
    assert replaced.max_attempts == 1


def test_handles_returns_what_it_decorates(table: Registry) -> None:
    @table.handles("im.message.receive_v1", timeout=3)
    class Local(Greet):
        pass

    @table.handles("im.message.receive_v1")
    async def local(event: Event, context: Context) -> str:
        return "hello"

    assert Local().queue == "greetings"
    found = table.lookup("im.message.receive_v1")
    assert [(each.timeout, each.is_async) for each in found] == [(3, False), (30.0, True)]


def test_handles_without_event_types_says_how_to_write_it(table: Registry) -> None:
    bare: Any = table.handles
    with pytest.raises(RegistrationInvalid, match="write @handles"):
        bare(Greet)
    with pytest.raises(RegistrationInvalid, match="no event types"):
        table.handles()(Greet)


def test_a_lookup_sees_every_change_at_once(table: Registry) -> None:
    assert names(table.lookup("im.message.receive_v1")) == ["LogUnhandled"]
    table.register(Greet, "im.*")
    assert names(table.lookup("im.message.receive_v1")) == ["Greet"]
    table.unregister(f"{__name__}:Greet")
    assert names(table.lookup("im.message.receive_v1")) == ["LogUnhandled"]


def test_an_alias_registers_the_real_name_with_one_warning(table: Registry) -> None:
    alias = "im.chat.member.user_added_v1"
    with structlog.testing.capture_logs() as lines:
        table.register(Greet, alias)
        table.register(audit, alias, "approval.approval.approved_v1")
    assert table.event_types() == ("im.chat.member.user.added_v1", "approval_instance")
    assert names(table.lookup("im.chat.member.user.added_v1")) == ["Greet", "audit"]
    assert names(table.lookup(alias)) == ["Greet", "audit"]
    assert [(line["alias"], line.get("status")) for line in lines] == [
        (alias, None),
        ("approval.approval.approved_v1", "APPROVED"),
    ]


@pytest.mark.parametrize("types", ["a.b_v1", ("a.b_v1",), ["a.b_v1"]])
def test_a_class_names_its_event_types_as_a_text_or_several(table: Registry, types: Any) -> None:
    table.register(type("Own", (Greet,), {"event_types": types}))
    assert table.event_types() == ("a.b_v1",)


@pytest.mark.parametrize("types", [None, 3, {"a.b_v1": 1}])
def test_event_types_that_are_none_are_a_mistake(table: Registry, types: Any) -> None:
    with pytest.raises(RegistrationInvalid, match=r"event_types=.*; give an event type, or a tup"):
        table.register(type("Own", (Greet,), {"event_types": types}))


def test_event_types_are_the_exact_ones_each_once(table: Registry) -> None:
    table.register(Greet, "im.message.receive_v1", "im.message.*")
    table.register(audit, "*", "im.message.receive_v1", "a.b_v1")
    assert table.event_types() == ("im.message.receive_v1", "a.b_v1")


def test_one_handler_registered_twice_for_different_types_is_one_registration(
    table: Registry,
) -> None:
    table.register(Greet, "im.message.receive_v1")
    table.register(Greet, "im.*")
    assert len(table.list()) == 1
    assert names(table.lookup("im.message.receive_v1")) == ["Greet"]
    assert table.list()[0].patterns == ("im.message.receive_v1", "im.*")


def test_one_handler_registered_twice_for_one_type_is_a_mistake(table: Registry) -> None:
    table.register(Greet, "im.message.receive_v1")
    with pytest.raises(
        RegistrationInvalid, match=r"registered for im\.message\.receive_v1 already"
    ):
        table.register(Greet, "im.*", "im.message.receive_v1")
    assert table.list()[0].patterns == ("im.message.receive_v1",)


def test_one_handler_registered_with_two_sets_of_options_is_a_mistake(table: Registry) -> None:
    table.register(Greet, "a", timeout=1)
    with pytest.raises(RegistrationInvalid, match="other options"):
        table.register(Greet, "b", timeout=2)


def test_two_handlers_of_one_name_are_a_mistake_unless_named_apart(table: Registry) -> None:
    table.register(Greet(), "im.message.receive_v1")
    with pytest.raises(RegistrationInvalid, match="pass another name=…, or unregister"):
        table.register(Greet(), "im.message.receive_v1")
    table.register(Greet(), "im.message.receive_v1", name="second")
    assert [each.name for each in table.list()] == [f"{__name__}:Greet", "second"]


def test_reloaded_code_must_be_unregistered_first(table: Registry) -> None:
    source = "class Reloaded(Handler):\n    def handle(self, event, context): ...\n"
    first, second = ({"Handler": Handler, "__name__": "module"} for _ in range(2))
    exec(source, first)  # noqa: S102
    exec(source, second)  # noqa: S102
    table.register(first["Reloaded"], "a")
    with pytest.raises(RegistrationInvalid, match="unregister that handler first"):
        table.register(second["Reloaded"], "a")
    table.unregister("module:Reloaded")
    table.register(second["Reloaded"], "a")


def test_unregistering_an_unknown_name_lists_the_known(table: Registry) -> None:
    with pytest.raises(RegistrationInvalid, match="registered: none"):
        table.unregister("x")


def test_a_refused_registration_leaves_nothing_behind(table: Registry) -> None:
    for mistake in ({"timeout": 0}, {"queeu": "x"}):
        with pytest.raises(RegistrationInvalid):
            table.register(Greet, "a", **mistake)  # type: ignore[arg-type]
    with pytest.raises(RegistrationInvalid):
        table.register(Greet, "a b")
    assert table.list() == ()


def test_lookups_are_cached_and_the_cache_is_bounded(
    table: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table.lookup("a.b")
    assert table.lookup("a.b") is first
    for number in range(_MAX_CACHED * 2):
        table.lookup(f"made.up_{number}")
    assert len(table._cache) <= _MAX_CACHED


def test_changes_and_lookups_from_many_threads_agree_in_the_end(table: Registry) -> None:
    def change(number: int) -> None:
        for turn in range(50):
            name = f"h{number}-{turn}"
            table.register(Greet(), "im.*", name=name)
            assert name in [each.name for each in table.lookup("im.message.receive_v1")]
            table.unregister(name)
            assert name not in [each.name for each in table.lookup("im.message.receive_v1")]

    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            change(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert table.lookup("im.message.receive_v1") == (table.default,)


def test_a_handler_is_found_by_its_name_the_default_too(table: Registry) -> None:
    greet = table.register(Greet, "im.*")
    assert table.get(greet.name) is greet
    assert table.get(table.default.name) is table.default
    assert table.get("nobody") is None


def test_what_was_unregistered_of_a_module_can_be_restored(table: Registry) -> None:
    table.register(Greet, "im.*")
    table.register(audit, "*", name="mine", max_attempts=2)
    table.unregister("mine")
    table.unregister(f"{__name__}:Greet")
    assert table.restore("elsewhere") == ()
    restored = table.restore(__name__)
    assert [(each.name, each.patterns, each.max_attempts) for each in restored] == [
        ("mine", ("*",), 2),
        (f"{__name__}:Greet", ("im.*",), 2),
    ]
    assert table.list() == restored
    assert table.restore(__name__) == ()


def test_a_package_stands_for_all_in_it(table: Registry) -> None:
    table.register(Greet, "im.*")
    table.unregister(f"{__name__}:Greet")
    assert table.restore(__name__[:-1]) == ()
    assert names(table.restore(__name__.rpartition(".")[0])) == ["Greet"]


def test_what_came_with_a_module_counts_as_its_own(table: Registry) -> None:
    with table.loading("myapp.feishu"):
        table.register(Greet, "im.*")
    table.unregister(f"{__name__}:Greet")
    assert names(table.restore("myapp.feishu")) == ["Greet"]


def test_what_has_a_new_namesake_is_not_restored(table: Registry) -> None:
    table.register(Greet, "im.*", name="greet")
    table.unregister("greet")
    later = table.register(audit, "im.*", name="greet")
    assert table.restore(__name__) == ()
    assert table.list() == (later,)
    with table.loading("myapp.feishu"):
        table.register(mirror, "im.*", name="mine")
    table.unregister("mine")
    table.register(audit, "im.*", name="mine")
    with pytest.raises(RegistrationInvalid, match="unregister that handler first"):
        table.restore("myapp.feishu")
    table.unregister("mine")
    assert [each.name for each in table.restore("myapp.feishu")] == ["mine"]


def test_the_first_default_is_back_when_another_is_unregistered(table: Registry) -> None:
    builtin = table.default
    replaced = table.set_default(audit)
    assert table.is_registered("vc.room.created_v1") is False
    table.unregister(replaced.name)
    assert table.lookup("vc.room.created_v1") == (builtin,)
    assert table.restore(__name__) == (replaced,)
    assert table.lookup("vc.room.created_v1") == (replaced,)
    table.unregister(replaced.name)
    with pytest.raises(RegistrationInvalid, match="replace it with set_default"):
        table.unregister(builtin.name)


def test_a_module_that_fails_half_way_leaves_nothing_behind(table: Registry) -> None:
    table.register(audit, "*")
    before = (table.list(), table.default)

    def load() -> None:
        with table.loading("myapp.feishu"):
            table.register(Greet, "im.*")
            table.register(audit, "im.chat.updated_v1")
            table.set_default(mirror)
            table.unregister(f"{__name__}:audit")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load()
    assert (table.list(), table.default) == before
    # Its submodule is imported by now and would not run again.
    assert names(table.restore("myapp.feishu")) == ["Greet", "mirror"]


def test_every_change_has_a_revision(table: Registry) -> None:
    revisions = [table.revision]
    for change in (
        lambda: table.register(Greet, "im.*"),
        lambda: table.unregister(f"{__name__}:Greet"),
        lambda: table.restore(__name__),
        lambda: table.set_default(audit),
    ):
        change()
        revisions.append(table.revision)
    assert sorted(set(revisions)) == revisions


def test_only_so_many_unregistered_handlers_are_remembered(
    table: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flybridge.handlers.registering.table.MAX_REMOVED", 3)
    for number in range(5):
        table.register(Greet(), "im.*", name=f"h{number}")
        table.unregister(f"h{number}")
    assert [each.name for each in table.restore(__name__)] == ["h2", "h3", "h4"]


@pytest.mark.parametrize("options", [{"batch": Batch(2)}, {"dedup_by": "body.instance_code"}])
def test_what_would_count_all_events_takes_no_alias_that_means_some_only(
    table: Registry, options: Any
) -> None:
    with pytest.raises(RegistrationInvalid, match="check body"):
        table.register(audit, "approval.approval.approved_v1", **options)


def test_the_handler_of_a_type_is_the_users_own_object() -> None:
    registry, made = Registry(), Greet()
    registry.register(made, "im.message.receive_v1", name="made")
    registry.register(Greet, "im.message.recalled_v1", name="class")
    registry.register(audit, "im.chat.updated_v1")
    assert registry.handler_of("im.message.receive_v1") is made
    of_class = registry.handler_of("im.message.recalled_v1")
    assert isinstance(of_class, Greet)
    assert registry.handler_of("im.message.recalled_v1") is of_class
    assert registry.handler_of("im.chat.updated_v1") is audit
    assert type(registry.handler_of("custom.type_v1")).__name__ == "LogUnhandled"
    registry.register(mirror, "im.message.*", name="second")
    with pytest.raises(RegistrationInvalid, match="made, second; use lookup"):
        registry.handler_of("im.message.receive_v1")
