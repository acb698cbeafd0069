"""What is a secret leaves no process, and what is none stays readable."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.telemetry import redaction
from flybridge.bridge.telemetry.redaction import Redactor, keep_secret, redact, redactor

plain = Redactor().text


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", Redactor())


@pytest.mark.parametrize(
    "secret", ["a", "redis", "s3", "secret", "12345678", "password", "Flybridge", "workers"]
)
def test_a_short_or_ordinary_secret_garbles_nothing(secret: str) -> None:
    told = "bridge.started: redis, workers and 1712345678999; a username-password pair, Flybridge"
    assert Redactor([secret]).text(told) == told


@pytest.mark.parametrize("secret", ["a", "redis", "s3", "secret", "12345678", "password", "p@/:#?"])
@pytest.mark.parametrize(
    "shape",
    [
        "redis://{}@h",
        "cannot reach redis://:{}@h:6379/0?ssl_ca_certs=/ca.pem",
        "amqp://user:{}@h, again",
        "password={}",
        '{{"app_secret": "{}"}}',
        "{{'password': '{}', 'host': 'h'}}",
        "{{b'password': b'{}'}}",
        '\\"password\\": \\"{}\\"',
        "Authorization: Basic {}",
        "api_key={}&x=1",
        "https://h/?{}",
    ],
)
def test_a_secret_is_found_by_its_position_whatever_it_is(secret: str, shape: str) -> None:
    told = shape.format(f"-{secret}-")
    assert f"-{secret}-" not in plain(told)
    assert "[redacted]" in plain(told)


def test_a_secret_with_spaces_goes_as_a_whole_where_it_is_quoted() -> None:
    assert plain("""{"password": "a b, c}", "n": 1}""") == '{"password": "[redacted]", "n": 1}'
    assert plain("password='cut off, an\nnext") == "password='[redacted]'\nnext"


@pytest.mark.parametrize("secret", ["CANARYREDISPW", "p w@/:#?%9", 'q"uo\\te\n9', "größe-123"])
def test_a_secret_that_stands_out_is_found_in_every_spelling(secret: str) -> None:
    known = Redactor([secret])
    for told in (secret, repr(secret), json.dumps(secret), f"x{secret}x"):
        assert secret not in known.text(told)
        assert "[redacted]" in known.text(told)


def test_a_process_adds_to_what_it_knows() -> None:
    keep_secret(["first-secret-1"])
    keep_secret(["", "second-secret-2"])
    assert redact("first-secret-1 second-secret-2") == "[redacted] [redacted]"
    assert redactor().secrets == {"first-secret-1", "second-secret-2"}


@given(st.text("ab: =\"'\\@/?[]{}\n", max_size=12), st.text("ab: =\"'\\@/?[]{}", max_size=12))
def test_what_was_redacted_before_stays_as_it_is(before: str, after: str) -> None:
    for name in ("password=", "redis://", "Authorization: Bearer "):
        once = plain(f"{before}{name}{after}")
        assert plain(once) == once


@pytest.mark.parametrize(
    "unit",
    ["x", "a://", "a://#", "a://?", "token", "token ", 'token"', "token\\", "token=", "password='",
     "@", "authorization: bearer ", " ", "\0"],
)  # fmt: skip
def test_a_long_text_takes_time_by_its_length_only(unit: str) -> None:
    """As an image in base64 beside a URL would have it; by the square it took minutes."""
    began = time.process_time()
    plain("see a://b token=" + unit * (100_000 // len(unit)) + " a://b")
    assert time.process_time() - began < 3


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    assert isinstance(plain(text), str)


@given(st.text("abcxyz019@:/?#[]!$&()*+,;=~-._%", min_size=1, max_size=20))
def test_no_password_of_a_url_is_shown_however_it_is_written(password: str) -> None:
    assert plain(f"redis://user:{password}@host:6379/0") == "redis://[redacted]@host:6379/0"
