"""Asks all workers of one app and group by Celery's control commands, and collects the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from kombu.exceptions import OperationalError
from kombu.pidbox import Mailbox

from flybridge.bridge.config.environment import PREFIX
from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.config.types import NO_BROKER
from flybridge.bridge.errors import BridgeError, RedisUnreachable
from flybridge.bridge.store.client import unreachable
from flybridge.bridge.store.topology import parse
from flybridge.workers.celery_integration import broker, control
from flybridge.workers.celery_integration.celery_app import App

ANSWER_TIMEOUT = 5.0
"""Seconds for an answer that wants no work."""

Answers = Mapping[str, dict[str, Any]]
"""Worker -> what it said."""


class NoAnswer(BridgeError):
    """No worker can be asked, or none has answered."""


class _Complete(Exception):
    """Everybody has answered; ends the waiting."""


class Fleet:
    """The workers that have the app id and the group of the settings.

    Raises:
        SettingsInvalid: the broker is a Cluster.
        NoAnswer: there is no broker.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        if settings.broker_url == NO_BROKER:
            raise NoAnswer(
                f"{PREFIX}BROKER_URL is {NO_BROKER}: these workers take no commands; name the "
                f"modules in {PREFIX}HANDLERS and start them again"
            )
        self._settings = settings
        self._app = App(broker.configuration(settings), set_as_current=False)

    def handlers(self) -> Answers:
        """What each worker has registered; see `control.list_handlers`.

        Raises:
            NoAnswer, RedisUnreachable: nobody says so.
        """
        answers, _ = self._ask(control.LIST, {}, ANSWER_TIMEOUT)
        return answers

    def change(self, command: str, timeout: float, **arguments: str) -> tuple[Answers, int]:
        """Have all workers make a change.

        Args:
            timeout: seconds that an answer may take; an import takes its time.

        Returns:
            The answers, and how many workers heard the command and have not answered.

        Raises:
            NoAnswer, RedisUnreachable: nobody has answered.
        """
        return self._ask(command, arguments, timeout)

    def _ask(self, command: str, arguments: dict[str, str], timeout: float) -> tuple[Answers, int]:
        answers: dict[str, dict[str, Any]] = {}

        def take(answer: dict[str, dict[str, Any]]) -> None:
            answers.update(answer)
            if len(answers) >= channel.heard_by:
                raise _Complete

        with self._control() as connection:
            channel = connection.default_channel
            with suppress(_Complete):
                self._mailbox(connection).multi_call(
                    command, arguments, timeout=timeout, callback=take, channel=channel
                )
        if not answers:
            raise NoAnswer(
                f"no worker of app {self._settings.app_id} and group {self._settings.group} has "
                f"answered within {timeout:g} s; is one running, with the same {PREFIX}REDIS_URL?"
            )
        return answers, max(0, channel.heard_by - len(answers))

    def _mailbox(self, connection: Any) -> Any:
        """A mailbox on this connection: Celery's own does not tell how many workers it reached."""
        name = self._app.conf.control_exchange
        mailbox = Mailbox(name, type="fanout", accept=["json"], serializer="json")
        return mailbox(connection)

    @contextmanager
    def _control(self) -> Iterator[Any]:
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0)
                yield connection
        except OperationalError as error:
            broker, streams = self._settings.broker_url, self._settings.redis_url
            variable = f"{PREFIX}{'BROKER_URL' if broker else 'REDIS_URL'}"
            said = unreachable(error, str(parse(broker or streams)), variable)
            raise RedisUnreachable(f"the workers cannot be asked: {said}") from error
