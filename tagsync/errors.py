"""All errors that tagsync raises on purpose. A message is one sentence for users.

::

    TagsyncError
    ├── ConfigError                 the configuration or the command line is wrong
    ├── UnclearQuestion             a time or a digest is invalid or ambiguous
    ├── StoreError                  the database could not be read or written
    │   ├── UnusableDatabase        the file is not tagsync's, or is from a newer tagsync
    │   ├── DatabaseLocked          another process holds the lock for too long
    │   ├── DamagedRecord           a row is not what tagsync wrote
    │   └── UnknownRepository       a pattern matches no repository
    └── RegistryError               a complete listing could not be read
        ├── Unreachable        *    no connection, or a broken one
        │   └── TimedOut       *    no response in time
        ├── Untrusted               the server's certificate is not trusted
        ├── Throttled          *    too many requests: the whole registry pauses
        ├── Busy               *    409, or a 5xx
        ├── Unauthorized            401: the credential is wrong or has expired
        ├── Forbidden               403: the credential lacks the permission
        ├── NotFound                404
        │   ├── RepositoryNotFound  the registry has no such repository
        │   └── NamespaceNotFound   the registry has no such organization
        ├── EndpointNotFound        the gateway has no such path: the endpoint is wrong
        ├── BadRequest              any other refusal
        ├── MalformedResponse       the response breaks the interface's promises
        │   └── ResponseTooLarge    the response exceeds the configured limit
        └── InconsistentListing     pages that contradict each other in every read

``*`` marks transient errors; these are retried within a bounded time.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, Literal

FailureReason = Literal[
    "unreachable",
    "login_refused",
    "refused",
    "not_found",
    "throttled",
    "malformed",
    "inconsistent",
    "too_large",
    "timeout",
]
"""The words that ``observations.reasons`` has for failed polls."""


class TagsyncError(Exception):
    """Base class. The message is one sentence: what went wrong, where, and what to do."""


class ConfigError(TagsyncError):
    """The configuration or the command line is wrong; nothing was done."""


class UnclearQuestion(TagsyncError):
    """A time or a digest on the command line is invalid or ambiguous."""


class StoreError(TagsyncError):
    """The database could not be read or written; the transaction was rolled back."""


class UnusableDatabase(StoreError):
    """The file is not tagsync's or a newer tagsync wrote it; it was left unchanged."""


class DatabaseLocked(StoreError):
    """Another process kept the database locked for longer than tagsync waits."""


class DamagedRecord(StoreError):
    """A row of the database is not what tagsync wrote.

    Attributes:
        path: The database file. Code that decodes a row does not know the path, so
            `tagsync.database.sqlite_errors.translate_sqlite_errors` sets it later.
    """

    def __init__(self, what: str, path: Path | None = None) -> None:
        super().__init__(what)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path or 'the database'} contains a record that tagsync did not write"
            f" ({self.args[0]}): it is damaged or was altered; run tagsync verify, and restore it"
            " from a backup"
        )


class UnknownRepository(StoreError):
    """A pattern matches no repository; the message names the nearest one."""

    def __init__(self, pattern: str, known: Sequence[str]) -> None:
        near = get_close_matches(pattern, known, n=1, cutoff=0)
        super().__init__(
            f"no repository matches {pattern!r}: "
            + (f"the nearest is {near[0]}" if near else "there are none yet")
            + "; a pattern is matched against registry/namespace/repository"
        )


class RegistryError(TagsyncError):
    """A complete listing could not be read from a registry.

    Attributes:
        transient: Whether the same request may succeed a little later.
        reason: The word that ``observations.reasons`` has for this error.
        retry_after: Seconds to wait before the next request, if the registry said so.
        status: HTTP status of the response, if there was one.
        code: The registry's own error code, if it sent one.
    """

    transient: ClassVar[bool] = False
    reason: ClassVar[FailureReason] = "refused"

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
    """No connection, or a connection that broke."""

    transient = True
    reason: ClassVar[FailureReason] = "unreachable"


class TimedOut(Unreachable):
    """No response in time."""

    reason: ClassVar[FailureReason] = "timeout"


class Untrusted(RegistryError):
    """The server's certificate is not trusted."""

    reason: ClassVar[FailureReason] = "unreachable"


class Throttled(RegistryError):
    """The registry received too many requests."""

    transient = True
    reason: ClassVar[FailureReason] = "throttled"


class Busy(RegistryError):
    """The registry cannot answer at the moment: 409, or a 5xx."""

    transient = True
    reason: ClassVar[FailureReason] = "unreachable"


class Unauthorized(RegistryError):
    """The credential is wrong or has expired."""

    reason: ClassVar[FailureReason] = "login_refused"


class Forbidden(RegistryError):
    """The credential is valid but lacks the permission."""


class NotFound(RegistryError):
    """The registry answered 404: the requested resource does not exist."""

    reason: ClassVar[FailureReason] = "not_found"


class RepositoryNotFound(NotFound):
    """The registry has no such repository."""


class NamespaceNotFound(NotFound):
    """The registry has no such organization."""


class EndpointNotFound(RegistryError):
    """The gateway has no such path: the endpoint is wrong, nothing was deleted."""

    reason: ClassVar[FailureReason] = "not_found"


class BadRequest(RegistryError):
    """The registry refused the request for another reason."""


class MalformedResponse(RegistryError):
    """The response breaks the promises of the registry's interface."""

    reason: ClassVar[FailureReason] = "malformed"


class ResponseTooLarge(MalformedResponse):
    """The response exceeds the configured limit."""

    reason: ClassVar[FailureReason] = "too_large"


class InconsistentListing(RegistryError):
    """The pages of a listing contradict each other in every read."""

    reason: ClassVar[FailureReason] = "inconsistent"
