"""A misspelt class attribute fails at import; attributes of the handler's own do not."""

from __future__ import annotations

import pytest

from flybridge.handlers import Handler, Registry
from flybridge.handlers.errors import RegistrationInvalid


def test_a_misspelt_option_of_a_class_is_refused_with_the_right_spelling():
    class Slip(Handler):
        max_attempt = 3

        def handle(self, event, context):
            """Nothing."""

    with pytest.raises(RegistrationInvalid, match="max_attempts"):
        Registry().register(Slip, "im.message.receive_v1")


def test_attributes_of_its_own_are_a_handlers_own_business():
    class Own(Handler):
        greeting = "hello"
        queues = ("a", "b")

        def handle(self, event, context):
            """Nothing."""

    assert Registry().register(Own, "im.message.receive_v1").max_attempts == 5
