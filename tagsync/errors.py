"""All errors that tagsync raises on purpose. A message is one sentence for users.

::

    TagsyncError
    ├── ConfigError                 the configuration or the command line is wrong
    │   └── AddressUnavailable      the daemon cannot listen on its address at the moment
    ├── UnclearQuestion             a time or a digest is invalid or ambiguous
    ├── RefusedAcceptance           a change cannot be accepted
    ├── NoAnswer                    the daemon does not answer a health check
    ├── NotDelivered                a receiver has not accepted a notification
    ├── StoreError                  the database could not be read or written
    │   ├── UnusableDatabase        the file is missing, or tagsync cannot use it
    │   ├── ReplacedDatabase        the open file was deleted, replaced or restored
    │   ├── DatabaseLocked          another process holds the lock for too long
    │   ├── DatabaseInUse           another process has the database open
    │   ├── RefusedBackup           a backup is not what it has to be
    │   ├── DamagedRecord           a row is not what tagsync wrote
    │   ├── UnknownRepository       a pattern matches no repository
    │   └── UnknownTag              a repository never had this tag
    └── RegistryError               a complete listing could not be read
        ├── Unreachable        *    no connection, or the connection broke
        │   └── TimedOut       *    no response within the configured time
        ├── Untrusted               the server's certificate is not trusted
        ├── Throttled          *    too many requests: the whole registry pauses
        ├── Busy               *    409 or 5xx: the registry cannot answer at the moment
        ├── Unauthorized            401: the credential is wrong or has expired
        │   └── NewTokenRefused *   401 for a token that was issued a moment ago
        ├── Forbidden               403: the credential lacks the permission
        ├── NotFound                404: the requested resource does not exist
        │   ├── RepositoryNotFound  the registry has no such repository
        │   └── NamespaceNotFound   the registry has no such organization
        ├── EndpointNotFound        the gateway has no such path: the endpoint is wrong
        ├── BadRequest              a refusal that no other error covers
        ├── MalformedResponse       the response does not follow the registry's interface
        │   └── ResponseTooLarge    the response exceeds the configured limit
        └── InconsistentListing     the pages contradict each other in every read

``*`` marks transient errors. A request that fails with a transient error is retried for a bounded
time.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, Final, Literal

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
"""The words for failed polls in the column ``observations.reasons``."""

_LEAST_PART: Final = 3
"""Least number of characters by which a part of a name is recognized."""


class TagsyncError(Exception):
    """Base class of these errors. Its message is one sentence for users.

    The sentence says what went wrong, where, and what to do.
    """


class ConfigError(TagsyncError):
    """The configuration or the command line is wrong; nothing was done."""


class AddressUnavailable(ConfigError):
    """The daemon cannot listen on its address at the moment; another attempt may succeed.

    Another process uses the port, or the host does not have the address (yet).
    """


class UnclearQuestion(TagsyncError):
    """A time or a digest on the command line is invalid or ambiguous."""


class RefusedAcceptance(TagsyncError):
    """A change cannot be accepted: it is unknown, not an alarm, or was accepted before."""


class NoAnswer(TagsyncError):
    """The daemon does not answer a health check."""


class NotDelivered(TagsyncError):
    """A receiver has not accepted a notification; it is sent again later.

    Attributes:
        retry_after: Seconds to wait before the next attempt. None if the receiver did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreError(TagsyncError):
    """The database could not be read or written; the transaction was rolled back."""


class UnusableDatabase(StoreError):
    """The database file is missing, or tagsync cannot use it.

    The file may belong to another program or to another version of tagsync. It was not changed.
    """


class ReplacedDatabase(StoreError):
    """The open database was deleted, replaced or restored; nothing more is written into it."""


class DatabaseLocked(StoreError):
    """Another process kept the database locked for longer than tagsync waits."""


class DatabaseInUse(StoreError):
    """Another process has the database open, so that this one may not start or replace it."""


class RefusedBackup(StoreError):
    """A backup has a fault, or must not replace the database; nothing was changed."""


class DamagedRecord(StoreError):
    """A row of the database is not what tagsync wrote.

    Attributes:
        row: The row, and what is wrong with it.
        path: The database file. Code that decodes a row does not know this path, so
            `tagsync.database.sqlite_errors.translate_sqlite_errors` sets it later.
    """

    def __init__(self, row: str, path: Path | None = None) -> None:
        super().__init__(row)
        self.row = row
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path or 'the database'} contains a record that tagsync did not write"
            f" ({self.row}): the file is damaged or was altered; run tagsync verify, and"
            " restore the file from a backup"
        )


