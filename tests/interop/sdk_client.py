"""The official SDK as a client, in an environment of its own where `bridge` cannot be imported.

Takes the domain, app id, app secret and how often its handler fails each event before it succeeds.
Writes one JSON line to stdout for every event and every ClientConfig; the SDK's log goes to stderr.
"""

import json
import sys
from collections import Counter

import lark_oapi as lark
from lark_oapi.core import log
from lark_oapi.event.callback.model.p2_card_action_trigger import P2CardActionTriggerResponse
from lark_oapi.ws.exception import ClientException

failed = Counter()


def tell(**fields):
    print(json.dumps(fields), flush=True)


def on_receive(event):
    event_id, content = event.header.event_id, event.event.message.content
    tell(event_id=event_id, length=len(content), end=content[-20:])
    if failed[event_id] < fail_times:
        failed[event_id] += 1
        raise RuntimeError("told to fail")


def on_approval(event):
    tell(event_id=event.uuid, status=event.event["status"])


def on_card(event):
    tell(event_id=event.header.event_id)
    return P2CardActionTriggerResponse({"toast": {"type": "success", "content": "ok"}})


class Client(lark.ws.Client):
    def _configure(self, conf):
        super()._configure(conf)
        tell(ping_interval=self._ping_interval)


domain, app_id, app_secret, fail_times = *sys.argv[1:4], int(sys.argv[4])
log.handler.setStream(sys.stderr)
handler = (
    lark.EventDispatcherHandler.builder("", "")
    .register_p2_im_message_receive_v1(on_receive)
    .register_p1_customized_event("approval_instance", on_approval)
    .register_p2_card_action_trigger(on_card)
    .build()
)
try:
    Client(app_id, app_secret, event_handler=handler, domain=domain).start()
except ClientException as refused:
    tell(refused=refused.code)
