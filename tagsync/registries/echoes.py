"""Refuse to record what repeats a secret.

A registry that sends back what it received could write a password or a token into the database, as
the name of a tag for example. Messages are redacted (`tagsync.secrets.redact`). Recorded data
cannot be redacted, because it would no longer be what the registry sent.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard

import msgspec

from tagsync.errors import MalformedResponse, RegistryError
from tagsync.models import EVERYTHING, Listing, ListUse, Scope, Unchanged
from tagsync.registries import Registry
from tagsync.secrets import Secret, contains_secret, redact


class EchoGuard:
    """A registry whose listings are refused if they contain one of its secrets.

    It implements the protocol `Registry`.
    """

    def __init__(
        self, registry: Registry, endpoint: str, secrets: Callable[[], tuple[Secret, ...]]
    ) -> None:
        """Guard a registry.

        Args:
            registry: The registry. `close` closes it.
            endpoint: The URL of the registry, for an error.
            secrets: Returns the secrets of the registry's credential that are in use.
        """
        self._registry = registry
        self._endpoint = endpoint
        self._secrets = secrets

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        """Return all tags of a repository, as `Registry.list_tags` does.

        Raises:
            MalformedResponse: If the listing contains a secret.
            RegistryError: As for `Registry.list_tags`.
        """
        with self._redacting():
            listing = self._registry.list_tags(repository, known, scope)
        if isinstance(listing, Listing):
            self._check(_texts(listing), "tags")
            if listing.unfetched and contains_secret(listing.unfetched, self._secrets()):
                listing = msgspec.structs.replace(listing, unfetched=redact(listing.unfetched))
        return listing

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        """Return the repositories that match, as `Registry.list_repositories` does.

        Raises:
            MalformedResponse: If a name contains a secret.
            RegistryError: As for `Registry.list_repositories`.
        """
        with self._redacting():
            names = self._registry.list_repositories(globs, shared=shared)
        self._check(names, "repositories")
        return names

    def list_use(self, repository: str, scope: Scope = EVERYTHING) -> ListUse | None:
        """Return how polls would resolve a repository's tags, as `Registry.list_use` does."""
        with self._redacting():
            use = self._registry.list_use(repository, scope)
        if use is None or use.reason is None:
            return use
        return msgspec.structs.replace(use, reason=redact(use.reason))

    def close(self) -> None:
        """Close the connections."""
        self._registry.close()

    @contextmanager
    def _redacting(self) -> Iterator[None]:
        """Redact the URLs in error messages: the registry may have named the URL of a page."""
        try:
            yield
        except RegistryError as error:
            if not contains_secret(str(error), self._secrets()):
                raise
            raise type(error)(
                redact(str(error)),
                retry_after=error.retry_after,
                status=error.status,
                code=error.code,
            ) from None

    def _check(self, texts: Iterable[str], what: str) -> None:
        secrets = self._secrets()
        if secrets and contains_secret("\n".join(texts), secrets):
            raise MalformedResponse(
                f"{self._endpoint} repeats a secret of [registries.auth] in its list of {what}, so"
                " the list is not recorded: check the endpoint, or change the secret if it is the"
                " name of something"
            )


def _texts(listing: Listing) -> Iterator[str]:
    """Yield all texts of a listing that the registry sent."""
    for group in (listing.tags, listing.images, listing.children):
        for row in group.values():
            yield from filter(_is_text, msgspec.structs.astuple(row))


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)
