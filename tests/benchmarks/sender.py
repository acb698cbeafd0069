"""Stands for Feishu where only speed counts: one client, all the events it can take, little cost.

It is no test double: it checks next to nothing. Frames are put together from constant parts, acks
counted by the lengths in their headers. `python sender.py COUNT` prints JSON lines: first
`{"port": ...}`, then at each per cent `{"acked": ..., "time": ..., "cpu": ...}`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import select
import signal
import socket
import struct
import sys
import time

import events

from flybridge.bridge.protocol import frames

IN_FLIGHT = 1_000
CHUNK = 100
SERVICE = 33554678
CONFIG = {"ReconnectCount": -1, "ReconnectInterval": 1, "ReconnectNonce": 1, "PingInterval": 120}
CHECKED = 997
"""Every so many acks one is decoded and its code looked at."""

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ACK_AT_LEAST = 100
"""Bytes; a ping is shorter, an ack echoes all headers."""


def main() -> None:
    count = int(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        print(json.dumps({"port": port}), flush=True)
        while True:
            client, _ = server.accept()
            with client:
                serve(client, port, count)


def serve(client: socket.socket, port: int, count: int) -> None:
    """Answer a discovery, or be the long connection."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := client.recv(65536)):
            return
        head += data
    if head.startswith(b"POST"):
        client.sendall(discovery(port))
        return
    client.sendall(upgrade(head.decode("latin-1")))
    Conversation(client, count).run()
    signal.pause()


def discovery(port: int) -> bytes:
    """The HTTP response with the URL."""
    url = f"ws://127.0.0.1:{port}/ws/v2?device_id=1&service_id={SERVICE}&access_key=a&ticket=t"
    body = json.dumps({"code": 0, "msg": "", "data": {"URL": url, "ClientConfig": CONFIG}}).encode()
    return (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body))  # fmt: skip


def upgrade(head: str) -> bytes:
    """The HTTP response that opens the WebSocket."""
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    # The value's case matters, so it is taken from the text as it came.
    at = head.lower().index("sec-websocket-key: ") + len("sec-websocket-key: ")
    key = head[at : at + len(fields["sec-websocket-key"])]
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    return (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % base64.b64encode(digest))  # fmt: skip


def frame_parts() -> tuple[bytes, bytes, bytes]:
    """A WebSocket frame with an event, cut where the number stands: message id and event id."""
    name = events.event_id(0)
    before, after = events.around()
    headers = {"type": "event", "message_id": "m" + name, "sum": "1", "seq": "0",
               "trace_id": "t1", "timestamp": "1763800000123", "instance_id": "i1"}  # fmt: skip
    frame = frames.encode(
        frames.new(
            service=SERVICE, method=frames.DATA, headers=headers,
            payload=before + name.encode() + after, seq_id=7, log_id=8,
        )
    )  # fmt: skip
    head, middle, tail = (websocket_header(frame) + frame).split(name.encode())
    return head, middle, tail


def websocket_header(payload: bytes) -> bytes:
    """Of a binary message in one unmasked frame."""
    if len(payload) < 126:
        return struct.pack("!BB", 0x82, len(payload))
    return struct.pack("!BBH", 0x82, 126, len(payload))


class Conversation:
    """Sends events as long as fewer than `IN_FLIGHT` are without an ack."""

    def __init__(self, client: socket.socket, count: int) -> None:
        self._client = client
        self._count = count
        self._parts = frame_parts()
        self._sent = self._acked = 0
        self._out = memoryview(b"")
        self._in = b""

    def run(self) -> None:
        """Until every event has its ack."""
        self._client.setblocking(False)
        reported, step = 0, max(1, self._count // 100)
        while self._acked < self._count:
            self._refill()
            readable, writable, _ = select.select(
                [self._client], [self._client] if self._out else [], []
            )
            if writable:
                self._out = self._out[self._client.send(self._out) :]
            if readable:
                self._receive()
            if self._acked >= min(reported + step, self._count):
                reported = self._acked
                print(json.dumps({"acked": self._acked, "time": time.time(),
                                  "cpu": time.process_time()}), flush=True)  # fmt: skip

    def _refill(self) -> None:
        room = min(IN_FLIGHT - (self._sent - self._acked), self._count - self._sent)
        if self._out or not room or (room < CHUNK and room < self._count - self._sent):
            return
        head, middle, tail = self._parts
        names = [events.event_id(n).encode() for n in range(self._sent, self._sent + room)]
        self._out = memoryview(b"".join([head + n + middle + n + tail for n in names]))
        self._sent += room

    def _receive(self) -> None:
        data = self._client.recv(1 << 18)
        if not data:
            raise SystemExit(f"the client left after {self._acked} acks")
        data = self._in + data
        position, end = 0, len(data)
        while end - position >= 8:
            length, header = data[position + 1] & 127, 6
            if length == 126:
                length, header = data[position + 2] << 8 | data[position + 3], 8
            if end - position < header + length:
                break
            if length >= _ACK_AT_LEAST and data[position] == 0x82:
                self._acked += 1
                if self._acked % CHECKED == 0:
                    _check(data[position + header - 4 : position + header + length])
            elif data[position] == 0x82:
                self._pong()
            position += header + length
        self._in = data[position:]

    def _pong(self) -> None:
        frame = frames.encode(
            frames.new(service=SERVICE, method=frames.CONTROL, headers={"type": "pong"},
                       payload=json.dumps(CONFIG).encode())
        )  # fmt: skip
        self._out = memoryview(bytes(self._out) + websocket_header(frame) + frame)


def _check(masked: bytes) -> None:
    mask, body = masked[:4], masked[4:]
    plain = bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))
    if b'"code":200' not in plain.replace(b" ", b""):
        raise SystemExit(f"an ack without code 200: {plain!r}")


if __name__ == "__main__":
    main()
