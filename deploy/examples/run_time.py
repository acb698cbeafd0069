"""Handlers that come and go while events flow. Seed: 运行时动态注册, 事件处理器工厂.

In all workers at once: `flybridge handlers register my_module`, see `flybridge handlers --help`.
"""

from flybridge.bridge.builder import Builder
from flybridge.bridge.lifecycle import Connected
from flybridge.handlers import Context, Event, Handler, Registry
from flybridge.handlers.builtin import MessageRead

MESSAGE = "im.message.receive_v1"


class CustomEventHandler(Handler):
    event_types = MESSAGE

    async def handle(self, event: Event, context: Context) -> None:
        print(f"handled {event.id}")


class EventHandlerManager:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def register(self, handler: Handler) -> str:
        return self.registry.register(handler).name

    def unregister(self, name: str) -> None:
        self.registry.unregister(name)

    def handlers_of(self, event_type: str) -> list[str]:
        return [registration.name for registration in self.registry.lookup(event_type)]

    def is_registered(self, event_type: str) -> bool:
        return self.registry.is_registered(event_type)

    def all_event_types(self) -> tuple[str, ...]:
        return self.registry.event_types()


if __name__ == "__main__":
    service = Builder().use_multi_handler().add_handler(MessageRead).build()
    handlers = EventHandlerManager(service.registry)

    @service.manager.on(Connected)
    def register_late(connected: Connected) -> None:
        if handlers.is_registered(MESSAGE):
            return
        name = handlers.register(CustomEventHandler())
        print(f"registered {name} for {' '.join(handlers.all_event_types())}")

    service.run()
