"""One call is enough: `one_call.py single|multi|file`. Seed: 方式二:简化注册, 简化配置."""

import argparse
from pathlib import Path

from flybridge.bridge.builder import (
    Service,
    service_from,
    service_with_multi_handler,
    service_with_single_handler,
)
from flybridge.handlers.builtin import ReceiveMessage, UserCreated


def single() -> Service:
    return service_with_single_handler(
        ReceiveMessage,
        auto_reconnect=True,
        max_reconnect_attempts=5,
        ping_interval=20,  # seconds; the seed's names and milliseconds do as well, see `multi`
    )


def multi() -> Service:
    return service_with_multi_handler(
        ReceiveMessage,
        UserCreated,
        AutoReconnect=True,
        HeartbeatIntervalMs=20_000,
        EnableLogging=True,
    )


def file() -> Service:
    settings = Path(__file__).with_name("settings.json")
    return service_from(settings, handlers=[ReceiveMessage, UserCreated])


FORMS = {"single": single, "multi": multi, "file": file}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=FORMS)
    FORMS[parser.parse_args().form]().run()
