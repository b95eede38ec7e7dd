"""Find a registry's own list, read it for each poll, and note what was wrong with it."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from threading import RLock
from typing import Final

import msgspec
import structlog

from tagsync.clock import Clock, utc_now
from tagsync.errors import InconsistentListing, RegistryError
from tagsync.models import Distrust, Scope
from tagsync.registries.client import Client
from tagsync.registries.oci.lists.acr import AcrList
from tagsync.registries.oci.lists.claims import Claims, Notes
from tagsync.registries.oci.lists.dockerhub import DockerHubList
from tagsync.registries.oci.lists.gitlab import GitLabList
from tagsync.registries.oci.lists.google import GoogleList
from tagsync.registries.oci.lists.harbor import HarborList
from tagsync.registries.oci.lists.protocol import (
    Access,
    ListCut,
    NeedsLogin,
    NotOffered,
    TagList,
)
from tagsync.registries.oci.lists.quay import QuayList
from tagsync.registries.oci.lists.zot import ZotList
from tagsync.registries.oci.paging import Cost
from tagsync.registries.oci.shared_login import Login
from tagsync.secrets import Secret

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()

LISTS: Final[tuple[type[TagList], ...]] = (
    GitLabList,
    GoogleList,
    AcrList,
    HarborList,
    ZotList,
    QuayList,
    DockerHubList,
)
"""The lists that tagsync knows. The first one that detects itself is the registry's."""

LOOK_AGAIN_AFTER: Final = timedelta(days=1)
"""How long a list is left alone after it was refused, or not found."""

RETRY_AFTER: Final = timedelta(minutes=15)
"""How long a list is left alone after a transient error, or if its pages changed meanwhile. The
time doubles with each further such error, up to `LOOK_AGAIN_AFTER`."""

MAX_FAILURES: Final = 3
"""Number of failed reads in a row after which no list of the registry is read for a while: after a
transient error, because its API is probably down, and after a refusal, because the login probably
may not read any list, unless one was read before."""

_ABOUT_ONE: Final = NotOffered | NeedsLogin | InconsistentListing
"""Errors that say nothing about the lists of other repositories."""

NO_LIST: Final = "the registry has no list that tagsync knows"

_ALL: Final = ""
"""The name of the notes about all repositories of the registry."""

_NAMES: Final = "*"
"""Begins the globs of a list of repositories, in the notes. No name of a repository does."""


def no_login(_: str) -> Login | None:
    """Return no login, whatever the repository."""
    return None


class _Pause(msgspec.Struct, frozen=True):
    """A time in which a list is not read.

    Attributes:
        began: When the pause began.
        lasts: How long it lasts.
        reason: Why, in a phrase.
        offered: Whether there is a list that could be used.
    """

    began: datetime
    lasts: timedelta
    reason: str
    offered: bool = True

    def is_over(self, now: datetime) -> bool:
        """Return whether the list may be read again. A clock that was set back ends the pause."""
        return not timedelta() <= now - self.began < self.lasts


def _pause_after(error: RegistryError, why: str, now: datetime, before: _Pause | None) -> _Pause:
    """Return the pause after an error.

    Args:
        error: The error.
        why: The error in a phrase.
        now: The time.
        before: The pause before this error, if nothing has been read since.
    """
    lasts = LOOK_AGAIN_AFTER
    if error.transient or isinstance(error, InconsistentListing):
        longer = 2 * before.lasts if before else RETRY_AFTER
        lasts = max(min(longer, lasts), timedelta(seconds=error.retry_after or 0))
    return _Pause(now, lasts, why, offered=not isinstance(error, NotOffered))


