"""Every error that tagsync raises on purpose, each a sentence for the person who reads it.

::

    TagsyncError
    ├── ConfigError                 the configuration or the command line is wrong
    ├── UnclearQuestion             a moment or a digest that can mean nothing, or too much
    ├── StoreError                  the database did not take or give what was asked
    │   ├── UnusableDatabase        not a database of ours, or from a newer tagsync
    │   ├── DatabaseLocked          another process has it for too long
    │   └── UnknownRepository       a pattern matches no repository
    └── RegistryError               a listing could not be had
        ├── Unreachable        *    no connection, a broken one, or a timeout
        ├── Untrusted               the certificate is not one to trust
        ├── Throttled          *    asked too often: the whole registry pauses
        ├── Busy               *    409, or a 5xx
        ├── Unauthorized            401: credentials wrong or expired
        ├── Forbidden               403: credentials good, permission missing
        ├── NotFound
        │   ├── RepositoryNotFound  the registry knows no such repository
        │   └── NamespaceNotFound   the registry knows no such organization
        ├── EndpointNotFound        the gateway knows no such path: the endpoint is wrong
        ├── BadRequest              any other refusal
        ├── MalformedResponse       an answer that is not what the interface promises
        │   └── ResponseTooLarge    an answer beyond the configured bound
        └── InconsistentListing     pages that contradict each other, even when read again

``*`` marks what may pass by itself: those are tried again within a bounded time.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar


class TagsyncError(Exception):
    """The root: its text is one sentence that says what was wrong, where, and what to do."""


class ConfigError(TagsyncError):
    """The configuration or the command line is wrong; nothing was done."""


class UnclearQuestion(TagsyncError):
    """What was asked for, a moment or a digest, can mean nothing, or more than one thing."""


class StoreError(TagsyncError):
    """The database did not take or give what was asked; the transaction was rolled back."""


class UnusableDatabase(StoreError):
    """The file is not a database of ours, or was written by a newer tagsync; it was not touched."""


class DatabaseLocked(StoreError):
    """Another process kept the database locked for longer than we wait."""


class DamagedRecord(StoreError):
    """What is recorded is not of the form that was ever written."""


class UnknownRepository(StoreError):
    """A pattern matches no repository; the sentence names the nearest one."""

    def __init__(self, pattern: str, known: Sequence[str]) -> None:
        near = get_close_matches(pattern, known, n=1, cutoff=0)
        super().__init__(
            f"no repository matches {pattern!r}: "
            + (f"the nearest is {near[0]}" if near else "there are none yet")
            + "; a pattern is matched against registry/namespace/repository"
        )


class RegistryError(TagsyncError):
    """A registry did not give a complete listing.

    Attributes:
        transient: whether the same request may well succeed a little later.
        retry_after: seconds after which the registry asked to be tried again, if it said so.
        status: the HTTP status that was answered, if there was an answer.
        code: the registry's own error code, if it sent one.
    """

    transient: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status
        self.code = code


class Unreachable(RegistryError):
    """No connection, a connection that broke, or no answer in time."""

    transient = True


class Untrusted(RegistryError):
    """The server's certificate is not one to trust."""


class Throttled(RegistryError):
    """The registry was asked too often."""

    transient = True


class Busy(RegistryError):
    """The registry could not answer just now: 409, or a 5xx."""

    transient = True


class Unauthorized(RegistryError):
    """The credentials are wrong or have expired."""


class Forbidden(RegistryError):
    """The credentials are good, and do not permit this."""


class NotFound(RegistryError):
    """What was asked for does not exist."""


class RepositoryNotFound(NotFound):
    """The registry knows no such repository."""


class NamespaceNotFound(NotFound):
    """The registry knows no such organization."""


class EndpointNotFound(RegistryError):
    """The gateway knows no such path: the endpoint is wrong, nothing was deleted."""


class BadRequest(RegistryError):
    """The registry refused the request for another reason."""


class MalformedResponse(RegistryError):
    """The answer is not what the interface promises."""


class ResponseTooLarge(MalformedResponse):
    """The answer is larger than the configured bound."""


class InconsistentListing(RegistryError):
    """The pages of a listing contradict each other, even when read again."""


def short(text: str) -> str:
    """The beginning of what others say of themselves, for a sentence of ours.

    It is on one line and without control characters: a server may say anything, and SQLite quotes
    the bytes of a damaged file.
    """
    line = " ".join(text.split())[:300]
    return "".join(character if character.isprintable() else "\ufffd" for character in line)
