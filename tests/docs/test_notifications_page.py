"""The page on notifications shows what is sent and printed, and its script works."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.audit.queries import Audit
from tagsync.config import Config
from tagsync.config.notify_rules import rules_without_secrets
from tagsync.database.events import EVENT_KINDS
from tagsync.database.store import Store
from tagsync.notify.messages import cloud_events, message_of
from tagsync.notify.signatures import decode_key, signed_headers
from tagsync.notify.templates import NAMES
from tagsync.secrets import Secret
from tests.support.commands import tagsync
from tests.support.configurations import parsed
from tests.support.documents import fenced_blocks, read_page, section
from tests.support.notified import DESTINATIONS, make_folder

PAGE = "docs/notifications.md"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"id":"3"}'

Verify = Callable[[str, dict[str, str], bytes], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record with seven events; one destination has them all, the other refuses."""
    folder = make_folder(tmp_path_factory.mktemp("notifications"))
    at = "2026-05-03T12:20:03.000Z"
    with Store.open(folder / "tagsync.db") as store:
        for name, after in (("ops", 2), ("page", 4)):
            store.outbox.add(name, after)
            store.outbox.acquire(name, "daemon", at, at)
        store.outbox.accept("page", "daemon", 7, 2, at)
        store.outbox.refuse(
            "ops", "daemon", "https://hooks.example.com answered with status 503", at, at
        )
    return folder


@pytest.fixture(scope="module")
def config() -> Config:
    """The destinations of the record."""
    return parsed(DESTINATIONS)


@pytest.fixture
def verify() -> Verify:
    """The function of the page that verifies a signature."""
    (script,) = fenced_blocks(section(PAGE, "The signature"), "python")
    names: dict[str, Any] = {}
    exec(script, names)  # noqa: S102  the script of the page
    verify: Verify = names["verify"]
    return verify


def headers(seconds: float) -> dict[str, str]:
    """Return the headers of a message that was signed some seconds ago."""
    at = datetime.fromtimestamp(time.time() - seconds, UTC)
    return signed_headers(decode_key(Secret(KEY)), "msg_1", at, BODY)


def test_the_script_accepts_what_was_signed(verify: Verify) -> None:
    """The script accepts a message of tagsync, also beside the signature of another key."""
    verify(KEY, headers(60), BODY)
    signed = headers(0)
    verify(KEY, signed | {"webhook-signature": f"v1,bad {signed['webhook-signature']}"}, BODY)


@pytest.mark.parametrize(
    ("key", "changed", "body"),
    [
        (KEY, {}, b"{}"),
        (KEY, {"webhook-id": "msg_2"}, BODY),
        (KEY, {"webhook-timestamp": str(int(time.time()) - 30)}, BODY),
        (KEY, {"webhook-signature": "v1,"}, BODY),
        (KEY[:-4] + "AAAA", {}, BODY),
        (KEY, headers(400), BODY),
    ],
)
def test_the_script_refuses_everything_else(
    verify: Verify, key: str, changed: dict[str, str], body: bytes
) -> None:
    """The script refuses other bytes, another id, time or key, and an old message."""
    with pytest.raises(ValueError, match=r"the signature is wrong|the message is too old"):
        verify(key, headers(0) | changed, body)


def test_the_shown_event_is_real(folder: Path, config: Config) -> None:
    """The event that the page shows is the one that is sent, but for the id of the database."""
    (shown,) = fenced_blocks(section(PAGE, "Destinations"), "json")
    expected = json.loads(shown)
    rule, _ = rules_without_secrets(config)
    with Audit.open(folder / "tagsync.db") as audit:
        event = audit.outbox.events(2, 1)[0]
    database_id = expected["source"].removeprefix("tagsync/")
    sequence = int(expected["sequence"])
    (sent,) = cloud_events(rule, message_of(rule, database_id, sequence, [event]))
    assert json.loads(msgspec.json.encode(sent)) == expected


def test_each_kind_and_each_name_is_explained() -> None:
    """The tables have each kind of event and each name of a template, and no other."""
    kinds = re.findall(r"^\| `(\w+)` \|", section(PAGE, "Events"), re.MULTILINE)
    assert sorted(kinds) == sorted(EVENT_KINDS)
    rows = re.findall(r"^\| (`\$.*?) \|", section(PAGE, "Templates"), re.MULTILINE)
    assert sorted(re.findall(r"\$(\w+)", " ".join(rows))) == sorted(NAMES)


EXAMPLES = re.findall(
    r"^\$ tagsync (.*)\n((?:(?!\$ ).*\n)*)",
    "\n".join(fenced_blocks(section(PAGE, "Test, preview and status"), "console")),
    re.MULTILINE,
)


def normalized(text: str) -> str:
    """Return a text in which ages, and the spaces after them, are the same in every run."""
    return re.sub(r"\d+ (s|min|h|d) ago", "AGE", " ".join(text.split()))


@pytest.mark.processes
@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_shown_tables_are_real(command: str, shown: str, folder: Path) -> None:
    """Each command of the page prints what is shown below it, at 105 columns."""
    finished = tagsync(*command.split(), cwd=folder, COLUMNS="105")
    assert finished.returncode == 0, finished
    assert normalized(finished.stdout) == normalized(shown)


def test_two_commands_are_shown() -> None:
    """The page shows a preview and the status."""
    commands = [command.split()[:2] for command, _ in EXAMPLES]
    assert commands == [["notify", "preview"], ["notify", "status"]]
    assert "$ tagsync notify" in read_page(PAGE)
