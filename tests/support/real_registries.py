"""Three registries that others wrote, each with every access control that it has."""

import base64
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest

from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import BasicCredential, NoCredential
from tagsync.secrets import Secret
from tests.support.docker_registry import OCI_MANIFEST, DockerRegistry, require, running, serving
from tests.support.go_programs import CRANE as CRANE_PROGRAM
from tests.support.go_programs import DISTRIBUTION as DISTRIBUTION_PROGRAM
from tests.support.go_programs import built
from tests.support.token_service import Authority, PushTokens, TokenService

USER: Final = "reader"
PASSWORD: Final = "made-up-password"
HTPASSWD: Final = "reader:$2y$05$gJ8lTGIK1mQp6PFwfS1Z/uNFDfkF1nFJH7TMUYAryvMPRh5VHIwp2"
"""The line that Apache's htpasswd writes for both, with bcrypt as the registries require."""

BASIC: Final = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

BASIC_TOML: Final = f'kind = "basic"\nusername = "{USER}"\npassword = "env:SECRET"'
"""The table ``registries.auth`` with this user. The password is in the variable ``SECRET``."""


class Access(StrEnum):
    """How a registry controls access."""

    OPEN = "open"
    BASIC = "basic"
    BEARER = "bearer"


class CraneRegistry(DockerRegistry):
    """The registry of go-containerregistry, which keeps everything in memory."""

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """Put a manifest that the repository has under another tag."""
        self.put(repository, tag, self.manifest(repository, digest), OCI_MANIFEST)

    def copy(self, repository: str, to: str) -> None:
        """Put all tagged manifests of a repository into another one, without their blobs."""
        for tag in self.tags(repository):
            self.put(to, tag, self.manifest(repository, tag), OCI_MANIFEST)


Run = Callable[..., AbstractContextManager[DockerRegistry]]


class Implementation(NamedTuple):
    """An implementation of a registry, and what it can do.

    Attributes:
        run: Runs it in a folder, as `running` does.
        accesses: How it can control access.
        deletes_tags: Whether it deletes a tag by name.
        deletes_tags_of_digest: Whether a deletion by digest deletes the tags that point to it.
    """

    name: str
    run: Run
    accesses: tuple[Access, ...]
    deletes_tags: bool
    deletes_tags_of_digest: bool


class Server(NamedTuple):
    """A running registry, and how tagsync reads it."""

    implementation: Implementation
    registry: DockerRegistry
    access: Access
    ca_file: Path | None

    @contextmanager
    def opened(self) -> Iterator[Registry]:
        """Open tagsync's client in this block."""
        secured = self.access is not Access.OPEN
        client = open_registry(
            self.registry.url,
            BasicCredential(USER, Secret(PASSWORD)) if secured else NoCredential(),
            timeout=30,
            retry_for=1,
            max_listing_bytes=2**26,
            requests_per_second=100_000,
            connections=8,
            kind="oci",
            ca_file=self.ca_file,
        )
        try:
            yield client
        finally:
            client.close()

    def toml(self, name: str, *, auth: str | None = None, more: str = "") -> str:
        """Return the table of this registry, and of its own authentication or another one."""
        ca_file = f'ca_file = "{self.ca_file}"\n' if self.ca_file else ""
        auth = auth or ('kind = "none"' if self.access is Access.OPEN else BASIC_TOML)
        return (
            f'[[registries]]\nname = "{name}"\nkind = "oci"\nendpoint = "{self.registry.url}"\n'
            f"{ca_file}{more}\n[registries.auth]\n{auth}\n"
        )


@contextmanager
def serve(
    implementation: Implementation,
    access: Access,
    folder: Path,
    authority: Authority,
    tokens: TokenService,
) -> Iterator[Server]:
    """Run a registry with an access control.

    With ``BEARER`` it also has TLS, so that its tokens are not sent in the clear.
    """
    options: dict[str, Any] = {}
    ca_file = None
    if access is Access.BASIC:
        htpasswd = folder / "htpasswd"
        htpasswd.write_text(HTPASSWD + "\n")
        options["access"] = {"htpasswd": {"realm": "made up", "path": str(htpasswd)}}
        options["auth"] = _sign_in
    elif access is Access.BEARER:
        ca_file = authority.ca
        options["access"] = tokens.access()
        options["auth"] = PushTokens(tokens)
        options["tls"] = (authority.certificate, authority.key)
        options["verify"] = ssl.create_default_context(cafile=str(ca_file))
    with implementation.run(folder, **options) as registry:
        yield Server(implementation, registry, access, ca_file)


def _sign_in(request: httpx.Request) -> httpx.Request:
    request.headers["Authorization"] = f"Basic {BASIC}"
    return request


def _run_docker_registry(folder: Path, **options: Any) -> AbstractContextManager[DockerRegistry]:
    require("docker-registry")
    return running(folder, **options)


def _run_distribution(folder: Path, **options: Any) -> AbstractContextManager[DockerRegistry]:
    return running(folder, program=str(built(DISTRIBUTION_PROGRAM)), **options)


@contextmanager
def _run_crane(folder: Path) -> Iterator[DockerRegistry]:
    command = [str(built(CRANE_PROGRAM)), "registry", "serve", "--address", "127.0.0.1:0"]
    with serving(command, folder, r"serving on port (\d+)") as host:
        registry = CraneRegistry(folder, host, auth=None, verify=True)
        with registry.client:
            yield registry


_ALL: Final = (Access.OPEN, Access.BASIC, Access.BEARER)

DOCKER_REGISTRY: Final = Implementation(
    "docker-registry", _run_docker_registry, _ALL, deletes_tags=False, deletes_tags_of_digest=True
)
DISTRIBUTION: Final = Implementation(
    "distribution", _run_distribution, _ALL, deletes_tags=True, deletes_tags_of_digest=True
)
CRANE: Final = Implementation(
    "crane", _run_crane, (Access.OPEN,), deletes_tags=True, deletes_tags_of_digest=False
)
IMPLEMENTATIONS: Final = (DOCKER_REGISTRY, DISTRIBUTION, CRANE)

Way = tuple[Implementation, Access]

WAYS: Final[list[Way]] = [(each, access) for each in IMPLEMENTATIONS for access in each.accesses]
"""Each registry with each of its access controls."""


def ways(condition: Callable[[Way], bool], *of_crane: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """Run a test with the ways that meet a condition; crane's test gets further marks."""
    chosen = [
        pytest.param(way, marks=of_crane if way[0] is CRANE else (), id=f"{way[0].name}-{way[1]}")
        for way in WAYS
        if condition(way)
    ]
    return pytest.mark.parametrize("way", chosen, indirect=True, scope="module")
