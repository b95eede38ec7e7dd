"""Read tags from container registries, all through the protocol `Registry`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from tagsync.models import EVERYTHING, Listing, ListUse, Scope, Unchanged
from tagsync.registries.credentials import Credential
from tagsync.secrets import Secret

RegistryKind = Literal["swr", "oci"]
"""The API of a registry: SWR's own, or that of the OCI distribution specification."""

ListChoice = Literal["auto", "tags"]
"""Whether an OCI registry's own list of tags with digests is used, if it has one."""


class Registry(Protocol):
    """One configured endpoint. Safe to use from many threads at once."""

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        """Return all tags of a repository.

        Args:
            repository: ``namespace/name``.
            known: Fingerprint of the last recorded listing, or None to always return a `Listing`.
            scope: Which tags to resolve to digests, and whether to fetch manifests.

        Returns:
            A complete and consistent listing, or `Unchanged` if its fingerprint is ``known``.

        Raises:
            tagsync.errors.NotFound: If the registry answers that the repository does not exist.
            tagsync.errors.RegistryError: If a complete listing cannot be read for any other reason.
        """

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        """Return the repositories that match one of the globs over ``namespace/name``.

        If a glob begins with literal characters, the client may request only a part of the
        registry's list.

        Args:
            globs: Patterns in which ``*`` also matches slashes.
            shared: Whether to include repositories that other accounts share with this one.

        Raises:
            tagsync.errors.RegistryError: If the list could not be read in full.
        """

    def list_use(self, repository: str, scope: Scope = EVERYTHING) -> ListUse | None:
        """Return how polls would resolve a repository's tags, without resolving one.

        Returns:
            None if the API of the registry lists each tag with its digest.

        Raises:
            tagsync.errors.RegistryError: If the names of the tags cannot be read.
        """

    def close(self) -> None:
        """Close the connections."""


def open_registry(
    endpoint: str,
    credential: Credential,
    *,
    timeout: float,
    retry_for: float,
    max_listing_bytes: int,
    requests_per_second: float,
    connections: int,
    kind: RegistryKind = "swr",
    list_choice: ListChoice = "tags",
    name: str = "",
    ca_file: Path | None = None,
    client_cert_file: Path | None = None,
    client_key_file: Path | None = None,
) -> Registry:
    """Return a client for the registry at an endpoint. No request is sent yet.

    Args:
        endpoint: URL of the registry's API, without a path.
        credential: How to log in to the registry.
        timeout: Maximum time for one request, in seconds.
        retry_for: How long a request is retried after transient errors, in seconds.
        max_listing_bytes: Maximum size of the response bodies of one listing together.
        requests_per_second: Maximum rate of all requests to the registry together.
        connections: Maximum number of requests at the same time.
        kind: The API of the registry.
        list_choice: ``auto`` uses the registry's own list of tags with digests as far as it can be
            believed. ``tags`` resolves each tag by a HEAD request. SWR ignores it.
        name: The name of the registry in the configuration, for the log.
        ca_file: A file with certificates (PEM) to trust in addition to the default ones.
        client_cert_file: A file with the certificate (PEM) that tagsync shows to servers, followed
            by its chain. None shows no certificate.
        client_key_file: A file with the private key (PEM) of that certificate. None if the key is
            in ``client_cert_file``.

    Raises:
        ConfigError: If this kind of registry does not accept the credential, or if the credential,
            a file of certificates or the environment's proxy for the endpoint cannot be used.
    """
    # Imported lazily: httpx takes 0.1 s, and most commands send no request to a registry.
    from tagsync.registries.client import Client, Limits  # noqa: PLC0415  see above
    from tagsync.registries.echoes import EchoGuard  # noqa: PLC0415  see above
    from tagsync.registries.oci import api as oci  # noqa: PLC0415  see above
    from tagsync.registries.oci import auth as oci_auth  # noqa: PLC0415  see above
    from tagsync.registries.oci.lists.vendor import VendorLists  # noqa: PLC0415  see above
    from tagsync.registries.swr import api as swr  # noqa: PLC0415  see above
    from tagsync.registries.swr import auth as swr_auth  # noqa: PLC0415  see above
    from tagsync.registries.tls import Trust  # noqa: PLC0415  see above

    limits = Limits(timeout, retry_for, max_listing_bytes, requests_per_second, connections)
    is_oci = kind == "oci"
    auth = oci_auth.auth_for(credential, endpoint) if is_oci else swr_auth.auth_for(credential)
    refusals = oci.REFUSALS if is_oci else swr.REFUSALS

    lists: VendorLists | None = None

    def secrets() -> tuple[Secret, ...]:
        return (auth.secrets if auth else ()) + (lists.secrets if lists else ())

    trust = Trust(ca_file, client_cert_file, client_key_file)
    client = Client(endpoint, auth, refusals, limits, secrets=secrets, trust=trust)
    registry: Registry
    if isinstance(auth, oci_auth.ChallengedAuth):
        if list_choice == "auto":
            token = getattr(credential, "list_token", None)
            lists = VendorLists(client, registry=name, login=auth.login, list_token=token)
        registry = oci.Oci(client, max_listing_bytes, connections, lists=lists)
    else:
        registry = swr.Swr(client, max_listing_bytes)
    return EchoGuard(registry, endpoint, secrets)
