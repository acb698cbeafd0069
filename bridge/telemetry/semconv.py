"""Names of spans and span attributes, and their fixed values.

The messaging conventions (OpenTelemetry semantic conventions 1.44, area "Development") may still be
renamed; then only this file changes. What they do not name stands under `feishu.*`.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

# Who makes spans
SCOPE_BRIDGE: Final = "flybridge.bridge"
SCOPE_HANDLERS: Final = "flybridge"

# Span names. Those that end in a space are followed by the stream's or the handler's name.
SPAN_RECEIVE: Final = "receive feishu"
SPAN_PUBLISH: Final = "publish "
SPAN_PROCESS: Final = "process "
SPAN_CLAIM: Final = "claim"
SPAN_HANDLE: Final = "handle "
SPAN_SETTLE: Final = "settle"

# Messaging attributes
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
MESSAGING_CONSUMER_GROUP: Final = "messaging.consumer.group.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
MESSAGING_ENVELOPE_SIZE: Final = "messaging.message.envelope.size"
ERROR_TYPE: Final = "error.type"

# Values of MESSAGING_SYSTEM
SYSTEM_FEISHU: Final = "feishu"
SYSTEM_REDIS: Final = "redis"

# Values of MESSAGING_OPERATION_TYPE
OPERATION_SEND: Final = "send"
OPERATION_PROCESS: Final = "process"

# Ours
EVENT_ID: Final = "feishu.event_id"
EVENT_TYPE: Final = "feishu.event_type"
APP_ID: Final = "feishu.app_id"
FEISHU_TRACE_ID: Final = "feishu.trace_id"
"""Feishu's own, from the frame header; recorded, but never a parent."""
TERM: Final = "feishu.term"
DUPLICATE: Final = "feishu.publish.duplicate"
ACK_CODE: Final = "feishu.ack.code"
CLAIM_RESULT: Final = "feishu.claim.result"
HANDLER: Final = "feishu.handler"
ATTEMPT: Final = "feishu.attempt"
VERDICT: Final = "feishu.verdict"
