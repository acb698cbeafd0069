"""What an operator reads when a bridge cannot start: every problem by name, and its cure."""

from __future__ import annotations

from bridge.errors import EXIT_REDIS, EXIT_SETTINGS
from tests.scenarios.ops_port import free_port
from tests.scenarios.stage import Actor, Stage


async def refused(bridge: Actor) -> tuple[int, list[str]]:
    """The exit code of a bridge that does not start, and what it says to the operator."""
    code = await bridge.ended()
    said = bridge.log.read_text().splitlines()
    assert not [line for line in said if "Traceback" in line]
    return code, [line for line in said if line.startswith("flybridge: ")]


async def test_every_missing_or_wrong_setting_is_named_at_once(stage: Stage) -> None:
    wrong = {"app_id": "", "app_secret": "", "retry_period": 5, "redis_url": "http://canary"}
    code, said = await refused(stage.bridge(**wrong))

    assert code == EXIT_SETTINGS
    assert [line.split()[1] for line in said] == [
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
