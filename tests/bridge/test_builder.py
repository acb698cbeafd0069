"""What a builder collects becomes one service; every mistake is a sentence before anything runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from flybridge.bridge import builder as module
from flybridge.bridge import service as services
from flybridge.bridge.builder import (
    Builder,
    Service,
    ServiceSettings,
    service_from,
    service_with_multi_handler,
    service_with_single_handler,
)
from flybridge.bridge.errors import BridgeError, Misused, RedisUnreachable, SettingsInvalid
from flybridge.handlers import Context, Event, Handler, Middleware, handles
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registering.overlap import overlap
from flybridge.handlers.registry import Registry, registry
from flybridge.handlers.testing import run
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("no_settings", "together")

APP = {"app_id": "cli_a1", "app_secret": "hush"}
MESSAGE = "im.message.receive_v1"
CREATED = "contact.user.created_v3"
APPROVED = "approval.approval.approved_v1"


class Part:
    """Stands for the manager or the worker: says what is done to it, fails when told."""

    def __init__(self, name: str, deeds: list[str]) -> None:
        self.name, self.deeds = name, deeds
        self.fails: BridgeError | None = None
        self.hangs = False
        self.end: asyncio.Future[None] | None = None
        self.runs = False

    async def start(self) -> None:
        self.deeds.append(f"start {self.name}")
        self.end = asyncio.get_running_loop().create_future()
        self.runs = True
        if self.fails:
            raise self.fails
        if self.hangs:
            await asyncio.Event().wait()
        self.deeds.append(f"{self.name} is up")

    async def wait(self) -> None:
        assert self.end
        await asyncio.shield(self.end)

    async def stop(self) -> None:
        if self.end is None or not self.runs:
            return
        self.runs = False
        self.deeds.append(f"stop {self.name}")
        if not self.end.done():
            self.end.set_result(None)
        for _ in range(9):
            await asyncio.sleep(0)

    def in_work(self) -> dict[str, Any]:
        return {}

    def abandon(self) -> None:
        self.deeds.append(f"abandon {self.name}")

    def break_with(self, error: BridgeError) -> None:
        assert self.end
        self.end.set_exception(error)


class Together:
    """A manager and a worker, neither of which connects to anything."""

    def __init__(self) -> None:
        self.deeds: list[str] = []
        self.manager, self.worker = Part("bridge", self.deeds), Part("worker", self.deeds)
        self.registry: Registry | None = None

    def make_manager(self, settings: Any) -> Part:
        return self.manager

    def make_worker(self, settings: Any, registry: Registry) -> Part:
        self.registry = registry
        return self.worker


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Together:
    both = Together()
    monkeypatch.setattr(services, "ConnectionManager", both.make_manager)
    monkeypatch.setattr(module, "InlineWorker", both.make_worker)
    return both


class Greet(Handler):
    event_types = MESSAGE

    async def handle(self, event: Event, context: Context) -> None: ...


class Audit(Handler):
    async def handle(self, event: Event, context: Context) -> None: ...


class Welcome(Handler):
    async def handle(self, event: Event, context: Context) -> None: ...


@pytest.fixture(autouse=True, scope="module")
def decorated() -> Iterator[None]:
    """`Welcome` is decorated as long as these tests run: others want an empty registry."""
    handles(CREATED, timeout=7.0)(Welcome)
    yield
    registry.unregister(f"{__name__}:Welcome")


def configured(**options: Any) -> Builder:
    return Builder().configure(**APP, **options)


def problems(builder: Builder) -> list[str]:
    with pytest.raises(SettingsInvalid) as caught:
        builder.build()
    return caught.value.problems


def names(service: Service, event_type: str = MESSAGE) -> list[str]:
    return [each.name.rpartition(":")[2] for each in service.registry.lookup(event_type)]


# Settings


def test_app_id_secret_and_a_handler_are_all_a_service_needs() -> None:
    service = configured().add_handler(Greet).build()

    assert service.settings.app_id == "cli_a1"
    assert names(service) == ["Greet"]


def test_what_is_configured_later_wins_over_files_over_environment_over_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def delay(*changes: Callable[[Builder], object]) -> float:
        builder = configured().add_handler(Greet)
        for change in changes:
            builder.apply(change)
        return builder.build().settings.reconnect_delay

    def from_file(builder: Builder) -> None:
        builder.configure_from({"Feishu": {"ReconnectDelayMs": 4000}})

    def from_code(builder: Builder) -> None:
        builder.configure(reconnect_delay=5)

    assert delay() == 1
    Path(".env").write_text("FLYBRIDGE_RECONNECT_DELAY=2\n")
    assert delay() == 2
    monkeypatch.setenv("FLYBRIDGE_RECONNECT_DELAY_MS", "3000")
    assert delay() == 3
    assert delay(from_file) == 4
    assert delay(from_file, from_code) == 5
    assert delay(from_code, from_file) == 4


def test_settings_come_from_a_file_and_from_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"Production": {"WebSocket": APP}}))

    service = Builder().configure_from(tmp_path / "a.json", "Production:WebSocket")
    assert service.configure_from(None).add_handler(Greet).build().settings.app_id == "cli_a1"


def test_an_option_that_does_not_exist_is_a_mistake_at_once() -> None:
    for mistake in (
        lambda: Builder().configure(reconect_delay_ms=1),
        lambda: Builder().configure_from({"Feishu": {"reconect_delay_ms": 1}}),
    ):
        with pytest.raises(SettingsInvalid, match="did you mean reconnect_delay_ms"):
            mistake()


def test_modules_of_handlers_are_for_workers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid, match="handlers is for flybridge worker"):
        Builder().configure(handlers="myapp.feishu")
    monkeypatch.setenv("FLYBRIDGE_HANDLERS", "myapp.feishu")
    assert names(configured().add_handler(Greet).build()) == ["Greet"]


def test_a_file_or_section_that_does_not_exist_is_a_mistake_at_once() -> None:
    with pytest.raises(SettingsInvalid, match="is not a file"):
        Builder().configure_from("missing.json")
    with pytest.raises(SettingsInvalid, match="no section 'Feishu'"):
        Builder().configure_from({})
    with pytest.raises(SettingsInvalid, match="section=3 is no text"):
        Builder().configure_from({}, section=3)  # type: ignore[arg-type]


def test_all_that_is_wrong_with_settings_and_handlers_is_told_at_once() -> None:
    told = problems(Builder().configure(ReconnectDelayMs="soon", ops_port=99999))

    assert [sentence.split()[0] for sentence in told] == [
        "FLYBRIDGE_APP_ID",
        "FLYBRIDGE_APP_SECRET",
        "ReconnectDelayMs",
        "ops_port",
        "No",
    ]


# Handlers


def test_a_class_an_instance_a_factory_and_a_function_are_handlers() -> None:
    def make() -> Audit:
        return Audit()

    def act(event: Event, context: Context) -> None: ...

    builder = configured().add_handler(Greet).add_handler(Welcome(), "a.one")
    service = builder.add_handler(make, "a.two").add_handler(act, "a.three", timeout=3).build()

    assert names(service) == ["Greet"]
    others = [names(service, name)[0] for name in ("a.one", "a.two", "a.three")]
    assert [name.rpartition(".")[2] for name in others] == ["Welcome", "make", "act"]
    assert service.registry.lookup("a.three")[0].timeout == 3


def test_types_come_from_the_call_or_the_decorator_or_the_class() -> None:
    assert names(configured().add_handler(Welcome).build(), CREATED) == ["Welcome"]
    assert names(configured().add_handler(Welcome()).build(), CREATED) == ["Welcome"]
    service = configured().add_handler(Welcome, MESSAGE).build()
    assert names(service) == ["Welcome"]
    assert names(service, CREATED) == ["LogUnhandled"]


def test_options_of_the_decorator_come_along_and_those_of_the_call_win() -> None:
    assert configured().add_handler(Welcome).build().registry.list()[0].timeout == 7
    service = configured().add_handler(Welcome, timeout=9.0).build()
    assert service.registry.list()[0].timeout == 9


def test_a_service_has_a_registry_of_its_own() -> None:
    one, other = (configured().add_handler(Greet).build() for _ in range(2))
    one.registry.register(Audit, "a.b")

    assert not other.registry.is_registered("a.b")
    assert not one.registry.is_registered(CREATED)  # though Welcome is decorated with it


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        ((Audit,), {}, "no event types"),
        ((3, MESSAGE), {}, "is not a handler"),
        ((Greet, "a b"), {}, "is not an event type"),
        ((Greet,), {"timout": 3}, "did you mean 'timeout'"),
        ((Greet,), {"timeout": -1}, "more than 0"),
    ],
)
def test_a_handler_that_cannot_be_one_is_a_mistake_at_once(
    arguments: tuple[Any, ...], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(RegistrationInvalid, match=told):
        configured().add_handler(*arguments, **options)


def test_the_same_handler_twice_is_a_mistake_at_once() -> None:
    with pytest.raises(RegistrationInvalid, match="already; remove one of the two"):
        configured().add_handler(Greet).add_handler(Greet)


def test_two_handlers_for_one_type_need_multi_handler() -> None:
    for patterns in ((MESSAGE,), ("im.*",), ("*",), ("a.b", "*.receive_v1")):
        (told,) = problems(configured().add_handler(Audit, *patterns).add_handler(Greet))
        assert told.endswith(f"are both for {MESSAGE}; use_multi_handler() lets them share.")
        shared = configured().use_multi_handler().add_handler(Greet).add_handler(Audit, *patterns)
        assert names(shared.build()) == ["Greet", "Audit"]


def test_two_handlers_for_two_types_need_no_multi_handler() -> None:
    service = configured().add_handler(Greet).add_handler(Welcome).build()
    assert names(service) + names(service, CREATED) == ["Greet", "Welcome"]


def test_a_wrong_name_for_a_type_is_the_type() -> None:
    builder = configured().add_handler(Greet, "im.chat.member.user_added_v1")
    (told,) = problems(builder.add_handler(Audit, "im.chat.member.user.added_v1"))
    assert "for im.chat.member.user.added_v1, alias im.chat.member.user_added_v1; use" in told


def test_approved_and_rejected_are_two_types_to_their_authors_and_need_no_multi_handler() -> None:
    """Feishu sends one type for both; each handler runs for its own status only."""
    ran: list[str] = []

    def approved(event: Event, context: Context) -> None:
        ran.append(f"approved {event.body['status']}")

    def rejected(event: Event, context: Context) -> None:
        ran.append(f"rejected {event.body['status']}")

    builder = configured().add_handler(approved, APPROVED, CREATED)
    service = builder.add_handler(rejected, "approval.approval.rejected_v1").build()
    for status in ("APPROVED", "REJECTED", "PENDING"):
        for handler in (approved, rejected):
            run(handler, "approval_instance", {"status": status}, registry=service.registry)

    assert ran == ["approved APPROVED", "rejected REJECTED"]


@pytest.mark.parametrize("other", ["approval_instance", APPROVED, "approval*", "*"])
def test_who_is_for_all_approvals_shares_those_that_are_approved(other: str) -> None:
    (told,) = problems(configured().add_handler(Audit, other).add_handler(Greet, APPROVED))
    assert f"are both for approval_instance, alias {APPROVED}; use_multi_handler()" in told


def test_who_is_for_approved_and_rejected_shares_either() -> None:
    rejected = "approval.approval.rejected_v1"
    builder = configured().add_handler(Audit, APPROVED, rejected).add_handler(Greet, rejected)
    (told,) = problems(builder)
    assert f"alias {rejected};" in told


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("a", "a", True), ("a", "b", False), ("a.*", "a.b", True), ("a.*", "b.*", False),
        ("*", "", True), ("a*c", "*bc", True), ("a*b", "a*c", False), ("*a*", "*b*", True),
        ("ab", "a", False), ("*" * 60, "a" * 60, True), ("*a" * 40, "*b" * 40, False),
    ],
)  # fmt: skip
def test_patterns_meet_where_some_type_is_covered_by_both(one: str, other: str, meet: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is meet


def test_multi_handler_may_be_configured_and_the_later_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mode(builder: Builder) -> tuple[bool, bool]:
        settings = builder.add_handler(Greet).build().settings
        assert isinstance(settings, ServiceSettings)
        return settings.multi_handler, settings.parallel_handlers

    assert mode(configured()) == (False, True)
    assert mode(configured(EnableMultiHandlerMode=True, ParallelMultiHandlers=False)) == (
        True,
        False,
    )
    assert mode(configured(parallel_multi_handlers=False).use_multi_handler()) == (True, False)
    assert mode(configured().use_multi_handler(parallel=False)) == (True, False)
    assert mode(configured().use_multi_handler().configure(multi_handler=False)) == (False, True)
    monkeypatch.setenv("FLYBRIDGE_ENABLE_MULTI_HANDLER_MODE", "true")
    assert mode(configured()) == (True, True)
    monkeypatch.delenv("FLYBRIDGE_ENABLE_MULTI_HANDLER_MODE")
    monkeypatch.setenv("FLYBRIDGE_MULTI_HANDLER", "true")
    assert mode(configured()) == (True, True)


def test_no_handler_at_all_is_a_mistake() -> None:
    (told,) = problems(configured())
    assert told.startswith("No handler was added")


def test_handlers_of_one_type_that_contradict_each_other_are_a_mistake() -> None:
    builder = Builder().use_multi_handler().add_handler(Greet, queue="one")
    told = problems(builder.add_handler(Audit, MESSAGE, queue="two"))
    assert len(told) == 3
    assert "name different queues (one, two)" in told[2]


def test_a_default_handler_is_one() -> None:
    service = configured().set_default_handler(Audit, timeout=3.0).build()
    assert names(service, "any.type") == ["Audit"]
    assert service.registry.default.timeout == 3


def test_a_bridge_alone_runs_no_handlers(together: Together) -> None:
    service = configured().bridge_only().build()
    assert together.registry is None
    assert not service.registry.list()
    (told,) = problems(configured().bridge_only().add_handler(Greet))
    assert "some were added; leave out one of both" in told


def test_middleware_is_around_all_handlers() -> None:
    class Seen(Middleware):
        def before(self, event: Event, context: Context) -> None: ...

    plain = configured().add_handler(Greet).build()
    service = configured().use(Seen).add_handler(Greet).build()
    assert service.registry.lookup(MESSAGE)[0].run is not plain.registry.lookup(MESSAGE)[0].run
    with pytest.raises(RegistrationInvalid):
        configured().use(3)


def test_apply_hands_over_the_builder_and_ignores_what_comes_back() -> None:
    def audited(builder: Builder) -> int:
        builder.add_handler(Audit, CREATED)
        return 3

    service = configured().add_handler(Greet).apply(audited).build()
    assert names(service, CREATED) == ["Audit"]


async def later(builder: Builder) -> None: ...


@pytest.mark.parametrize("change", [None, True, later])
def test_what_would_change_nothing_is_a_mistake_at_once(change: Any) -> None:
    with pytest.raises(SettingsInvalid, match=r"changes nothing; give a def\(builder\)"):
        configured().apply(change)


@pytest.mark.parametrize("handlers", [Greet, Greet(), "myapp.feishu", None])
def test_what_is_no_list_of_handlers_is_a_mistake_at_once(handlers: Any) -> None:
    with pytest.raises(SettingsInvalid, match="is no list of handlers; give"):
        service_from({"Feishu": APP}, handlers=handlers)


def test_a_builder_that_has_built_is_used_up() -> None:
    builder = configured().add_handler(Greet)
    builder.build()
    for late in (
        lambda: builder.add_handler(Audit, CREATED),
        lambda: builder.set_default_handler(Audit),
        lambda: builder.configure(),
        lambda: builder.configure_from({}),
        lambda: builder.use(Middleware),
        lambda: builder.use_multi_handler(),
        lambda: builder.apply(print),
        lambda: builder.bridge_only(),
        lambda: builder.build(),
    ):
        with pytest.raises(SettingsInvalid, match="has built its service; make another"):
            late()


def test_a_builder_that_could_not_build_may_be_put_right() -> None:
    builder = Builder().add_handler(Greet)
    assert len(problems(builder)) == 2
    assert builder.configure(**APP).build().settings.app_id == "cli_a1"


# In one call


def test_one_call_with_one_handler() -> None:
    service = service_with_single_handler(Greet, **APP, AutoReconnect=True)
    assert names(service) == ["Greet"]
    assert names(service_with_single_handler(Audit, CREATED, **APP), CREATED) == ["Audit"]


def test_one_call_with_several_handlers() -> None:
    class Again(Greet): ...

    service = service_with_multi_handler(Greet, Again, Welcome, **APP, EnableLogging=True)
    assert len(names(service)) == 2
    assert names(service, CREATED) == ["Welcome"]


def test_one_call_with_a_source() -> None:
    app = {"AppId": "cli_a1", "AppSecret": "hush"}
    assert names(service_from({"Feishu": app}, handlers=[Greet])) == ["Greet"]
    assert not service_from({"A": {"B": app}}, "A:B").registry.list()


# The service


@pytest.fixture
def service(together: Together) -> Service:
    return configured().add_handler(Greet).build()


UP = ["start worker", "worker is up", "start bridge", "bridge is up"]
DOWN = ["stop bridge", "stop worker"]


async def test_the_worker_is_up_before_the_bridge_and_goes_after_it(
    service: Service, together: Together
) -> None:
    async with service:
        assert together.deeds == UP
    assert together.deeds == UP + DOWN
    await service.wait()
    await service.stop()
    async with service:
        pass
    assert together.deeds == (UP + DOWN) * 2


async def test_a_bridge_that_cannot_start_takes_the_worker_with_it(
    service: Service, together: Together
) -> None:
    together.manager.fails = RedisUnreachable("no Redis")
    with pytest.raises(RedisUnreachable):
        await service.start()
    assert together.deeds[-2:] == DOWN
    with pytest.raises(Misused, match="never started"):
        await service.wait()


@pytest.mark.parametrize("name", ["manager", "worker"])
async def test_when_one_ends_by_itself_the_other_stops_and_wait_tells_why(
    name: str, service: Service, together: Together
) -> None:
    await service.start()
    waiting = asyncio.create_task(service.wait())
    await asyncio.sleep(0)
    with capture_logs() as logged:
        getattr(together, name).break_with(RedisUnreachable("gone"))
        with pytest.raises(RedisUnreachable, match="gone"):
            await waiting
    assert together.deeds[-2:] == DOWN
    assert not logged
    await service.stop()


async def test_an_end_that_nobody_waits_for_is_logged(service: Service, together: Together) -> None:
    with capture_logs() as logged:
        async with service:
            together.worker.break_with(RedisUnreachable("gone"))
            await eventually(lambda: logged)
    assert (logged[0]["event"], logged[0]["reason"]) == ("service.ended", "gone")


async def test_a_stop_stops_each_of_the_two_once(
    service: Service, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: list[str] = []
    for part in (together.manager, together.worker):
        stop = part.stop

        async def counted(name: str = part.name, stop: Callable[[], Any] = stop) -> None:
            stops.append(name)
            await stop()

        monkeypatch.setattr(part, "stop", counted)
    await service.start()
    await service.stop()
    assert stops == ["bridge", "worker"]


async def test_a_service_cannot_be_started_twice(service: Service) -> None:
    async with service:
        with pytest.raises(Misused, match="runs already"):
            await service.start()


async def test_a_stop_during_the_start_comes_after_it(service: Service, together: Together) -> None:
    await asyncio.gather(service.start(), service.stop())
    assert together.deeds == UP + DOWN


async def test_a_start_that_is_cancelled_leaves_nothing(
    service: Service, together: Together
) -> None:
    together.manager.hangs = True
    starting = asyncio.create_task(service.start())
    await eventually(lambda: "start bridge" in together.deeds)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert together.deeds[-2:] == DOWN


def test_a_service_may_live_in_one_loop_after_the_other(
    service: Service, together: Together
) -> None:
    async def live() -> None:
        async with service:
            await asyncio.sleep(0)
        await service.wait()

    asyncio.run(live())
    asyncio.run(live())
    assert together.deeds == (UP + DOWN) * 2


async def test_run_is_not_for_a_running_loop(service: Service) -> None:
    with pytest.raises(Misused, match="use `async with` instead"):
        service.run()


async def test_run_is_for_the_main_thread(service: Service) -> None:
    with pytest.raises(Misused, match="only the main thread"):
        await asyncio.to_thread(service.run)


async def test_embedded_it_configures_no_logs_but_warns_of_unwise_settings_once() -> None:
    service = configured(HeartbeatIntervalMs=30000).add_handler(Greet).build()
    before = structlog.get_config(), sys.excepthook
    with capture_logs() as logged:
        async with service:
            pass
    assert (structlog.get_config(), sys.excepthook) == before
    assert [each["event"] for each in logged] == ["setting.unwise"]
    assert (logged[0]["name"], logged[0]["given"]) == ("HeartbeatIntervalMs", 30000)
    assert logged[0]["used"] == "ping_interval=24.0"


@pytest.mark.parametrize("hangs", [True, False])
def test_a_signal_ends_it_though_it_has_not_come_up(
    hangs: bool, service: Service, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.logs, "configure", lambda *args, **options: None)
    together.manager.hangs = hangs
    awaited = "start bridge" if hangs else "bridge is up"

    def send() -> None:
        while awaited not in together.deeds:
            threading.Event().wait(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    before = signal.getsignal(signal.SIGTERM)
    service.run()
    sender.join()
    assert together.deeds[-2:] == DOWN
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_ends_with_the_code_and_the_sentence_of_the_command_line(
    service: Service, together: Together, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(services.logs, "configure", lambda *args, **options: None)
    together.manager.fails = RedisUnreachable("No Redis; start one.")
    with pytest.raises(SystemExit) as caught:
        service.run()
    assert caught.value.code == RedisUnreachable.exit_code
    assert json.loads(capsys.readouterr().err)["reason"] == "No Redis; start one."


# What a service refuses beyond settings


class Silent(Handler):
    def handle(self, event: Event, context: Context) -> None: ...


@pytest.mark.parametrize("made", [3, None, Silent, "handler"])
def test_a_factory_that_makes_no_handler_is_refused_by_build(made: object) -> None:
    builder = configured().add_handler(lambda: made, "im.message.receive_v1")
    with pytest.raises(SettingsInvalid, match=r"the factory at .* return an instance"):
        builder.build()


def test_a_default_factory_that_makes_no_handler_is_refused_too() -> None:
    builder = configured().set_default_handler(lambda: 3)
    with pytest.raises(SettingsInvalid, match="return an instance of a Handler subclass"):
        builder.build()


def test_a_factory_makes_one_handler_and_one_that_cannot_yet_is_asked_again() -> None:
    made: list[Silent] = []

    def make() -> Any:
        made.append(Silent())
        return made[-1]

    def fail_outside_of_a_loop() -> Any:
        asyncio.get_running_loop()
        return Silent()

    service = (
        configured()
        .add_handler(make, "im.message.receive_v1")
        .add_handler(fail_outside_of_a_loop, "im.message.recalled_v1")
        .build()
    )
    assert service.registry.handler_of("im.message.receive_v1") is made[0]
    assert len(made) == 1


def test_single_handler_mode_holds_after_build_too() -> None:
    service = configured().add_handler(Silent(), "im.message.receive_v1").build()
    for pattern in ("im.message.receive_v1", "im.*", "*"):
        with pytest.raises(RegistrationInvalid, match=r"use_multi_handler\(\) lets them share"):
            service.registry.register(lambda event, context: None, pattern, name="second")
    assert len(service.registry.lookup("im.message.receive_v1")) == 1
    service.registry.register(Silent(), "im.message.recalled_v1", name="other")
    assert service.registry.is_registered("im.message.recalled_v1")


def test_a_build_that_failed_leaves_the_choice_of_several_handlers_open() -> None:
    builder = Builder().add_handler(Silent(), "im.message.receive_v1", name="one")
    with pytest.raises(SettingsInvalid):
        builder.configure(app_id="cli_test", message_queue_capacity=-1).build()
    builder.use_multi_handler().add_handler(Silent(), "im.message.receive_v1", name="two")
