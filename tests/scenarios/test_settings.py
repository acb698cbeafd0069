"""What an operator reads when a bridge cannot start: every problem by name, and its cure."""

from __future__ import annotations

from flybridge.bridge.errors import EXIT_REDIS, EXIT_SETTINGS
from tests.scenarios.ops_port import free_port
from tests.scenarios.stage import Actor, Stage, message
from tests.waiting import eventually


async def refused(bridge: Actor) -> tuple[int, list[str]]:
    """The exit code of a bridge that does not start, and what it says to the operator."""
    code = await bridge.ended()
    assert "Traceback" not in bridge.log.read_text()
    return code, bridge.last_words()


async def test_every_missing_or_wrong_setting_is_named_at_once(stage: Stage) -> None:
    wrong = {"app_id": "", "app_secret": "", "retry_period": 5, "redis_url": "http://canary"}
    code, said = await refused(stage.bridge(**wrong))

    assert code == EXIT_SETTINGS
    assert [line.split()[0] for line in said] == [
        "FLYBRIDGE_APP_ID",
        "FLYBRIDGE_REDIS_URL",
        "FLYBRIDGE_APP_SECRET",
        "FLYBRIDGE_RENEW_DEADLINE",
    ]
    assert all(line.count(";") and line.endswith(".") for line in said)
    assert "canary" not in "".join(said)


async def test_a_redis_that_is_down_is_a_sentence(stage: Stage) -> None:
    url = f"redis://user:canary@127.0.0.1:{free_port()}/0"
    code, said = await refused(stage.bridge(redis_url=url))

    assert code == EXIT_REDIS
    (sentence,) = said
    assert sentence.endswith("check that it runs, and FLYBRIDGE_REDIS_URL.")
    assert "canary" not in stage.actors[0].log.read_text()


async def test_a_redis_that_would_evict_events_is_refused_with_the_cure(stage: Stage) -> None:
    with stage.redis() as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
    code, said = await refused(stage.bridge())

    assert code == EXIT_REDIS
    (sentence,) = said
    assert "maxmemory-policy is allkeys-lru" in sentence
    assert "set it: CONFIG SET maxmemory-policy noeviction" in sentence


async def test_options_of_the_redis_url_hold_for_bridge_worker_and_command_line(
    stage: Stage,
) -> None:
    with stage.redis() as redis:
        redis.execute_command("ACL", "SETUSER", "fly@x", "on", ">p/w@%canary", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]
    place = stage.redis_server.url.partition("?")[0].rsplit("/", 1)[0]
    options = "username=fly%40x&password=p%2Fw%40%25canary&client_name=options&socket_timeout=4"
    url = f"{place}?db=2&{options}&health_check_interval=5&socket_keepalive=no"
    await stage.bridge_and_worker("--pool", "threads", redis_url=url)

    (event_id,) = stage.push(message())
    await eventually(lambda: stage.counted()[event_id] == 1)
    asked = stage.start("list", "handlers", "list", redis_url=url)

    assert await asked.ended() == 0
    assert "acting:act" in asked.log.read_text()
    with stage.redis() as redis:
        clients: list[dict[str, str]] = redis.client_list()
    ours = [each for each in clients if each["name"] == "options"]
    assert {(each["user"], each["db"]) for each in ours} == {("fly@x", "2")}
    assert len(clients) == len(ours) + 1
    assert not [actor.name for actor in stage.actors if "canary" in actor.log.read_text()]
