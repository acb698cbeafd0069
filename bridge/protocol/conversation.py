"""The conversation with Feishu on one connection, without I/O: bytes in, deliveries and bytes out.

Feishu: we ping at least as often as the server wants, and its pong may carry new settings. It
pushes data frames; each complete push wants its own frame back within 3 s, with a code as payload.
Text messages are another dialect, which only other servers speak.

Every incoming frame is counted once in `Conversation.counts`, under its `FrameOutcome`.
"""

from __future__ import annotations

import base64
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace

from flybridge.bridge.errors import FrameInvalid
from flybridge.bridge.protocol import frames, text_codec
from flybridge.bridge.protocol.delivery import Delivery, FrameOutcome, Rejected
from flybridge.bridge.protocol.fragments import MAX_PIECES, Fragments, PieceRefused
from flybridge.bridge.protocol.heartbeat import Heartbeat, Pulse
from flybridge.bridge.protocol.liveness import PONG_TIMEOUT, Dead, Liveness
from flybridge.bridge.protocol.server_config import ClientConfig
from flybridge.bridge.protocol.text_conversation import TextConversation, TextDialect

MAX_REJECTED = 64
MAX_REJECTED_BYTES = frames.MAX_FRAME
"""Bounds of what waits for `take_rejected`; the oldest frames are dropped."""


class Conversation:
    """The state of one connection, from the upgrade on.

    Args:
        service_id: of the endpoint; goes into pings.
        config: of the endpoint; pongs change it.
        now: when the connection was made; every later `now` is of the same clock, in seconds.
        pong_timeout: seconds from a ping to any frame.
        counts: frames by outcome; shared with earlier connections.
        heartbeat: statistics; shared with earlier connections.
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
        """When a pong, or a heartbeat of the text dialect, came last on this connection."""
        self.fragments = Fragments()
        self._text = TextConversation(text_dialect) if text_dialect else None
        self._liveness = Liveness(now, pong_timeout=pong_timeout)
        self._rejected: deque[Rejected] = deque()
        self._rejected_bytes = 0
        self._pulse: Pulse | None = None
        self._heard: list[tuple[str, str]] = []
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
        """Take one binary WebSocket message. What is rejected waits for `take_rejected`."""
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
        """Take one WebSocket text message; without the text dialect it is only a sign of life.

        Raises:
            FeishuRefused: the server refuses our token.
        """
        self._liveness.received(now)
        if self._text is None:
            self.counts[FrameOutcome.TEXT] += 1
            return []
        try:
            message = self._text.read(text)
        except FrameInvalid:
            return self._reject(Rejected(FrameOutcome.INVALID, text.encode(errors="replace"), {}))
        deliveries = self._receive_message(message, text, now)
        self._text.answer(message)
        return deliveries

    def take_rejected(self) -> list[Rejected]:
        """The frames rejected since the last call."""
        taken = list(self._rejected)
        self._rejected.clear()
        self._rejected_bytes = 0
        return taken

    def take_pulse(self) -> Pulse | None:
        """The last pong, or heartbeat of the text dialect, if one came since the last call."""
        pulse, self._pulse = self._pulse, None
        return pulse

    def take_heard(self) -> list[tuple[str, str]]:
        """Kind and text of the text messages since the last call, without events.

        Kinds are `ping`, `pong`, `heartbeat` and `auth`.
        """
        heard, self._heard = self._heard, []
        return heard

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
        """A ping to send now, in the server's dialect."""
        self.heartbeat.pinged(now)
        interval = self.heartbeat.interval.seconds
        self._liveness.pinged(now, interval)
        if self._text is not None and self._text.heard:
            return self._text.ping(interval)
        return self._ping

    def take_answers(self) -> list[str]:
        """Further text to send: greeting, pongs, heartbeats."""
        return self._text.take_answers() if self._text is not None else []

    # Timers

    def next_timer(self) -> float:
        """When to call `on_timer`. Every other call may change it."""
        deadline = self._liveness.deadline(self.heartbeat.interval.longest)
        silent = self.heartbeat.next_check()
        return min(self._liveness.next_ping, deadline, self.fragments.next_expiry(), silent)

    def on_timer(self, now: float) -> bytes | str | Dead | None:
        """Do what is due. Returns a ping to send, the end of the connection, or None."""
        self.fragments.expire(now)
        self.heartbeat.check(now)
        if now >= self._liveness.deadline(self.heartbeat.interval.longest):
            self.heartbeat.given_up(now)
            return self._liveness.dead(now)
        if now >= self._liveness.next_ping:
            return self.ping(now)
        return None

    def pause(self, now: float) -> None:
        """We stop reading, so silence proves nothing. Pings go on."""
        self._liveness.pause()
        self.heartbeat.stopped(now)

    def end(self, now: float) -> None:
        """The connection has ended; the heartbeat goes on with the next one."""
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

    def _receive_pong(self, payload: bytes, now: float) -> Pulse:
        self.counts[FrameOutcome.PONG] += 1
        self.last_pong = now
        if payload:
            self.config = self.config.from_json(payload)
            self.heartbeat.interval.limit(self.config.ping_interval)
        pulse = self._pulse = self.heartbeat.ponged(now)
        self._liveness.pace(self.heartbeat.interval.seconds)
        return pulse

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

    def _receive_message(
        self, message: text_codec.Message, text: str, now: float
    ) -> list[Delivery]:
        if isinstance(message, text_codec.Event):
            self.counts[FrameOutcome.EVENT] += 1
            return [Delivery(None, "event", message.envelope, "", "", now)]
        self._heard.append((message.kind, text))
        if isinstance(message, text_codec.Pong):
            pulse = self._receive_pong(b"", now)
            self._pulse = replace(pulse, sent_at=_unix_ms(message.timestamp), message=text)
            return []
        if isinstance(message, text_codec.Heartbeat):
            self.last_pong = now
            self.heartbeat.beaten(now)
            sent_at = _unix_ms(message.timestamp)
            self._pulse = Pulse(message.interval, message.status, sent_at=sent_at, message=text)
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
    text_codec.Ping: FrameOutcome.PING,
    text_codec.Heartbeat: FrameOutcome.HEARTBEAT,
    text_codec.AuthReply: FrameOutcome.AUTH,
    text_codec.Auth: FrameOutcome.CONTROL_UNKNOWN,
}
"""Text messages that are only a sign of life."""


def _ack_payload(code: int, data: bytes | None) -> bytes:
    if data is None:
        return b'{"code":%d}' % code
    return b'{"code":%d,"data":"%b"}' % (code, base64.b64encode(data))


def _unix_ms(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000


def _number(text: str) -> int | None:
    # Nine digits: more mean nothing here, and int() would take its time over a megabyte of them.
    return int(text) if len(text) <= 9 and text.isascii() and text.isdigit() else None
