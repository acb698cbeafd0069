"""What happens to the connection, as it happens. Seed: 基本使用 (MessageService)."""

from flybridge.bridge.builder import Builder
from flybridge.bridge.lifecycle import (
    Connected,
    Disconnected,
    Errored,
    HeartbeatReceived,
    MessageReceived,
)
from flybridge.bridge.manager import ConnectionManager
from flybridge.handlers.builtin import ReceiveMessage


class MessageService:
    def __init__(self, manager: ConnectionManager) -> None:
        manager.subscribe(Connected, self.on_connected)
        manager.subscribe(Disconnected, self.on_disconnected)
        manager.subscribe(Errored, self.on_error)
        manager.subscribe(MessageReceived, self.on_message)
        manager.subscribe(HeartbeatReceived, self.on_heartbeat)

    def on_connected(self, connected: Connected) -> None:
        print(f"🚀 connected as {connected.device_id}")

    def on_disconnected(self, disconnected: Disconnected) -> None:
        print(f"🔌 disconnected: {disconnected.code} {disconnected.reason}")

    def on_error(self, errored: Errored) -> None:
        print(f"❌ error: {errored.error}")

    async def on_message(self, received: MessageReceived) -> None:  # both work
        print(f"📨 received {len(received.payload)} bytes of {received.kind}")

    def on_heartbeat(self, heartbeat: HeartbeatReceived) -> None:
        print(f"💗 heartbeat: every {heartbeat.interval} s, {heartbeat.status}")


if __name__ == "__main__":
    service = Builder().add_handler(ReceiveMessage).build()
    MessageService(service.manager)
    service.run()
