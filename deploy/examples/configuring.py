"""Settings in code, per environment, by feature, or all of it in a function of your own.

`configuring.py code|environment|features|defaults`.
Seed: 代码配置, 多环境配置, 条件性处理器注册, 服务注册最佳实践.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from flybridge.bridge.builder import Builder, Service
from flybridge.handlers import Context, Event
from flybridge.handlers.builtin import MessageRead, ReceiveMessage, UserCreated

SETTINGS = Path(__file__).with_name("settings.json")


async def audit(event: Event, context: Context) -> None:
    print(f"audit: {event.type} {event.id}")


async def analyze(event: Event, context: Context) -> None:
    print(f"analytics: {event.type}")


def in_code() -> Builder:
    return (
        Builder()
        .configure(
            auto_reconnect=True,
            max_reconnect_attempts=10,
            reconnect_delay=3.0,  # seconds; or ReconnectDelayMs=3000
            ping_interval=20.0,
        )
        .use_multi_handler()
        .add_handler(ReceiveMessage)
        .add_handler(UserCreated)
    )


def of_the_environment() -> Builder:
    builder = Builder()
    if os.environ.get("ENVIRONMENT") == "production":
        builder.configure_from(SETTINGS, section="Production:WebSocket")
    else:
        builder.configure(log_level="debug", ping_interval=15.0)
    return builder.use_multi_handler().add_handler(ReceiveMessage)


def with_features() -> Builder:
    features = json.loads(SETTINGS.read_text())["Features"]

    def add_features(builder: Builder) -> None:
        if features["EnableAudit"]:
            builder.add_handler(audit, "*")
        if features["EnableAnalytics"]:
            builder.add_handler(analyze, "*")

    return Builder().use_multi_handler().add_handler(ReceiveMessage).apply(add_features)


def with_default_handlers(builder: Builder) -> Builder:
    """A function of your own is all that an extension method is."""
    return (
        builder.use_multi_handler()
        .add_handler(ReceiveMessage)
        .add_handler(UserCreated)
        .add_handler(MessageRead)
    )


BUILDERS: dict[str, Callable[[], Builder]] = {
    "code": in_code,
    "environment": of_the_environment,
    "features": with_features,
    "defaults": lambda: with_default_handlers(Builder().configure_from(SETTINGS)),
}


def build(name: str) -> Service:
    return BUILDERS[name]().build()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=BUILDERS)
    build(parser.parse_args().way).run()
