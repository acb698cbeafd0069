"""What users may import. A name that goes, or comes, is a decision: see the policy in CHANGELOG.md.

Everything else is private and may move in any release.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

HANDLERS = {
    "Batch",
    "BatchContext",
    "Context",
    "Event",
    "Handler",
    "Middleware",
    "Registry",
    "Reject",
    "Retry",
    "handles",
    "use",
}
EMBEDDING = {"BridgeSettings", "Builder", "ConnectionManager", "Service"}
TRIALS = {"Given", "Result", "run", "run_async", "run_batch", "run_batch_async"}
FIXTURES = {
    "FeishuOnThread",
    "Flybridge",
    "Pushed",
    "embedded_redis",
    "feishu_on_thread",
    "flybridge",
    "local_feishu",
}

EVENTS = {
    "Connected",
    "Disconnected",
    "Errored",
    "HeartbeatReceived",
    "Leading",
    "MessageReceived",
    "SteppedDown",
}
EXIT_CODES = {
    "EXIT_FEISHU",
    "EXIT_LEASE",
    "EXIT_LOST",
    "EXIT_PLUGIN",
    "EXIT_REDIS",
    "EXIT_SETTINGS",
    "EXIT_TASK",
    "OK",
}
BRIDGE_ERRORS = {
    "BridgeError",
    "ConnectionOver",
    "EnvelopeInvalid",
    "FeishuBusy",
    "FeishuCrowded",
    "FeishuError",
    "FeishuRefused",
    "FeishuUnavailable",
    "FrameInvalid",
    "LeaseLost",
    "Misused",
    "NotConnected",
    "PluginBroken",
    "RedisUnfit",
    "RedisUnreachable",
    "SettingsInvalid",
    "TaskFailed",
}
HANDLER_ERRORS = {
    "EventInvalid",
    "HandlerError",
    "PayloadInvalid",
    "PluginBroken",
    "RegistrationInvalid",
    "Reject",
    "Retry",
}
SERVICES = {
    "Builder",
    "Service",
    "ServiceSettings",
    "service_from",
    "service_with_multi_handler",
    "service_with_single_handler",
}
EXAMPLES = {
    "LogUnhandled",
    "MessageRead",
    "ReceiveMessage",
    "UserAddedToGroup",
    "UserCreated",
    "UserRemovedFromGroup",
}

PUBLIC = {
    "flybridge": HANDLERS | EMBEDDING,
    "flybridge.testing": TRIALS | FIXTURES,
    "flybridge.bridge.builder": SERVICES,
    "flybridge.bridge.config.settings": {"BridgeSettings", "WorkerSettings"},
    "flybridge.bridge.errors": BRIDGE_ERRORS | EXIT_CODES,
    "flybridge.bridge.lifecycle": EVENTS,
    "flybridge.bridge.manager": {"ConnectionManager"},
    "flybridge.bridge.ops.metrics": {"StatusCollector", "exposition"},
    "flybridge.bridge.protocol.frames": {
        *("CONTROL", "DATA", "Frame"),
        *("decode", "encode", "headers", "new"),
    },
    "flybridge.bridge.service": {"Service"},
    "flybridge.bridge.testing": FIXTURES | {"Sent"},
    "flybridge.handlers": HANDLERS,
    "flybridge.handlers.base": {"Context", "Handler"},
    "flybridge.handlers.batch": {"Batch", "BatchContext"},
    "flybridge.handlers.builtin": EXAMPLES,
    "flybridge.handlers.errors": HANDLER_ERRORS,
    "flybridge.handlers.event": {"Event"},
    "flybridge.handlers.middleware": {"Middleware"},
    "flybridge.handlers.payloads": {
        *("MODELS", "Payload", "names"),
        *("parse", "parse_as", "payload_model"),
    },
    "flybridge.handlers.registry": {"Registration", "Registry", "handles", "registry", "use"},
    "flybridge.handlers.testing": TRIALS,
    "flybridge.handlers.types": {"KNOWN_TYPES", "canonical", "domain", "matches"},
    "flybridge.workers.aio_pool": {"TaskPool"},
    "flybridge.workers.app": {"app"},
    "flybridge.workers.inline": {"InlineWorker"},
    "flybridge.workers.launch": {"run_worker"},
    "flybridge.workers.locks": {"EventLock", "Keys", "LockLost", "LockTaken"},
}
"""Module -> names. Besides, each module of `flybridge.handlers.payloads` offers its models."""

DOCUMENTS = [
    path
    for folder, kind in ((".", "*.md"), ("docs", "**/*.md"), ("deploy/examples", "*.py"))
    for path in sorted((ROOT / folder).glob(kind))
]
IMPORT = re.compile(r"^ *from (flybridge[\w.]*) import (?:\(([^)]*)\)|([\w, ]+))", re.MULTILINE)


LOOK = """\
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    assert all(hasattr(module, each) for each in module.__all__), name
    found[name] = module.__all__
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def offered() -> dict[str, list[str]]:
    """Module -> `__all__`, seen in a process of its own: some of them register handlers."""
    needed = {
        "FLYBRIDGE_APP_ID": "cli_a1b2c3d4e5f60718",
        "FLYBRIDGE_HANDLERS": "flybridge.handlers.builtin",
    }
    looked = subprocess.run(
        (sys.executable, "-c", LOOK, *PUBLIC),
        env={**os.environ, **needed},
        capture_output=True,
        text=True,
    )
    assert looked.returncode == 0, looked.stderr
    return dict(json.loads(looked.stdout))


@pytest.mark.parametrize("module", PUBLIC)
def test_a_module_offers_these_names_and_no_others(
    module: str, offered: dict[str, list[str]]
) -> None:
    assert sorted(offered[module]) == sorted(PUBLIC[module])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_and_examples_import_public_names_only(document: Path) -> None:
    for module, lines, line in IMPORT.findall(document.read_text()):
        names = {each.split(" as ")[0].strip() for each in (lines or line).split(",")} - {""}
        if module.startswith("flybridge.handlers.payloads."):
            continue
        modules = {f"{module}.{name}" for name in names} & set(PUBLIC)
        private = names - PUBLIC.get(module, set()) - {each.rpartition(".")[2] for each in modules}
        assert not private, f"{document.name} imports {private} from {module}"
