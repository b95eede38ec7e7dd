"""The destinations of notifications, as the configuration describes them."""

from datetime import timedelta
from typing import Final, Literal

import msgspec

from tagsync.database.events import EventKind
from tagsync.secrets import Secret

TargetKind = Literal["webhook", "apprise", "command"]
"""How a destination is reached."""

DEFAULT_EVENTS: Final[tuple[EventKind, ...]] = (
    "added",
    "moved",
    "updated",
    "deleted",
    "immutable_moved",
)
"""The kinds of events that a destination gets if the configuration names none."""

MAX_BATCH_SIZE: Final = 1000
"""Maximum number of events in one message of a webhook or a command."""


class WebhookTarget(msgspec.Struct, frozen=True):
    """A URL to which CloudEvents are sent.

    Attributes:
        url: All of it but scheme and host counts as secret.
        signing_key: ``whsec_`` and a key in base64, as Standard Webhooks defines it. None sends
            messages without a signature.
    """

    url: Secret
    signing_key: Secret | None = None


class AppriseTarget(msgspec.Struct, frozen=True):
    """A service that the library Apprise knows, such as mail or a chat.

    Attributes:
        url: A notification URL of Apprise, such as ``mailto://…``. All of it counts as secret.
    """

    url: Secret


class CommandTarget(msgspec.Struct, frozen=True):
    """A program that reads CloudEvents from its standard input, one in each line.

    Attributes:
        argv: The program's absolute path and its arguments. No shell reads them.
    """

    argv: tuple[str, ...]


Target = WebhookTarget | AppriseTarget | CommandTarget


class Rule(msgspec.Struct, frozen=True):
    """A destination, and which events it gets.

    Attributes:
        name: Its name. The database has its cursor under this name.
        target: Where its messages are sent.
        repositories: Globs over full names, in which ``*`` also matches a slash. An event that is
            about the whole database matches all of them.
        tags: Globs over tags. An event that is not about one tag matches all of them.
        events: The kinds of events.
        batch: How long to wait for more events after the first one that waits.
        batch_size: Maximum number of events in one message of a webhook or a command. If more wait
            for an Apprise service, it gets one message that counts them.
        subject: Template of the subject; see `tagsync.notify.templates`. None for the default.
        text: Template of the text for one event. None for the default.
    """

    name: str
    target: Target
    repositories: tuple[str, ...] = ("*",)
    tags: tuple[str, ...] = ("*",)
    events: tuple[EventKind, ...] = DEFAULT_EVENTS
    batch: timedelta = timedelta(0)
    batch_size: int = 100
    subject: str | None = None
    text: str | None = None

    @property
    def kind(self) -> TargetKind:
        """The value of the key ``kind``."""
        match self.target:
            case WebhookTarget():
                return "webhook"
            case AppriseTarget():
                return "apprise"
            case CommandTarget():
                return "command"
