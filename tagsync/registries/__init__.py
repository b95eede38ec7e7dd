"""Read tags from container registries, all behind the protocol `Registry`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from tagsync.models import EVERYTHING, Listing, Scope, Unchanged
from tagsync.registries.credentials import Credential

RegistryKind = Literal["swr", "oci"]
"""The API that a registry has."""


class Registry(Protocol):
    """One configured endpoint. Safe to use from many threads at once."""

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        """Return all tags of a repository.

        Args:
            repository: ``namespace/name``.
            known: Fingerprint of the last recorded listing. If the registry sends the same listing
                again, the result is `Unchanged`.
            scope: Which tags to resolve, and whether to fetch manifests.

        Returns:
            A listing that is complete and consistent.

        Raises:
            tagsync.errors.NotFound: If the registry answers that the repository does not exist.
            tagsync.errors.RegistryError: If a complete listing cannot be read for any other reason.
        """

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        """Return the repositories that match one of the globs over ``namespace/name``.

        A glob that begins with literal characters limits what is requested from the registry.

        Args:
            globs: Patterns in which ``*`` also matches slashes.
            shared: Whether to include repositories that other accounts share.

        Raises:
            tagsync.errors.RegistryError: If the list could not be read in full.
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
    ca_file: Path | None = None,
) -> Registry:
    """Return the client of an endpoint. No request is sent yet.

    Args:
        endpoint: URL of the registry's API, without a path.
        credential: How to log in.
        timeout: Seconds for one request.
        retry_for: Seconds within which a transient error is retried.
        max_listing_bytes: The most bytes of all response bodies of one listing.
        requests_per_second: The rate of all requests together.
        connections: The most requests at once.
        kind: The API that the registry has.
        ca_file: Certificates (PEM) to trust in addition to the usual ones.

    Raises:
        ConfigError: If the credential is for another kind of registry, or the credential or the
            file of certificates cannot be used.
    """
    # Imported lazily: httpx takes 0.1 s, and most commands send no request to a registry.
    from tagsync.registries.client import Client, Limits  # noqa: PLC0415  see above
    from tagsync.registries.oci import api as oci  # noqa: PLC0415  see above
    from tagsync.registries.oci import auth as oci_auth  # noqa: PLC0415  see above
    from tagsync.registries.swr import api as swr  # noqa: PLC0415  see above
    from tagsync.registries.swr import auth as swr_auth  # noqa: PLC0415  see above

    limits = Limits(timeout, retry_for, max_listing_bytes, requests_per_second, connections)
    is_oci = kind == "oci"
    auth = oci_auth.auth_for(credential, endpoint) if is_oci else swr_auth.auth_for(credential)
    refusals = oci.REFUSALS if is_oci else swr.REFUSALS

    client = Client(
        endpoint,
        auth,
        refusals,
        limits,
        secrets=lambda: auth.secrets if auth else (),
        ca_file=ca_file,
    )
    if is_oci:
        return oci.Oci(client, max_listing_bytes, connections)
    return swr.Swr(client, max_listing_bytes)