class VendorLists:
    """A registry's own list, if it has one. Safe to use from many threads at once."""

    def __init__(
        self,
        client: Client,
        *,
        registry: str = "",
        login: Callable[[str], Login | None] = no_login,
        list_token: Secret | None = None,
        clock: Clock = utc_now,
        lists: Sequence[type[TagList]] = LISTS,
    ) -> None:
        """Prepare the registry. No request is sent yet.

        Args:
            client: The registry's client.
            registry: The registry's name, for the log.
            login: Returns the user and password, or the token, for a repository.
            list_token: The secret ``list_token``.
            clock: Returns the time.
            lists: The lists to look for.
        """
        self._client = client.apart()
        self._registry = registry
        self._login = login
        self._list_token = list_token
        self._clock = clock
        self._lists = lists
        self._lock = RLock()
        self._found: TagList | None = None
        self._was_read = False
        self._failures = 0
        self._pause: _Pause | None = None
        self._last_pause: _Pause | None = None  # of those since the last read
        self._pauses: dict[str, _Pause] = {}
        self._notes: dict[str, Notes] = {}

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets that are sent for lists, in addition to those of the login."""
        own = (self._list_token,) if self._list_token else ()
        return own + (self._found.secrets if self._found else ())

    def offers(self, repository: str) -> bool:
        """Return whether the registry has a list of the repository's tags, which may be refused."""
        pause = self._pauses.get(repository)
        return self._found is not None and self._found.has_tags and (pause is None or pause.offered)

    def close(self) -> None:
        """Close the connections that the list itself has opened."""
        if self._found:
            self._found.close()

    def distrust(self, repository: str) -> Distrust | None:
        """Return why a repository's list is not used until the next start, or None."""
        notes = self._notes.get(repository)
        return notes.distrust if notes else None

    def why_unused(self, repository: str) -> str | None:
        """Return why the last poll of a repository did not use a list, in a phrase.

        Returns:
            None if it did, or if no list was found.
        """
        pause = self._pauses.get(repository) or self._pause
        notes = self._notes.get(repository)
        return pause.reason if pause else notes.unused if notes else None

    def read(self, repository: str, scope: Scope, cost: Cost) -> Claims | None:
        """Read the list of a repository for one poll.

        A poll that reads a repository a second time, to confirm a deletion, gets no list: the
        second read is independent of it. Neither does a poll that needs no digest.

        Args:
            repository: The name of the repository.
            scope: Which tags need a digest, and what is recorded of the repository.
            cost: Counts the requests and bytes. They do not reduce the bytes that are left.

        Returns:
            None if no list is used in this poll.

        Raises:
            ListCut: If the list shows that the registry gives no complete list of names.
        """
        if not scope.tags or scope.confirms or self.distrust(repository):
            return None
        found = self._find(repository)
        if found is None or not found.has_tags or self._is_paused(repository):
            return None
        own = Cost(cost.limit)
        try:
            rows = found.read(repository, own)
        except ListCut:
            raise
        except RegistryError as error:
            self._note_error(repository, error)
            return None
        finally:
            cost.include(own)
        self._note_read(repository)
        with self._lock:
            notes = self._notes.setdefault(repository, Notes())
        claims = Claims(found, rows, notes, partial(self._report, repository))
        if rows.names is not None and (why := claims.why_unusable(scope.stored())):
            self._report(repository, why)
            return None
        return claims

    def list_repositories(self, globs: Sequence[str], cost: Cost) -> set[str] | None:
        """Return the repositories of the registry's own API, for `Registry.list_repositories`.

        Returns:
            None if it has no list of them.

        Raises:
            RegistryError: If the list cannot be read in full. It is logged.
        """
        found = self._find("")
        if found is None:
            return None
        about = _NAMES + " ".join(globs)
        try:
            names = found.list_repositories(globs, cost)
        except RegistryError as error:
            self._report(about, f"its list of repositories cannot be read: {error}")
            raise
        with self._lock:
            self._notes.pop(about, None)
        return names

    def _find(self, repository: str) -> TagList | None:
        """Return the registry's list, and look for it first if that is due.

        It may rest: only its lists of tags are paused then, and not that of repositories.
        """
        with self._lock:
            now = self._clock()
            if self._pause is not None and self._pause.is_over(now):
                self._pause, self._failures = None, 0
            if self._found is None and self._pause is None:
                self._look(repository, now)
            return self._found

    def _look(self, repository: str, now: datetime) -> None:
        """Look for the registry's list. A failure only means that there is none for a while."""
        try:
            base = self._client.probe("/v2/")
            access = Access(self._client, base, self._login, self._list_token, self._clock)
            detected = (kind.detect(access, repository) for kind in self._lists)
            self._found = next(filter(None, detected), None)
        except RegistryError as error:
            why = f"the registry's list could not be looked for: {error}"
            self._pause_all(error, why, now)
        if self._found is None and self._pause is None:
            self._pause = _Pause(now, LOOK_AGAIN_AFTER, NO_LIST)

    def _is_paused(self, repository: str) -> bool:
        pause = self._pauses.get(repository)
        is_over = pause is None or pause.is_over(self._clock())
        return self._pause is not None or not is_over

    def _note_read(self, repository: str) -> None:
        with self._lock:
            self._was_read, self._failures, self._last_pause = True, 0, None
            self._pauses.pop(repository, None)
            self._notes.pop(_ALL, None)

    def _note_error(self, repository: str, error: RegistryError) -> None:
        """Leave a repository's list alone for a while, or all lists if none can be read."""
        with self._lock:
            why, now, before = str(error), self._clock(), self._pauses.get(repository)
            self._pauses[repository] = _pause_after(error, why, now, before)
            self._failures += not isinstance(error, _ABOUT_ONE)
            if self._failures >= MAX_FAILURES and (error.transient or not self._was_read):
                self._pause_all(error, why, now)
            self._report(repository, why)

    def _pause_all(self, error: RegistryError, why: str, now: datetime) -> None:
        self._pause = self._last_pause = _pause_after(error, why, now, self._last_pause)
        self._report(_ALL, why)

    def _report(self, repository: str, reason: str) -> None:
        """Log once why a list is not used, until it is used again.

        A line about all lists makes those about each repository needless.
        """
        is_one = repository != _ALL and not repository.startswith(_NAMES)
        with self._lock:
            notes = self._notes.setdefault(repository, Notes())
            is_news, notes.unused = notes.unused is None, reason
            is_news = is_news and not (is_one and _ALL in self._notes)
        if is_news:
            about = {"registry": self._registry}
            if is_one:
                about["repository"] = f"{self._registry}/{repository}"
            found = self._found.name if self._found else None
            log.warning("list.unused", **about, list=found, reason=reason)
