"""The protocol of the three ways to send a message, and what they share."""

from typing import Final, Protocol

from tagsync.escaping import truncate
from tagsync.notify.messages import Message

MOST_SECONDS: Final = 30.0
"""Maximum time for one attempt to send a message."""


class Sender(Protocol):
    """Sends messages to one destination."""

    sums_up: bool
    """Whether a message counts events instead of listing them, if there are too many."""

    def send(self, message: Message, seconds: float) -> str:
        """Send a message and wait until the receiver has accepted it.

        Args:
            message: The message.
            seconds: Maximum time to wait.

        Returns:
            The receiver's answer on one line, without secrets.

        Raises:
            NotDelivered: If the receiver has not accepted the message.
            DamagedRecord: If an event contains what tagsync did not write.
        """
        ...

    def stop(self) -> None:
        """Make a `send` of another thread end soon, as far as possible."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def one_line(text: str) -> str:
    """Return a receiver's text for people: one line, without secrets, at most 300 characters."""
    return truncate(text)
