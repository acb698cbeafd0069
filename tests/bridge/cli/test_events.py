"""`flybridge events`: the table, the samples, the schemas, and sentences for what is unknown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from flybridge.bridge.cli import events as command
from flybridge.handlers.payloads import payload_model
from flybridge.handlers.samples import sample, sample_types
from flybridge.handlers.types import KNOWN_TYPES, domain
from tests.project import ROOT

Events = Callable[..., Result]


@pytest.fixture
def events() -> Events:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(command.events, arguments, prog_name="flybridge events")

    return invoke


def _without_id_and_time(envelope: dict[str, Any]) -> dict[str, Any]:
    header = {**envelope["header"], "event_id": "", "create_time": ""}
    return {**envelope, "header": header}


# The table


def test_the_table_has_a_line_for_every_type_with_a_sample(events: Events) -> None:
    result = events()
    head, *lines = result.output.splitlines()

    assert result.exit_code == 0
    assert head.split() == ["TYPE", "QUEUE", "PAYLOAD", "ALIASES"]
    assert tuple(line.split()[0] for line in lines) == sample_types()
    assert [line.split() for line in lines if line.startswith("vc.meeting.meeting_started")] == [
        [
            "vc.meeting.meeting_started_v1",
            "vc",
            "vc.MeetingChanged",
            "meeting.meeting.started_v1",
        ]
    ]
    assert [line.split() for line in lines if line.startswith("add_bot")] == [
        ["add_bot", "im", "-"]
    ]


def test_the_columns_stand_below_each_other_and_nothing_trails(events: Events) -> None:
    head, *lines = events().output.splitlines()
    queue = head.index("QUEUE")
    assert all(line[queue - 2 : queue] == "  " != line[queue : queue + 2] for line in lines)
    assert not any(line.endswith(" ") for line in lines)


def test_all_lists_every_known_type(events: Events) -> None:
    lines = events("--all").output.splitlines()[1:]
    assert [line.split()[0] for line in lines] == sorted(KNOWN_TYPES)


def test_the_table_as_json_says_the_same_and_who_has_a_sample(events: Events) -> None:
    output = events("--all", "--json").output
    rows = {row["type"]: row for row in json.loads(output)}

    assert output.count("\n") == 1
    assert set(rows) == KNOWN_TYPES
    assert rows["approval_instance"] == {
        "type": "approval_instance",
        "queue": "approval",
        "model": "approval.ApprovalInstance",
        "aliases": ["approval.approval.approved_v1", "approval.approval.rejected_v1"],
        "sample": True,
    }
    assert {name for name, row in rows.items() if row["sample"]} == set(sample_types())
    assert all(row["queue"] == domain(name) for name, row in rows.items())
    assert rows["add_bot"]["model"] is None


# One type


def test_a_type_shows_its_sample(events: Events) -> None:
    result = events("im.message.receive_v1")
    shown = json.loads(result.output)

    assert result.exit_code == 0
    assert _without_id_and_time(shown) == _without_id_and_time(sample("im.message.receive_v1"))
    assert result.output.count("\n") > 20, "it is indented"
    assert events("im.message.receive_v1", "--json").output.count("\n") == 1


def test_an_alias_shows_the_sample_of_what_feishu_sends_and_says_so(events: Events) -> None:
    result = events("approval.approval.rejected_v1")
    event = json.loads(result.stdout)["event"]

    assert (event["type"], event["status"]) == ("approval_instance", "REJECTED")
    assert "Feishu sends approval_instance with status REJECTED" in result.stderr


@pytest.mark.parametrize("name", ["im.message.receive_v1", "meeting.meeting.ended_v1", "add_bot"])
def test_schema_is_the_json_schema_of_the_payload(events: Events, name: str) -> None:
    shown = json.loads(events(name, "--schema").stdout)
    assert shown == payload_model(name).model_json_schema()


def test_a_schema_describes_the_fields_under_feishus_names(events: Events) -> None:
    shown = json.loads(events("approval_cc", "--schema", "--json").stdout)
    assert shown["properties"]["operate"]["description"] == "`CREATE` or `READ`."
    assert "from" in shown["properties"]


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["im.message.recieve_v1"], "near: im.message.receive_v1"),
        (["im.chat.member.user_aded_v1"], "near: im.chat.member.user_added_v1"),
        (["zzz"], "see them all: flybridge events --all"),
        (["im.message.recieve_v1", "--schema"], "near: im.message.receive_v1"),
        (["acs.user.updated_v1"], "no sample of acs.user.updated_v1 yet"),
        (["--schema"], "name it"),
        (["im.message.receive_v1", "--all"], "leave TYPE or --all out"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_answered_with_a_sentence(
    events: Events, arguments: list[str], sentence: str
) -> None:
    result = events(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


# The shell


def test_types_are_completed() -> None:
    group = click.Group("flybridge", commands={"events": command.events})
    completion = ShellComplete(group, {}, "flybridge", "_FLYBRIDGE_COMPLETE")

    offered = [item.value for item in completion.get_completions(["events"], "im.message.rec")]

    assert offered == ["im.message.recalled_v1", "im.message.receive_v1"]


def test_help_and_completion_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from flybridge.bridge.cli import events as cli_events\n"
        "assert cli_events.complete_types(None, None, 'im.message.receive')\n"
        "print(sorted(set(sys.modules) & {'pydantic', 'structlog', 'msgspec'}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")
