"""Dead letters and replays from the command line: sentences and exit codes over a real Redis."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from click import UsageError
from click.testing import Result
from redis import Redis
from structlog.testing import capture_logs

from flybridge.bridge import errors
from flybridge.bridge.cli import letters, operator
from flybridge.bridge.store.streams import BRIDGE_GROUP, Entry, Keys
from flybridge.handlers.registry import registry

KEYS = Keys("cli_test")
TYPE = "im.message.receive_v1"
HANDLER = "letters:act"

Flybridge = Callable[..., Result]


@pytest.fixture
def redis(cli_redis: Redis) -> Redis:
    cli_redis.sadd(KEYS.types, TYPE)
    return cli_redis


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    registry.register(lambda event, context: None, TYPE, name=HANDLER)
    yield
    registry.unregister(HANDLER)


@pytest.fixture
def flybridge(
    flybridge: Flybridge, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Flybridge]:
    """Run the command as ada@sea; `logged` has its log lines."""
    monkeypatch.setattr(operator, "who", lambda: "ada@sea")
    with capture_logs() as lines:
        flybridge.logged = lines  # type: ignore[attr-defined]
        yield flybridge


@pytest.fixture
def bury(redis: Redis) -> Callable[..., str]:
    """Put a letter there as a worker does; gives its id."""

    def bury(event_id: str, *, group: str = "workers", **changed: str | int) -> str:
        event = Entry(event_id, TYPE, "cli_test", "tk", "2.0", 1, 2, 3, "", "", b'{"hello": "you"}')
        fields = event.fields()
        letter = {
            **dict(zip(fields[::2], fields[1::2], strict=True)), "reason": "attempts",
            "error": "ValueError: no", "handler": HANDLER, "attempts": 5, "finished": "",
            "stream": KEYS.stream(TYPE), "entry": "1-1", "died_at": 4_000, **changed,
        }  # fmt: skip
        return redis.xadd(KEYS.dead(group), letter).decode()

    return bury


def letters_left(redis: Redis) -> int:
    return int(redis.xlen(KEYS.dead("workers")))


# list and show


def test_letters_are_listed_newest_first_with_how_many_there_are(flybridge, bury):
    for number in range(3):
        bury(f"ev{number}", error="x" * 100)
    result = flybridge("dlq", "list", "--limit", "2")
    head, newest, older, total = result.stdout.splitlines()
    assert head.split() == [
        "letter", "died", "event", "id", "type", "reason", "handler", "attempts", "error"
    ]  # fmt: skip
    assert newest.split()[2:7] == ["ev2", TYPE, "attempts", HANDLER, "5"]
    assert newest.endswith("x" * 79 + "…")
    assert older.split()[2] == "ev1"
    assert total == "2 shown; group workers has 3 dead letters"


def test_an_app_that_nothing_ever_came_for_may_be_a_typo(flybridge, monkeypatch):
    monkeypatch.setenv("FLYBRIDGE_APP_ID", "cli_tset")
    result = flybridge("dlq", "list")
    assert (result.stdout, result.exit_code) == ("0 shown; group workers has 0 dead letters\n", 0)
    (note,) = result.stderr.splitlines()
    assert "no event of app cli_tset has ever come to Redis at redis://127.0.0.1:" in note
    assert "check FLYBRIDGE_APP_ID" in note


def test_a_wrong_password_is_called_one(flybridge, redis, monkeypatch):
    port = redis.connection_pool.connection_kwargs["port"]
    monkeypatch.setenv("FLYBRIDGE_REDIS_URL", f"redis://:wrong@127.0.0.1:{port}/0")
    redis.config_set("requirepass", "right")
    try:
        result = flybridge("dlq", "list")
    finally:
        redis.config_set("requirepass", "")
    assert result.exit_code == errors.EXIT_REDIS
    assert "check user and password in FLYBRIDGE_REDIS_URL" in result.stderr
    assert "wrong@" not in result.stderr


def test_nothing_dead_is_no_error(flybridge, redis):
    redis.sadd(KEYS.subscriptions, "other|*")
    result = flybridge("dlq", "list", "--group", "other")
    assert result.stdout == "0 shown; group other has 0 dead letters\n"
    assert result.exit_code == 0
    assert flybridge("dlq", "list", "--group", BRIDGE_GROUP).exit_code == 0


def test_the_group_of_a_fresh_app_needs_no_worker_yet(flybridge):
    assert flybridge("dlq", "list").exit_code == 0
    assert flybridge("dlq", "replay", "--all").stdout == "replayed 0 of 0\n"


@pytest.mark.parametrize(
    "command",
    [["list"], ["show", "ev1"], ["replay", "--all"], ["purge", "--all", "--yes"]],
    ids=" ".join,
)
def test_a_group_with_a_typo_is_no_group_without_letters(flybridge, redis, command):
    redis.sadd(KEYS.subscriptions, "workers|*")
    result = flybridge("dlq", *command, "--group", "wrokers")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no group wrokers of app cli_test (groups: workers)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_where_there_are_other_groups_the_default_must_be_one(flybridge, redis):
    """`workers` is what nobody asked for; the letters are those of another."""
    redis.sadd(KEYS.subscriptions, "im|queue:im", "audit|*")
    result = flybridge("dlq", "list")
    assert result.exit_code == 1
    assert "there is no group workers of app cli_test (groups: audit, im)" in result.stderr


def test_letters_are_listed_as_json_for_scripts(flybridge, bury):
    bury("ev1", reason="age")
    bury("ev2")
    result = flybridge("dlq", "list", "--json", "--reason", "age")
    (letter,) = map(json.loads, result.stdout.splitlines())
    assert (letter["event_id"], letter["reason"], letter["attempts"]) == ("ev1", "age", 5)
    assert result.stderr == "1 like that shown; group workers has 2 dead letters\n"


def test_a_letter_is_shown_without_what_people_wrote_unless_asked_for(flybridge, bury):
    letter = bury("ev1")
    shown = flybridge("dlq", "show", "ev1").stdout
    assert f"letter      {letter} in {KEYS.dead('workers')}" in shown
    assert "envelope    16 bytes; --body shows it" in shown
    assert "you" not in shown
    assert '"hello": "you"' in flybridge("dlq", "show", letter, "--body").stdout


def test_letters_of_the_bridge_can_be_seen_and_purged_but_not_replayed(flybridge, bury, redis):
    bury("", group=BRIDGE_GROUP, reason="decode")
    (letter,) = [entry_id.decode() for entry_id, _ in redis.xrange(KEYS.dead(BRIDGE_GROUP))]
    assert "decode" in flybridge("dlq", "list", "--group", "bridge").stdout
    assert flybridge("dlq", "show", letter, "--group", "bridge").exit_code == 0
    refused = flybridge("dlq", "replay", letter, "--group", "bridge")
    assert refused.exit_code == 1
    assert "hold no event that can be read" in refused.stderr
    purged = flybridge("dlq", "purge", letter, "--group", "bridge", "--yes")
    assert purged.stdout == "purged 1 of 1\n"


# replay


def test_letters_are_replayed_by_either_id(flybridge, bury, redis):
    letter = bury("ev1")
    bury("ev2")
    result = flybridge("dlq", "replay", letter, "ev2", "ev1")
    assert (result.stdout, result.exit_code) == ("replayed 2 of 2\n", 0)
    assert redis.xlen(KEYS.replay("workers", TYPE)) == 2
    assert letters_left(redis) == 0


def test_all_letters_of_a_type_and_reason_are_replayed(flybridge, bury, redis):
    bury("ev1")
    bury("ev2", reason="age")
    bury("ev3", event_type="contact.user.created_v3", reason="age")
    result = flybridge("dlq", "replay", "--all", "--type", "im.*", "--reason", "age")
    assert result.stdout == "replayed 1 of 1\n"
    assert letters_left(redis) == 2


def test_a_dry_run_says_so_and_leaves_all_as_it_is(flybridge, bury, redis):
    bury("ev1")
    assert flybridge("dlq", "replay", "--all", "--dry-run").stdout == "would replay 1 of 1\n"
    assert letters_left(redis) == 1
    assert not redis.exists(KEYS.audit)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("", "see them with: flybridge dlq list"),
        ("done", "the event is done by now"),
        ("retry", "the event is in work"),
        ("dead", "the event is dead, and its letter was purged"),
    ],
)
def test_an_id_without_a_letter_is_refused_and_says_what_is_known(
    flybridge, bury, redis, state, says
):
    bury("ev1")
    if state:
        redis.hset(KEYS.state("workers", "ev2"), "state", state)
    result = flybridge("dlq", "replay", "ev1", "ev2")
    assert result.exit_code == 1
    assert result.stdout == "replayed 1 of 2; left: 1 not found\n"
    assert result.stderr.startswith(
        f"flybridge: ev2: group workers has no dead letter of this letter or event id; {says}\n"
    )
    assert says in flybridge("dlq", "show", "ev2").stderr


def test_what_is_done_by_now_is_refused_with_what_to_do(flybridge, bury, redis):
    letter = bury("ev1")
    redis.hset(KEYS.state("workers", "ev1"), "state", "done")
    result = flybridge("dlq", "replay", "ev1")
    assert result.exit_code == 1
    assert result.stdout == "replayed 0 of 1; left: 1 done by now\n"
    assert result.stderr == (
        "flybridge: ev1: it is done by now, so it is not replayed; purge its letter: "
        f"flybridge dlq purge {letter}\n"
    )


def test_a_handler_that_is_not_loaded_is_named_with_those_that_are(flybridge, bury, redis):
    bury("ev1", handler="myapp:gone")
    result = flybridge("dlq", "replay", "ev1")
    assert result.exit_code == 1
    assert result.stdout == "replayed 0 of 1; left: 1 without their handler here\n"
    assert f"its handler myapp:gone is not loaded here, for {TYPE} there is {HANDLER};" in (
        result.stderr
    )
    assert letters_left(redis) == 1
    registry.unregister(HANDLER)
    assert f"not loaded here, and no other for {TYPE};" in flybridge("dlq", "replay", "ev1").stderr
    registry.register(lambda event, context: None, TYPE, name=HANDLER)
    assert flybridge("dlq", "replay", "ev1", "--force").stdout == "replayed 1 of 1\n"


def test_handlers_that_cannot_be_imported_end_it_with_code_7(flybridge, bury, redis):
    bury("ev1")
    result = flybridge("dlq", "replay", "ev1", "--handlers", "no_such_module")
    assert result.exit_code == errors.EXIT_PLUGIN
    assert "no_such_module" in result.stderr
    assert result.stderr.endswith("or use --force if the workers have it\n")
    assert letters_left(redis) == 1


def test_letters_changed_by_hand_stay_and_say_why(flybridge, bury, redis):
    bury("ev1", term="soon")
    redis.xadd(KEYS.dead("workers"), {"x": "\x1b[2J"})
    bury("ev2")
    result = flybridge("dlq", "replay", "--all")
    assert result.exit_code == 1
    assert result.stdout == "replayed 1 of 3; left: 2 unreadable\n"
    assert "(invalid literal for int() with base 10: b'soon')" in result.stderr
    assert "entry has no event_id or no envelope" in result.stderr
    assert letters_left(redis) == 2
    assert flybridge("dlq", "list").exit_code == 0


def test_only_the_first_refusals_are_told_one_by_one(flybridge, redis):
    for _ in range(30):
        redis.xadd(KEYS.dead("workers"), {"x": "y"})
    result = flybridge("dlq", "replay", "--all", "--rate", "1000")
    assert result.stdout == "replayed 0 of 30; left: 30 unreadable\n"
    assert len(result.stderr.splitlines()) == 21


def test_a_spoilt_key_of_one_event_is_named_and_stops_no_other(flybridge, bury, redis):
    bury("ev1")
    bury("ev2")
    redis.set(KEYS.state("workers", "ev1"), "spoilt")
    result = flybridge("dlq", "replay", "--all")
    assert result.stdout == "replayed 1 of 2; left: 1 with a spoilt key\n"
    assert letters_left(redis) == 1


@pytest.mark.parametrize("command", [["list"], ["show", "ev1"], ["replay", "--all"],
                                     ["purge", "--all", "--yes"]])  # fmt: skip
def test_letters_that_are_no_stream_are_a_sentence(flybridge, redis, command):
    redis.set(KEYS.dead("workers"), "spoilt")
    result = flybridge("dlq", *command)
    assert result.exit_code == errors.EXIT_REDIS
    assert "dead:workers is spoilt" in result.stderr
    assert "rename or delete it" in result.stderr


def test_a_full_redis_refuses_replays_with_a_sentence_and_loses_nothing(flybridge, bury, redis):
    bury("ev1")
    redis.config_set("maxmemory", "1")
    try:
        result = flybridge("dlq", "replay", "--all")
        assert result.exit_code == errors.EXIT_REDIS
        assert result.stdout == "replayed 0 of 0\n"
        assert "flybridge: Redis is full (maxmemory), so nothing more is replayed" in result.stderr
        assert letters_left(redis) == 1
    finally:
        redis.config_set("maxmemory", "0")


def test_an_absent_redis_is_a_sentence(flybridge):
    result = flybridge("dlq", "replay", "--all", "--redis-url", "redis://127.0.0.1:1/0")
    assert result.exit_code == errors.EXIT_REDIS
    assert result.stderr.startswith("flybridge: Redis at redis://127.0.0.1:1/0 did not answer")
    assert "repeat the command for the rest" in result.stderr
    looked = flybridge("dlq", "list", "--redis-url", "redis://127.0.0.1:1/0")
    assert looked.stderr.endswith("check that it runs, and FLYBRIDGE_REDIS_URL.\n")


@pytest.mark.parametrize(
    "arguments",
    [["replay"], ["replay", "ev1", "--all"], ["purge"], ["purge", "ev1", "--before", "2h"],
     ["replay", "--all", "--rate", "0"], ["show"], ["list", "--limit", "0"],
     ["purge", "--all", "--before", "yesterday", "--yes"]],
)  # fmt: skip
def test_choices_that_contradict_each_other_are_usage_errors(flybridge, arguments):
    assert flybridge("dlq", *arguments).exit_code == UsageError.exit_code


# purge


def test_purging_asks_for_a_yes_where_nobody_can_be_asked(flybridge, bury, redis):
    bury("ev1")
    result = flybridge("dlq", "purge", "--all")
    assert result.exit_code == 1
    assert "say that you mean it with --yes" in result.stderr
    assert letters_left(redis) == 1


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2)])
def test_purging_asks_on_a_terminal(flybridge, bury, redis, monkeypatch, answer, left):
    bury("ev1")
    bury("ev2")

    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(letters, "sys", SimpleNamespace(stdin=terminal, exit=sys.exit))
    monkeypatch.setattr("click.confirm", lambda question, **_: answer == "y\n")
    result = flybridge("dlq", "purge", "--all")
    assert letters_left(redis) == left
    assert result.exit_code == int(left > 0)


def test_purged_letters_are_gone_and_audited(flybridge, bury, redis):
    bury("ev1")
    bury("ev2", reason="age")
    result = flybridge("dlq", "purge", "--all", "--reason", "age", "--yes")
    assert result.stdout == "purged 1 of 1\n"
    assert letters_left(redis) == 1
    ((_, audit),) = redis.xrange(KEYS.audit)
    assert (audit[b"action"], audit[b"who"]) == (b"purge", b"ada@sea")
    (line,) = flybridge.logged
    assert line == {
        "event": "audit.written", "log_level": "info", "action": "purged", "count": 1,
        "group": "workers", "who": "ada@sea", "audit": KEYS.audit,
    }  # fmt: skip
    assert flybridge("dlq", "purge", "--all", "--before", "1h", "--yes").stdout == "purged 0 of 0\n"


# windows


@pytest.fixture
def publish(redis: Redis) -> Callable[..., None]:
    def publish(event_id: str, ms: int | None = None) -> None:
        event = Entry(event_id, TYPE, "cli_test", "tk", "2.0", 1, 2, 3, "", "", b"{}")
        fields = event.fields()
        redis.xadd(
            KEYS.stream(TYPE),
            dict(zip(fields[::2], fields[1::2], strict=True)),
            id=f"{ms}-0" if ms else "*",
        )

    return publish


def test_a_window_is_fed_again_but_for_what_is_known(flybridge, publish, redis):
    publish("old", 1_000)
    for name in ("ev1", "ev2", "ev3"):
        publish(name)
    redis.xgroup_create(KEYS.stream(TYPE), "workers", id="0")
    redis.hset(KEYS.state("workers", "ev1"), "state", "done")
    redis.hset(KEYS.state("workers", "ev2"), "state", "dead")
    dry = flybridge("replay", "--from", "1970-01-01T00:00:00Z", "--dry-run")
    assert dry.stdout.startswith("would re-feed 1 of 4; left: ")
    result = flybridge("replay", "--from", "1970-01-01T00:00:00Z")
    assert result.exit_code == 0
    assert result.stdout == (
        "re-fed 1 of 4; left: 1 too old to know whether they are done (see --again), "
        "1 done by now, 1 dead (see flybridge dlq replay)\n"
    )
    assert flybridge("replay", "--from", "1h", "--again").stdout.startswith("re-fed 1 of 3;")
    assert flybridge("replay", "--from", "2h", "--to", "1h").stdout == "re-fed 0 of 0\n"


def test_a_window_for_a_group_nobody_knows_is_refused(flybridge, publish, redis):
    publish("ev1")
    redis.xgroup_create(KEYS.stream(TYPE), "workers", id="0")
    result = flybridge("replay", "--from", "1h", "--group", "wrokers")
    assert result.exit_code == 1
    assert "no worker of group wrokers has ever read these events (groups: workers)" in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--from", "1h", "--to", "2h"], 2), (["--from", "noon"], 2), ([], 2),
     (["--from", "1h", "--group", "bridge"], 1)],
)  # fmt: skip
def test_windows_that_make_no_sense_are_refused(flybridge, publish, redis, arguments, code):
    publish("ev1")
    redis.xgroup_create(KEYS.stream(TYPE), "workers", id="0")
    assert flybridge("replay", *arguments).exit_code == code
