"""The protocol of a registry's own list of tags, and what a list gets to do its work."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

from tagsync.clock import Clock
from tagsync.errors import RegistryError, ResponseTooLarge
from tagsync.registries.client import Client
from tagsync.registries.oci.challenges import parse_challenges
from tagsync.registries.oci.paging import Cost
from tagsync.registries.oci.shared_login import Login
from tagsync.registries.responses import Answer
from tagsync.secrets import Secret


class Row(NamedTuple):
    """A tag as a list has it. Nothing of it has been checked.

    Attributes:
        name: The name of the tag.
        digest: The digest that the tag points to. None if the list does not say it.
        media_type: The media type of the manifest. None if the list does not say it.
    """

    name: str
    digest: str | None
    media_type: str | None = None


class Rows(NamedTuple):
    """One complete read of a repository's list.

    Attributes:
        rows: The rows, in the order of the registry.
        names: The names of all tags, if the list is also the registry's list of names. None if
            ``tags/list`` has to be read for the names.
        pages: Number of responses from which the list was read.
    """

    rows: Sequence[Row]
    names: Sequence[str] | None = None
    pages: int = 1


class NotOffered(RegistryError):
    """The registry has no usable list for this repository, as its API documents.

    For instance, the list of a proxy project has only the tags that were pulled through it. tagsync
    resolves the tags by HEAD.
    """


class NeedsLogin(RegistryError):
    """The registry shows the list of this repository in full only to a login, and there is none."""


class ListCut(ResponseTooLarge):
    """The registry cut its list of names without a next page, so that nothing has all names.

    The poll fails, because no other request gives the names that are missing.
    """


class Access(msgspec.Struct, frozen=True):
    """A registry, and the ways to query it.

    Attributes:
        client: Sends requests to the endpoint, with the login that its challenges ask for. A path
            that `tagsync.registries.oci.auth` knows uses the token of its repository. If the list
            is throttled, only requests for the list pause.
        base: The answer to ``GET /v2/`` without a credential, whatever its status.
        login: Returns the user and password, or the token, for a repository. None without a login.
        list_token: The secret ``list_token`` of ``[registries.auth]``. None if it is not set.
        clock: Returns the time.
    """

    client: Client
    base: Answer
    login: Callable[[str], Login | None]
    list_token: Secret | None
    clock: Clock

    @property
    def host(self) -> str:
        """The host name of the endpoint, in lower case and without a port."""
        return (urlsplit(self.client.endpoint).hostname or "").lower()

    @property
    def challenges(self) -> Mapping[str, Mapping[str, str]]:
        """The parameters of each challenge of ``base``, by its scheme in lower case."""
        return parse_challenges(self.base.headers.get_list("WWW-Authenticate"))

    @property
    def realm(self) -> str:
        """The URL of the token server that ``base`` names. Empty if it names none, or no URL."""
        realm = self.challenges.get("bearer", {}).get("realm", "")
        try:
            urlsplit(realm)
        except ValueError:
            return ""
        return realm


class TagList(ABC):
    """A list of tags with digests, as one kind of registry offers it.

    A subclass reads and decodes the list; it does not judge it. All methods are called by many
    threads at once.

    Attributes:
        name: The name of the list in ``observations.source``.
        same_store: Whether the registry reads the list from the same store as the answer to HEAD.
            If not, the first listing is resolved by HEAD, too.
        lag: The longest time that the list may be behind the answer to HEAD.
        sample_period: Number of polls within which each tag is resolved by HEAD at least once.
        has_tags: Whether there is a list of tags. If not, only `list_repositories` is of use.
    """

    name: ClassVar[str]
    same_store: ClassVar[bool] = True
    lag: ClassVar[timedelta] = timedelta(minutes=1)
    sample_period: ClassVar[int] = 100
    has_tags: bool = True

    @classmethod
    @abstractmethod
    def detect(cls, access: Access, repository: str) -> Self | None:
        """Return the list of a registry, or None if the registry does not have this kind of list.

        tagsync calls this once per registry. Look at ``access.host`` and ``access.base`` first, so
        that other registries get no request that is not for them.

        Args:
            access: The registry.
            repository: The repository that is polled first, for a request that needs one. Empty if
                the list of repositories is read first.

        Raises:
            RegistryError: If the registry refuses a request. It then has no list until tagsync
                looks again.
        """

    @abstractmethod
    def read(self, repository: str, cost: Cost) -> Rows:
        """Return all rows of a repository's list.

        Args:
            repository: The name of the repository.
            cost: Counts the requests and limits the bytes: pass ``cost.bytes_left`` to the client,
                and each answer to ``cost.add``.

        Raises:
            NotOffered: If the registry documents that its list is not usable for the repository.
            NeedsLogin: If it shows only a part of the list without a login.
            ListCut: If the list shows that ``tags/list`` of this registry lacks names, too.
            MalformedResponse: If the answer is of another repository, or lacks a field.
            RegistryError: If the list cannot be read in full.
        """

    def list_repositories(self, globs: Sequence[str], cost: Cost) -> set[str] | None:
        """Return at least the repositories that match a glob, of which the caller selects.

        Returns:
            None if this API has no list of repositories. tagsync then uses ``/v2/_catalog``.

        Raises:
            RegistryError: If the list cannot be read in full.
        """
        del globs, cost
        return None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets that this list sends, in addition to those of the registry's login."""
        return ()

    def close(self) -> None:
        """Close the connections that the list itself has opened."""
        return