class UnknownRepository(StoreError):
    """A pattern matches no repository; the message names a similar one, if there is one."""

    def __init__(self, pattern: str, known: Sequence[str]) -> None:
        near = _nearest_repository(pattern, known)
        advice = f"the nearest is {near}" if near else "tagsync status --all shows the names"
        super().__init__(
            f"no repository matches {pattern!r}: "
            + (advice if known else "there are no repositories yet")
            + "; a pattern is matched against registry/namespace/repository"
        )


class UnknownTag(StoreError):
    """A tag was never recorded; the message names a similar one, if there is one."""

    def __init__(self, tag: str, repositories: Sequence[str], known: Sequence[str]) -> None:
        near = _nearest(tag, known)
        where = repositories[0] if len(repositories) == 1 else f"{len(repositories)} repositories"
        advice = f"the nearest is {near}" if near else "tagsync log shows the tags that were"
        super().__init__(
            f"the tag {tag!r} was never recorded in {where}: "
            + (advice if known else "no tags are recorded there")
        )


def _nearest_repository(pattern: str, known: Sequence[str]) -> str | None:
    """Like `_nearest`. The name of a registry that exists does not make names similar."""
    registry = f"{pattern.partition('/')[0]}/"
    names = [name.removeprefix(registry) for name in known if name.startswith(registry)]
    if not names:
        return _nearest(pattern, known)
    near = _nearest(pattern.removeprefix(registry), names)
    return registry + near if near else None


def _nearest(text: str, known: Sequence[str]) -> str | None:
    """Return the known name that a text probably means, or None if no name is similar.

    A long name is also similar to a part of it, such as a repository's name without the registry,
    and to a text with a similar last part.
    """
    if near := get_close_matches(text, known, n=1):
        return near[0]
    part = text.strip("*/")
    containing = [name for name in known if len(part) >= _LEAST_PART and part in name]
    if containing:
        return min(containing, key=len)
    last = {name.rpartition("/")[2]: name for name in known}
    return next(
        (last[each] for each in get_close_matches(part.rpartition("/")[2], last, n=1)), None
    )


class RegistryError(TagsyncError):
    """A complete listing could not be read from a registry.

    Attributes:
        transient: Whether the same request may succeed a little later.
        reason: The word for this error in the column ``observations.reasons``.
        retry_after: Seconds to wait before the next request. None if the registry did not say.
        status: HTTP status of the response. None if the registry sent no response.
        code: The registry's own error code. None if the response has no such code.
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
    """The registry cannot be reached, or the connection to it broke."""

    transient = True
    reason: ClassVar[FailureReason] = "unreachable"


class TimedOut(Unreachable):
    """The registry sent no response within the configured time."""

    reason: ClassVar[FailureReason] = "timeout"


class Untrusted(RegistryError):
    """The server's certificate is not trusted."""

    reason: ClassVar[FailureReason] = "unreachable"


class Throttled(RegistryError):
    """The registry received too many requests."""

    transient = True
    reason: ClassVar[FailureReason] = "throttled"


class Busy(RegistryError):
    """The registry cannot answer at the moment: it answered 409 or 5xx."""

    transient = True
    reason: ClassVar[FailureReason] = "unreachable"


class Unauthorized(RegistryError):
    """The credential is wrong or has expired."""

    reason: ClassVar[FailureReason] = "login_refused"


class NewTokenRefused(Unauthorized):
    """The registry refused a token that its token server issued a moment ago.

    The clocks of a registry's machines may differ by a second, so the same token may be accepted
    soon.
    """

    transient = True


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
    """The gateway has no such path. The endpoint is wrong; no repository was deleted."""

    reason: ClassVar[FailureReason] = "not_found"


class BadRequest(RegistryError):
    """The registry refused the request for a reason that no other error covers."""


class MalformedResponse(RegistryError):
    """The response does not follow the registry's interface."""

    reason: ClassVar[FailureReason] = "malformed"


class ResponseTooLarge(MalformedResponse):
    """The response exceeds the configured limit."""

    reason: ClassVar[FailureReason] = "too_large"


class InconsistentListing(RegistryError):
    """The pages of a listing contradict each other in every read."""

    reason: ClassVar[FailureReason] = "inconsistent"
