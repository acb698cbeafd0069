"""The conversation with Feishu over one long connection: bytes in, deliveries and bytes out.

No socket, no asyncio, no clock: `bridge/connection.py` moves the bytes and says what time it is.

Feishu: we ping as often as the server wants, or more often, and its pong may carry new settings. It
pushes data frames; each complete push wants its own frame back within 3 s, with a code for a
payload. Text is another dialect, which only other servers speak: see `bridge/text_dialect.py`.

Every incoming frame is counted once in `Protocol.counts`, under its `FrameOutcome`.
"""

from __future__ import annotations

import base64
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import msgspec

from bridge import frames, json_codec
from bridge.errors import FrameInvalid
from bridge.fragments import MAX_PIECES, Fragments, PieceRefused
from bridge.heartbeat import Heartbeat
from bridge.liveness import PONG_TIMEOUT, Dead, Liveness
from bridge.text_dialect import TextConversation, TextDialect

MAX_REJECTED = 64
MAX_REJECTED_BYTES = frames.MAX_FRAME
"""What waits for `take_rejected`; the oldest make room."""


class FrameOutcome(StrEnum):
    """What became of an incoming frame."""

    EVENT = "event"
    """Delivered, the last piece of a set included."""
    CARD = "card"
    """Delivered. Feishu: the legacy callback channel, not meant for long connections."""
    FRAGMENT = "fragment"
    """Kept until its set is complete."""
    PONG = "pong"
    PING = "ping"
    """Ignored. Feishu: no SDK answers a ping of the server. Of the text dialect: answered."""
    HEARTBEAT = "heartbeat"
    """A sign of life of the text dialect."""
    AUTH = "auth"
    """Of the text dialect: we are let in."""
    CONTROL_UNKNOWN = "control_unknown"
    """Ignored."""
    TEXT = "text"
    """Ignored: a WebSocket text message, which Feishu never sends, without the text dialect."""
    INVALID = "invalid"
    """Rejected: not a frame at all; nor a message, if it is text."""
    METHOD_UNKNOWN = "method_unknown"
    """Rejected: neither control nor data."""
    TYPE_UNKNOWN = "type_unknown"
    """Rejected: data that is neither event nor card."""
    SUM_INVALID = "sum_invalid"
    """Rejected: `sum` is no number, or above 256."""
    SEQ_INVALID = "seq_invalid"
    """Rejected: `seq` is no number, or not below `sum`."""
    FRAGMENT_ANONYMOUS = "fragment_anonymous"
    """Rejected: a piece without `message_id`."""
    FRAGMENT_REPEATED = "fragment_repeated"
    """Rejected: that piece is there already; the first one stays."""
    SUM_CHANGED = "sum_changed"
    """Rejected: the set began with another `sum`."""
    SET_TOO_LARGE = "set_too_large"
    """Rejected, and its set dropped: above 16 MiB."""
    SETS_FULL = "sets_full"
    """Rejected: 64 sets, or 64 MiB, are incomplete already."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What the server tells its clients, in discovery and in pongs. Seconds; the SDKs' defaults."""

    reconnect_count: int = -1
    """Attempts before giving up; -1 for ever."""
    reconnect_interval: int = 120
    """Between attempts."""
    reconnect_nonce: int = 30
    """Upper bound of the random delay before the first attempt."""
    ping_interval: int = 120

    def updated(self, fields: object) -> ClientConfig:
        """This config with Feishu's `fields` on top; what is missing or no number stays."""
        if not isinstance(fields, Mapping):
            return self
        return ClientConfig(
            _clamped(fields.get("ReconnectCount"), -1, 10_000, self.reconnect_count),
            _clamped(fields.get("ReconnectInterval"), 1, 86_400, self.reconnect_interval),
            _clamped(fields.get("ReconnectNonce"), 1, 86_400, self.reconnect_nonce),
            _clamped(fields.get("PingInterval"), 1, 86_400, self.ping_interval),
        )

    def from_json(self, data: bytes) -> ClientConfig:
        """`updated` with a JSON object; this config if it is none."""
        try:
            return self.updated(msgspec.json.decode(data))
        except (msgspec.DecodeError, ValueError, RecursionError):
            return self


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One complete push. It wants exactly one ack, on the connection on which it came."""

    frame: frames.Frame | None = field(repr=False)
    """The ack is made from it; of a set it is the frame that completed it. None: it came as text,
    and the text dialect has no ack, hence no way to ask for it again."""
    kind: str
    """`event` or `card`."""
    payload: bytes = field(repr=False)
    message_id: str
    """Of this push, not of the event: a retry may have another. May be empty."""
    trace_id: str
    received: float
    """The `now` at which it was complete."""


@dataclass(frozen=True, slots=True, eq=False)
class Rejected:
    """A frame that makes no delivery, whole, so that it can be buried."""

    reason: str
    """A `FrameOutcome`."""
    payload: bytes = field(repr=False)
    """Of the frame; all that came in if it was no frame."""
    headers: Mapping[str, str]
    delivery: Delivery | None = None
    """To be acked once buried. None: nothing can be echoed, or this is a piece of a set. The ack of
    a piece would tell Feishu that the whole event is safe; without it Feishu sends it again."""


class Protocol:
    """One connection's state, from the upgrade on.

    Args:
        service_id: of the endpoint; goes into pings.
        config: of the endpoint; pongs change it.
        now: when the connection was made; every later `now` is of the same clock, in seconds.
        pong_timeout: seconds from a ping to any frame.
        counts: to go on counting where an earlier connection stopped.
        heartbeat: that of the link, to go on with.
        text_dialect: None: text is counted and ignored.
    """

    def __init__(
        self,
        service_id: int,
        config: ClientConfig,
        now: float,
        *,
        pong_timeout: float = PONG_TIMEOUT,
        counts: Counter[str] | None = None,
        heartbeat: Heartbeat | None = None,
        text_dialect: TextDialect | None = None,
    ) -> None:
        self.config = config
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.heartbeat = heartbeat or Heartbeat()
        self.last_pong: float | None = None
        """On this connection."""
        self.fragments = Fragments()
        self._text = TextConversation(text_dialect) if text_dialect else None
        self._liveness = Liveness(now, pong_timeout=pong_timeout)
        self._rejected: deque[Rejected] = deque()
        self._rejected_bytes = 0
        self._ping = frames.encode(
            frames.new(service=service_id, method=frames.CONTROL, headers={"type": "ping"})
        )
        self.heartbeat.interval.limit(config.ping_interval)
        self.heartbeat.started(now)

    @property
    def last_frame(self) -> float:
        """When anything last came in, or the connection was made."""
        return self._liveness.last_frame

    # Receiving

    def receive_data(self, data: bytes, now: float) -> list[Delivery]:
        """Take one binary WebSocket message, whatever it is; see `take_rejected` for refusals."""
        self._liveness.received(now)
        try:
            frame = frames.decode(data)
        except FrameInvalid:
            return self._reject(Rejected(FrameOutcome.INVALID, data, {}))
        if frame.method == frames.DATA:
            return self._receive_push(frame, now)
        if frame.method == frames.CONTROL:
            return self._receive_control(frame, now)
        rejected = Rejected(FrameOutcome.METHOD_UNKNOWN, frame.payload, frames.headers(frame))
        return self._reject(rejected)

    def receive_text(self, text: str, now: float) -> list[Delivery]:
        """Take one WebSocket text message; without the text dialect it is a mere sign of life.

        Raises:
            FeishuRefused: the server does not let us in.
        """
        self._liveness.received(now)
        if self._text is None:
            self.counts[FrameOutcome.TEXT] += 1
            return []
        try:
            message = self._text.read(text)
        except FrameInvalid:
            return self._reject(Rejected(FrameOutcome.INVALID, text.encode(errors="replace"), {}))
        deliveries = self._receive_message(message, now)
        self._text.answer(message)
        return deliveries

    def take_rejected(self) -> list[Rejected]:
        """What was rejected since the last call."""
        taken = list(self._rejected)
        self._rejected.clear()
        self._rejected_bytes = 0
        return taken

    # Sending

    def ack(
        self, delivery: Delivery, code: int, now: float, data: bytes | None = None
    ) -> bytes | None:
        """The frame that answers a delivery with 200 or 500; `data` is JSON, a callback's result.

        None if the delivery came as text, which is never acked.

        Feishu: the push's own frame, all headers kept, `biz_rt` (ms) added, the payload replaced.
        """
        frame = delivery.frame
        if frame is None:
            return None
        elapsed = max(0, round((now - delivery.received) * 1000))
        frame.headers.add(key="biz_rt", value=str(elapsed))
        frame.payload = _ack_payload(code, data)
        return frames.encode(frame)

    def ping(self, now: float) -> bytes | str:
        """A ping that goes out now, in the server's dialect; the next is due an interval later."""
        self.heartbeat.pinged(now)
        interval = self.heartbeat.interval.seconds
        self._liveness.pinged(now, interval)
        if self._text is not None and self._text.heard:
            return self._text.ping(interval)
        return self._ping

    def take_answers(self) -> list[str]:
        """Text to send that no other call returns: greeting, pongs, heartbeats."""
        return self._text.take_answers() if self._text is not None else []

    # Timers

    def next_timer(self) -> float:
        """When to call `on_timer`. It moves with every other call."""
        deadline = self._liveness.deadline(self.heartbeat.interval.longest)
        silent = self.heartbeat.next_check()
        return min(self._liveness.next_ping, deadline, self.fragments.next_expiry(), silent)

    def on_timer(self, now: float) -> bytes | str | Dead | None:
        """Do what is due: a ping to send, or the end of the connection, or neither."""
        self.fragments.expire(now)
        self.heartbeat.check(now)
        if now >= self._liveness.deadline(self.heartbeat.interval.longest):
            self.heartbeat.given_up(now)
            return self._liveness.dead(now)
        if now >= self._liveness.next_ping:
            return self.ping(now)
        return None

    def pause(self, now: float) -> None:
        """Tell that reading stops by our own will, so that silence proves nothing. Pings go on."""
        self._liveness.pause()
        self.heartbeat.stopped(now)

    def resume(self, now: float) -> None:
        """Tell that reading goes on; every limit on silence starts anew."""
        self._liveness.resume(now)
        self.heartbeat.started(now)

    def end(self, now: float) -> None:
        """Tell that the connection has ended, so that the heartbeat can go on with another."""
        self.heartbeat.stopped(now)

    # Frames by kind

    def _receive_control(self, frame: frames.Frame, now: float) -> list[Delivery]:
        kind = frames.headers(frame).get("type")
        if kind == "pong":
            self._receive_pong(frame.payload, now)
        elif kind == "ping":
            self.counts[FrameOutcome.PING] += 1
        else:
            self.counts[FrameOutcome.CONTROL_UNKNOWN] += 1
        return []

    def _receive_pong(self, payload: bytes, now: float) -> None:
        self.counts[FrameOutcome.PONG] += 1
        self.last_pong = now
        if payload:
            self.config = self.config.from_json(payload)
            self.heartbeat.interval.limit(self.config.ping_interval)
        self.heartbeat.ponged(now)
        self._liveness.pace(self.heartbeat.interval.seconds)

    def _receive_push(self, frame: frames.Frame, now: float) -> list[Delivery]:
        headers = frames.headers(frame)
        get = headers.get
        kind, message_id = get("type", ""), get("message_id", "")
        delivery = Delivery(frame, kind, frame.payload, message_id, get("trace_id", ""), now)
        if kind not in ("event", "card"):
            return self._reject(
                Rejected(FrameOutcome.TYPE_UNKNOWN, delivery.payload, headers, delivery)
            )
        if get("sum", "1") == "1" and get("seq", "0") == "0":
            self.counts[kind] += 1
            return [delivery]
        return self._receive_piece(delivery, headers, now)

    def _receive_piece(
        self, delivery: Delivery, headers: Mapping[str, str], now: float
    ) -> list[Delivery]:
        total, seq = _number(headers.get("sum", "1")), _number(headers.get("seq", ""))
        try:
            payload = self._join(delivery, total, seq, now)
        except PieceRefused as refused:
            whole = delivery if total is None or total <= 1 else None
            return self._reject(Rejected(refused.reason, delivery.payload, headers, whole))
        if payload is None:
            self.counts[FrameOutcome.FRAGMENT] += 1
            return []
        self.counts[delivery.kind] += 1
        return [replace(delivery, payload=payload)]

    def _join(
        self, delivery: Delivery, total: int | None, seq: int | None, now: float
    ) -> bytes | None:
        """The whole payload once its last piece is there."""
        if total is None or total > MAX_PIECES:
            raise PieceRefused(FrameOutcome.SUM_INVALID)
        if seq is None or seq >= total:
            raise PieceRefused(FrameOutcome.SEQ_INVALID)
        if total == 1:
            return delivery.payload
        if not delivery.message_id:
            raise PieceRefused(FrameOutcome.FRAGMENT_ANONYMOUS)
        return self.fragments.add(delivery.message_id, total, seq, delivery.payload, now)

    def _receive_message(self, message: json_codec.Message, now: float) -> list[Delivery]:
        if isinstance(message, json_codec.Event):
            self.counts[FrameOutcome.EVENT] += 1
            return [Delivery(None, "event", message.envelope, "", "", now)]
        if isinstance(message, json_codec.Pong):
            self._receive_pong(b"", now)
        else:
            self.counts[_SIGNS[type(message)]] += 1
        return []

    def _reject(self, rejected: Rejected) -> list[Delivery]:
        self.counts[rejected.reason] += 1
        self._rejected.append(rejected)
        self._rejected_bytes += len(rejected.payload)
        while len(self._rejected) > MAX_REJECTED or self._rejected_bytes > MAX_REJECTED_BYTES:
            self._rejected_bytes -= len(self._rejected.popleft().payload)
        return []


_SIGNS = {
    json_codec.Ping: FrameOutcome.PING,
    json_codec.Heartbeat: FrameOutcome.HEARTBEAT,
    json_codec.AuthReply: FrameOutcome.AUTH,
    json_codec.Auth: FrameOutcome.CONTROL_UNKNOWN,
}
"""Text messages that are nothing but a sign of life to `Protocol`."""


def _ack_payload(code: int, data: bytes | None) -> bytes:
    if data is None:
        return b'{"code":%d}' % code
    return b'{"code":%d,"data":"%b"}' % (code, base64.b64encode(data))


def _number(text: str) -> int | None:
    # Nine digits: more mean nothing here, and int() would take its time over a megabyte of them.
    return int(text) if len(text) <= 9 and text.isascii() and text.isdigit() else None


def _clamped(value: object, low: int, high: int, otherwise: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    return int(min(max(value, low), high))
