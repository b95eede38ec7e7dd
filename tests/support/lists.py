"""An emulated registry with its own list, read by tagsync as one poll after another."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from tagsync.emulator.oci import DockerHub, OciEmulator
from tagsync.models import Listing, Scope, Tag, Unchanged
from tagsync.registries.client import Client, Limits
from tagsync.registries.credentials import Credential, NoCredential
from tagsync.registries.oci.api import REFUSALS, Oci
from tagsync.registries.oci.auth import auth_for
from tagsync.registries.oci.lists.dockerhub import DockerHubList
from tagsync.registries.oci.lists.protocol import Access, TagList
from tagsync.registries.oci.lists.vendor import LISTS, VendorLists
from tagsync.registries.pacing import Pacer
from tagsync.registries.responses import Answer
from tagsync.registries.tls import Trust
from tagsync.secrets import Secret
from tests.support.clock import FakeClock

REPOSITORY: Final = "team/api"
"""The repository that most tests read."""

BOUND: Final = 2**24


class Server(Protocol):
    """A registry that remembers its requests: an emulator, or a real one."""

    @property
    def url(self) -> str:
        """The address to use as an endpoint."""

    @property
    def requests(self) -> Sequence[Any]:
        """The requests since they were last forgotten."""

    def clear_requests(self) -> None:
        """Forget all requests."""


class ListedRegistry:
    """A registry that is read poll by poll, with what the last poll of each repository recorded.

    Attributes:
        oci: The registry's client.
        lists: The client's list.
        recorded: The tags of the last poll, by repository.
        turn: The number of polls so far.
        requests: The number of requests of the last poll.
    """

    def __init__(
        self,
        emulator: Server,
        clock: FakeClock,
        *,
        credential: Credential | None = None,
        list_token: Secret | None = None,
        lists: Sequence[type[TagList]] | None = None,
        bound: int = BOUND,
        concurrency: int = 4,
        ca_file: Path | None = None,
    ) -> None:
        """Open the registry.

        Args:
            emulator: A running emulator, or a real registry.
            clock: The time of listings.
            credential: The login. None is anonymous.
            list_token: The secret ``list_token``.
            lists: The lists to look for. By default, all of them, with Docker Hub at the emulator.
            bound: Maximum size of a listing.
            concurrency: Maximum number of HEAD requests at the same time.
            ca_file: Certificates to trust in addition to the default ones.
        """
        auth = auth_for(credential or NoCredential(), emulator.url, clock)
        limits = Limits(max_listing_bytes=bound)
        self._client = Client(
            emulator.url, auth, REFUSALS, limits, pacer=Pacer(1e9), trust=Trust(ca_file)
        )
        self.lists = VendorLists(
            self._client,
            registry="reg",
            login=auth.login,
            list_token=list_token,
            clock=clock,
            lists=(hub_at(emulator.url), *LISTS) if lists is None else lists,
        )
        self.oci = Oci(self._client, bound, concurrency, clock, self.lists)
        self.recorded: dict[str, dict[str, Tag]] = {}
        self.turn = 0
        self.requests = 0
        self._emulator = emulator
        self._clock = clock

    def poll(self, repository: str = REPOSITORY, **scope: Any) -> Listing:
        """Read the repository as the next poll does, a minute later, and record the result."""
        self._clock.advance(minutes=2)
        before = self.recorded.get(repository, {})
        options = Scope(stored=lambda: before, turn=self.turn, **scope)
        self._emulator.clear_requests()
        listing = self.oci.list_tags(repository, None, options)
        assert not isinstance(listing, Unchanged)
        self.turn += 1
        self.requests = len(self._emulator.requests)
        self.recorded[repository] = dict(listing.tags)
        return listing

    def close(self) -> None:
        """Close the connections."""
        self.oci.close()


def paths(emulator: OciEmulator) -> list[str]:
    """Return the paths of all requests but those for manifests."""
    return [request.path for request in emulator.requests if "/manifests/" not in request.path]


def hub_at(url: str) -> type[DockerHubList]:
    """Return Docker Hub's list with its API at an emulator, which is then another host."""

    class LoopbackHub(DockerHubList):
        api = url.replace("127.0.0.1", "localhost")

        @classmethod
        def is_hub(cls, access: Access) -> bool:
            challenge = access.challenges.get("bearer", {})
            return challenge.get("service") == DockerHub.service

    return LoopbackHub


def access_at(endpoint: str, clock: FakeClock, **headers: str) -> Access:
    """Return the access to a registry that answers ``/v2/`` with these headers, and nothing else.

    In the names of the headers, ``_`` stands for a hyphen.
    """

    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.url} was requested")

    transport = httpx.MockTransport(refuse)
    client = Client(endpoint, None, REFUSALS, Limits(), transport=transport)
    sent = httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()})
    base = Answer(f"{endpoint}/v2/", 401, sent, b"")
    return Access(client, base, lambda _: None, None, clock)


def digests(listing: Listing) -> dict[str, str | None]:
    """Return the digest of each tag of a listing."""
    return {name: tag.digest for name, tag in listing.tags.items()}


def fill(emulator: OciEmulator, tags: int, repository: str = REPOSITORY) -> None:
    """Push this number of tags."""
    for number in range(tags):
        emulator.push(repository, f"v{number:05}", f"image {number}")


Open = Callable[..., ListedRegistry]
"""Opens the registry of an emulator; the fixture ``listed``."""
