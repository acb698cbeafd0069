"""Our half of a conversation in JSON text, with servers that are not Feishu.

The dialect has no ack: an event that came as text and could not be published is lost, since there
is no way to ask for it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flybridge.bridge.errors import FeishuRefused
from flybridge.bridge.protocol import text_codec


@dataclass(frozen=True, slots=True)
class TextDialect:
    """Settings of the text dialect.

    Args:
        token: sent as `app_access_token` once after connecting; empty: no `auth` is sent.
        app_id, event_url: sent with the token, unless empty.
        wall: Unix seconds, for timestamps.
    """

    token: str = field(default="", repr=False)
    app_id: str = ""
    event_url: str = field(default="", repr=False)
    wall: Callable[[], float] = time.time


class TextConversation:
    """The state of one connection; what is to be sent waits for `take_answers`.

    It begins with `auth`, if there is a token, and a ping. Feishu's own ping goes out as well:
    until the server has spoken, it is not known which of the two it understands.
    """

    def __init__(self, dialect: TextDialect) -> None:
        self.heard = False
        """Whether the server has spoken text."""
        self._dialect = dialect
        self._answers: list[str] = []
        if dialect.token:
            self._say(text_codec.Auth(dialect.token, dialect.app_id, dialect.event_url))
        self._say(text_codec.Ping())

    def read(self, text: str) -> text_codec.Message:
        """Decode what the server said.

        Raises:
            FrameInvalid: it is no message.
        """
        self.heard = True
        return text_codec.decode(text)

    def answer(self, message: text_codec.Message) -> None:
        """Answer a ping with a pong; raise when the server refuses our token.

        Raises:
            FeishuRefused: the server refuses our token.
        """
        if isinstance(message, text_codec.Ping):
            self._say(text_codec.Pong())
        if isinstance(message, text_codec.AuthReply) and message.code != 0:
            raise self._refusal(message)

    def ping(self, interval: float) -> str:
        """A ping; a heartbeat that tells the interval in seconds goes with it."""
        self._say(text_codec.Heartbeat(round(interval)))
        return self._written(text_codec.Ping())

    def take_answers(self) -> list[str]:
        """What is to be sent since the last call."""
        taken, self._answers = self._answers, []
        return taken

    def _say(self, message: text_codec.Message) -> None:
        self._answers.append(self._written(message))

    def _written(self, message: text_codec.Message) -> str:
        return text_codec.encode(message, int(self._dialect.wall()))

    def _refusal(self, reply: text_codec.AuthReply) -> FeishuRefused:
        token = self._dialect.token
        said = ascii(reply.said.replace(token, "***") if token else reply.said)[:200]
        cure = f"{'check' if token else 'set'} FLYBRIDGE_TEXT_TOKEN"
        return FeishuRefused(
            f"the server answers auth with {reply.code} {said}; {cure}", reply.code
        )
