"""The registries that can be mirrored, all behind one protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from tagsync.models import EVERYTHING, Listing, Scope, Unchanged
from tagsync.registries.credentials import Credential
from tagsync.secrets import Secret

Source = Literal["swr", "oci"]
"""The interfaces that are spoken."""


class Registry(Protocol):
    """One configured endpoint, safe to be used by many threads at once."""

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        """Reads all tags of a repository.

        Args:
            repository: ``namespace/name``.
            known: the fingerprint of the last recorded listing; finding the same gives `Unchanged`.
            scope: what is wanted beyond the tags' names.

        Returns:
            A listing that is complete and does not contradict itself.

        Raises:
            tagsync.errors.NotFound: the registry knows no such repository.
            tagsync.errors.RegistryError: any other reason for which there is no such listing.
        """

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        """Finds the repositories that match one of the globs over ``namespace/name``.

        A literal beginning of a glob narrows what is asked.

        Args:
            globs: in which ``*`` crosses slashes.
            shared: whether to look among what other accounts share, too.

        Raises:
            tagsync.errors.RegistryError: the list could not be had in full.
        """

    def close(self) -> None:
        """Closes the connections."""


def open_registry(
    endpoint: str,
    credential: Credential,
    *,
    timeout: float,
    retry_for: float,
    max_listing_bytes: int,
    requests_per_second: float,
    connections: int,
    kind: Source = "swr",
    ca_file: Path | None = None,
) -> Registry:
    """Makes the client of an endpoint; sends nothing yet.

    Args:
        endpoint: the URL of its API, without a path.
        credential: what it is asked with.
        timeout: seconds for one request.
        retry_for: seconds within which a request that fails in passing is tried again.
        max_listing_bytes: how large all bodies of one listing together may be.
        requests_per_second: the rate of all requests together.
        connections: how many requests may be under way at once.
        kind: the interface that it speaks.
        ca_file: certificates (PEM) to trust beside the usual ones.

    Raises:
        ConfigError: the credential is for another kind of registry, or it or the file of
            certificates cannot be used.
    """
    # httpx takes a tenth of a second to import, which commands that ask no registry should not pay.
    from tagsync.registries.client import Client, Limits  # noqa: PLC0415  see above
    from tagsync.registries.oci import api as oci_api  # noqa: PLC0415  see above
    from tagsync.registries.oci import auth as oci_auth  # noqa: PLC0415  see above
    from tagsync.registries.swr import api as swr_api  # noqa: PLC0415  see above
    from tagsync.registries.swr import auth as swr_auth  # noqa: PLC0415  see above

    limits = Limits(timeout, retry_for, max_listing_bytes, requests_per_second, connections)
    signer = oci_auth.of(credential, endpoint) if kind == "oci" else swr_auth.of(credential)
    refusal_of = oci_api.refusal_of if kind == "oci" else swr_api.refusal_of

    def secrets() -> tuple[Secret, ...]:
        return signer.secrets if signer else ()

    client = Client(
        endpoint,
        signer,
        lambda answer: refusal_of(answer, secrets()),
        limits,
        secrets=secrets,
        ca_file=ca_file,
    )
    if kind == "oci":
        return oci_api.Oci(client, max_listing_bytes, connections)
    return swr_api.Swr(client, max_listing_bytes)
