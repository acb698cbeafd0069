"""The connection by hand, without handlers. Seed: 手动连接控制, IFeishuWebSocketManager."""

import asyncio

from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.manager import ConnectionManager
from flybridge.bridge.protocol import frames

# Feishu speaks frames. To a gateway that speaks text (FLYBRIDGE_TEXT_DIALECT) send a str.
PING = frames.encode(frames.new(service=0, method=frames.CONTROL, headers={"type": "ping"}))


class ConnectionController:
    def __init__(self, manager: ConnectionManager) -> None:
        self.manager = manager

    async def start(self) -> None:
        await self.manager.start()
        await self.manager.connected(timeout=10)

    async def send(self, data: bytes | str) -> None:
        await self.manager.send(data)

    async def reconnect(self) -> None:
        await self.manager.reconnect()

    async def stop(self) -> None:
        await self.manager.stop()


async def main() -> None:
    controller = ConnectionController(ConnectionManager(BridgeSettings.load()))
    await controller.start()
    print(f"connected: {controller.manager.is_connected} {controller.manager.state}")
    await controller.send(PING)
    await controller.reconnect()
    print(f"connected again: {controller.manager.is_connected}")
    await controller.stop()
    print(f"connected at the end: {controller.manager.is_connected}")


if __name__ == "__main__":
    asyncio.run(main())
