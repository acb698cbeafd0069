"""The builder: bridge and handlers in one process. Seed: 方式一:建造者模式, 配置文件.

App id and secret come from FLYBRIDGE_APP_ID and FLYBRIDGE_APP_SECRET; `"AppId"` and `"AppSecret"`
in the file would do, too, but a secret has no place there.
"""

from pathlib import Path

from flybridge.bridge.builder import Builder
from flybridge.handlers.builtin import ReceiveMessage, UserCreated

SETTINGS = Path(__file__).with_name("settings.json")

if __name__ == "__main__":
    (
        Builder()
        .configure_from(SETTINGS)  # reconnect attempts, heartbeat interval, …
        .use_multi_handler()
        .add_handler(ReceiveMessage)
        .add_handler(UserCreated)
        .build()
        .run()  # until SIGTERM or ^C
    )
