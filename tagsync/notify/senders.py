"""Open the sender of a rule, check a rule, and send a test message."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from tagsync.clock import timestamp
from tagsync.database.events import Event, EventChange
from tagsync.errors import ConfigError, NotDelivered
from tagsync.notify.apprise import AppriseSender
from tagsync.notify.command import CommandSender
from tagsync.notify.messages import Message
from tagsync.notify.sender import MOST_SECONDS, Sender
from tagsync.notify.targets import (
    MAX_BATCH_SIZE,
    AppriseTarget,
    CommandTarget,
    Rule,
    WebhookTarget,
)
from tagsync.notify.templates import check_template
from tagsync.notify.webhook import WebhookSender


class Receipt(NamedTuple):
    """The result of an attempt to send a message.

    Attributes:
        accepted: Whether it has accepted the message.
        answer: Its answer, or why it did not accept: one line without secrets.
    """

    accepted: bool
    answer: str


def open_sender(rule: Rule) -> Sender:
    """Return the sender of a rule. Nothing is sent.

    Raises:
        ConfigError: If the rule is wrong. The sentence begins with the rule's name.
    """
    try:
        for key, text in (("subject", rule.subject), ("text", rule.text)):
            if text is not None:
                check_template(key, text)
        if not 1 <= rule.batch_size <= MAX_BATCH_SIZE:
            raise ConfigError(f"batch_size must be between 1 and {MAX_BATCH_SIZE}")
        return _open(rule)
    except ConfigError as error:
        raise ConfigError(f"notify {rule.name!r}: {error}") from error.__cause__


def check_rule(rule: Rule) -> None:
    """Check all of a rule that needs neither the network nor the database.

    Raises:
        ConfigError: As for `open_sender`.
    """
    open_sender(rule).close()


def send_test(rule: Rule, database_id: str, at: datetime) -> Receipt:
    """Send a recognizable message. Neither cursor nor sequence of the destination move.

    Args:
        rule: The destination.
        database_id: The database's id.
        at: The current time.

    Raises:
        ConfigError: As for `open_sender`.
    """
    sender = open_sender(_as_test(rule))
    try:
        return Receipt(True, sender.send(_test_message(database_id, at), MOST_SECONDS))
    except NotDelivered as error:
        return Receipt(False, str(error))
    finally:
        sender.close()


def _open(rule: Rule) -> Sender:
    match rule.target:
        case WebhookTarget():
            return WebhookSender(rule, rule.target)
        case AppriseTarget():
            return AppriseSender(rule, rule.target)
        case CommandTarget():
            if not rule.target.argv or not Path(rule.target.argv[0]).is_absolute():
                raise ConfigError("argv does not begin with the absolute path of a program")
            return CommandSender(rule, rule.target)


def _test_message(database_id: str, at: datetime) -> Message:
    """Return a message about a move that did not happen."""
    moment = timestamp(at)
    change = EventChange(
        0, "updated", f"sha256:{0:064}", f"sha256:{1:064}", "{}", moment, moment, f"{0:064}"
    )
    event = Event(0, moment, "moved", "registry/namespace/test", "test", {"test": True}, change)
    number = f"msg_test_{int(at.timestamp() * 1000)}"
    return Message(number, database_id, 0, (event,), {"moved": 1}, is_test=True)


def _as_test(rule: Rule) -> Rule:
    """Return the rule with templates that say that the message is a test."""
    return msgspec.structs.replace(
        rule,
        subject=f"Test: {rule.subject or '$first moved'}",
        text="This is a test of tagsync's destination $destination; nothing has moved.\n\n"
        + (rule.text or "$sentence"),
    )
