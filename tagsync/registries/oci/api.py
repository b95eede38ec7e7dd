"""Registries with the API of the OCI distribution specification (Docker API v2).

The tags of a repository come from ``GET /v2/{name}/tags/list``. The digest of each tag comes from
``HEAD /v2/{name}/manifests/{tag}``.
"""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from tagsync.clock import Clock, timestamp, utc_now
from tagsync.errors import (
    BadRequest,
    EndpointNotFound,
    Forbidden,
    MalformedResponse,
    NotFound,
    RegistryError,
    RepositoryNotFound,
    Throttled,
    Unauthorized,
)
from tagsync.escaping import truncate
from tagsync.models import (
    EVERYTHING,
    OCI_REPOSITORY,
    TAG,
    Listing,
    ListUse,
    Scope,
    Tag,
    Unchanged,
)
from tagsync.registries.client import Client
from tagsync.registries.oci.listing import Listed, Resolution, complete_listing, fingerprint
from tagsync.registries.oci.lists.claims import HEAD, Believed, Claims
from tagsync.registries.oci.lists.vendor import NO_LIST, VendorLists
from tagsync.registries.oci.paging import Cost, PagedNames, PageSize, read_list
from tagsync.registries.oci.resolve import ManifestFetch, Resolver
from tagsync.registries.responses import Answer, ListPage, Refusal, Refusals, decode_body

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()

_INTERFACE: Final = "the registry's API"

_NOT_WANTED: Final = "the configuration has list = 'tags'"

_NAMES: Final = 10
"""Maximum number of invalid names in a log line."""

REFUSALS: Final = Refusals(
    code_keys=("code",),
    message_keys=("message",),
    rows=(
        Refusal(Throttled, code="TOOMANYREQUESTS"),
        # Some registries answer 404 for what the login may not see, or for an unknown API.
        Refusal(Forbidden, 404, code="DENIED|UNAUTHORIZED", advice=": check the credentials"),
        Refusal(EndpointNotFound, 404, code="UNSUPPORTED", advice=": check the endpoint"),
        # A proxy, or a host that is not a registry, also answers 404. A registry's own 404 has an
        # error code as the specification writes it, or the header below.
        Refusal(RepositoryNotFound, 404, code=r"[A-Z_]+"),
        Refusal(RepositoryNotFound, 404, header="Docker-Distribution-Api-Version"),
        Refusal(EndpointNotFound, 404, advice=": check the endpoint"),
        Refusal(
            Unauthorized,
            401,
            advice=": check the credentials; many registries answer so if the repository does not"
            " exist",
        ),
        Refusal(Forbidden, 403, advice=": the credentials do not permit this"),
    ),
)
"""The meaning of the error codes of the specification (section "Error codes")."""


class _Tags(ListPage):
    tags: list[str] | None
    name: str | None = None


class _Catalog(ListPage):
    repositories: list[str] | None


_decode_tags = msgspec.json.Decoder(_Tags).decode
_decode_catalog = msgspec.json.Decoder(_Catalog).decode


class Oci:
    """An OCI registry. It implements the protocol `Registry`."""

    def __init__(
        self,
        client: Client,
        max_listing_bytes: int,
        concurrency: int,
        clock: Clock = utc_now,
        lists: VendorLists | None = None,
    ) -> None:
        """Prepare the registry. No request is sent yet.

        Args:
            client: Sends the requests. It must have been created with `REFUSALS`. `close` closes
                it.
            max_listing_bytes: Maximum size of the response bodies of one listing together.
            concurrency: Maximum number of requests for manifests at the same time, for all
                repositories together.
            clock: Returns the time at which a listing starts and finishes.
            lists: Reads the registry's own list, if it has one. None resolves all tags by HEAD.
        """
        self._client = client
        self._max_bytes = max_listing_bytes
        self._clock = clock
        self._resolver = Resolver(client, concurrency)
        self._lists = lists
        self._tags_page, self._catalog_page = PageSize(), PageSize()

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        """Return all tags of a repository, with digests for the tags in the scope.

        If the registry lists a tag but answers 404 for its manifest, the tag has no digest and is
        in `Listing.missing`. If a single tag cannot be resolved for another reason, it is in
        `Listing.failed`. Names that cannot be a tag are in `Listing.bad_names`. If a manifest
        cannot be fetched, the listing is valid nevertheless: the manifest is left for the next
        poll, and the listing's fingerprint is None.

        Args:
            repository: The name of the repository in the registry.
            known: Fingerprint of the last recorded listing.
            scope: Which tags to resolve to digests, and whether to fetch manifests.

        Raises:
            RepositoryNotFound: If the repository does not exist.
            InconsistentListing: If the pages contradicted each other in every attempt.
            RegistryError: If a complete listing cannot be read for any other reason.
        """
        started_at = timestamp(self._clock())
        cost = Cost(self._max_bytes)
        claims = self._lists.read(repository, scope, cost) if self._lists else None
        listed = self._listed(repository, claims, cost)
        found = self._resolve(repository, listed, claims, known, scope, cost)
        if found.fingerprint == known:
            return Unchanged(
                started_at,
                timestamp(self._clock()),
                found.fingerprint,
                cost.requests,
                cost.size,
                found.believed.distrust,
            )
        fetch = ManifestFetch(repository, scope, cost)
        if scope.manifests:
            fetch = self._resolver.fetch_manifests(repository, list(found.images), scope, cost)
        times = started_at, timestamp(self._clock())
        return complete_listing(listed, found, fetch, cost, times)

    def list_repositories(
        self,
        globs: Sequence[str],
        *,
        shared: bool = False,  # noqa: ARG002  a catalogue lists all repositories
    ) -> set[str]:
        """Return the repositories of the registry's catalogue that match one of the globs.

        Args:
            globs: Patterns over names. ``*`` also matches slashes.
            shared: Ignored, because a catalogue lists all repositories that the user may see.

        Raises:
            RegistryError: If the registry has no catalogue, or the catalogue could not be read in
                full.
        """
        if not globs:
            return set()
        cost, refusal = Cost(self._max_bytes), ""
        try:
            listed = self._lists.list_repositories(globs, cost) if self._lists else None
        except RegistryError as error:
            listed, refusal = None, f"{error}; "
        if listed is not None:
            bad_names = {name for name in listed if not OCI_REPOSITORY.fullmatch(name)}
            self._log_skipped(bad_names)
            return {name for name in listed - bad_names if _matches(name, globs)}

        def decode(answer: Answer) -> Sequence[str]:
            page = decode_body(_decode_catalog, answer, _INTERFACE)
            page.check_whole(answer)
            return page.repositories or []

        def catalog() -> PagedNames:
            return PagedNames(self._client, cost, OCI_REPOSITORY, "/v2/_catalog", decode)

        try:
            found = read_list(catalog, self._catalog_page, "the catalogue")
        except (BadRequest, EndpointNotFound, Forbidden, NotFound, Unauthorized) as error:
            raise type(error)(
                f"the registry gives no list of its repositories, so name them instead of"
                f" {globs[0]!r}: {refusal}{error}",
                status=error.status,
                code=error.code,
            ) from error
        self._log_skipped(found.bad_names)
        return {name for name in found.names if _matches(name, globs)}

    def _log_skipped(self, bad_names: Collection[str]) -> None:
        """Log the listed texts that are not names of repositories, if there are any."""
        if bad_names:
            names = [truncate(name) for name in sorted(bad_names)[:_NAMES]]
            log.warning(
                "discovery.skipped",
                endpoint=self._client.endpoint,
                names=names,
                count=len(bad_names),
            )

    def list_use(self, repository: str, scope: Scope = EVERYTHING) -> ListUse:
        """Return how polls would resolve a repository's tags, as `Registry.list_use` does."""
        of_list, of_names = Cost(self._max_bytes), Cost(self._max_bytes)
        claims = self._lists.read(repository, scope, of_list) if self._lists else None
        names = self._listed(repository, claims, of_names).names
        wanted = [name for name in names if scope.has(name)]
        if claims is not None:
            why = claims.why_unusable(names)
            if why is None:
                requests = of_list.requests + of_names.requests + claims.idle_heads(wanted)
                return ListUse(claims.source, len(names), requests)
        else:
            why = self._lists.why_unused(repository) if self._lists else _NOT_WANTED
        offered = self._lists is not None and self._lists.offers(repository)
        requests = of_names.requests + len(wanted)
        return ListUse(HEAD, len(names), requests, why or NO_LIST, offered)

    def close(self) -> None:
        """Close the connections."""
        if self._lists:
            self._lists.close()
        self._resolver.close()
        self._client.close()

    def _listed(self, repository: str, claims: Claims | None, cost: Cost) -> Listed:
        """Return the names of all tags, from ``tags/list`` unless the list is one of names, too."""
        if claims is None or claims.names is None:
            names = self._names(repository, cost)
            return Listed(list(names.names), list(names.bad_names), names.pages)
        valid = {name: TAG.fullmatch(name) is not None for name in claims.names}
        bad = [name for name, is_valid in valid.items() if not is_valid]
        return Listed([name for name in valid if valid[name]], bad, claims.pages)

    def _believe(
        self, repository: str, claims: Claims | None, listed: Listed, scope: Scope
    ) -> Believed:
        """Return the tags whose digests come from the registry's own list."""
        if claims is not None:
            return claims.believe(listed.names, scope)
        return Believed(distrust=self._lists.distrust(repository) if self._lists else None)

    def _names(self, repository: str, cost: Cost) -> PagedNames:
        """Read the names of all tags."""

        def decode(answer: Answer) -> Sequence[str]:
            page = decode_body(_decode_tags, answer, _INTERFACE)
            page.check_whole(answer)
            name = page.name or repository
            # The repository may have another parent where a redirect leads.
            is_moved = answer.redirected and name.endswith(f"/{repository}")
            if name != repository and not is_moved:
                raise MalformedResponse(
                    f"{answer.url} sent the list of another repository, {truncate(name)!r}, instead"
                    f" of {repository!r}: check the endpoint, and check the proxy if there is one"
                )
            return page.tags or []

        def tags() -> PagedNames:
            return PagedNames(self._client, cost, TAG, f"/v2/{repository}/tags/list", decode)

        return read_list(tags, self._tags_page, repository)

    def _resolve(
        self,
        repository: str,
        listed: Listed,
        claims: Claims | None,
        known: str | None,
        scope: Scope,
        cost: Cost,
    ) -> Resolution:
        """Resolve all tags: by the registry's own list as far as it is believed, others by HEAD."""
        believed = self._believe(repository, claims, listed, scope)
        found = self._resolve_others(repository, listed, believed, known, scope, cost)
        instead = claims and claims.reconsider(found.asked, scope, self._clock())
        if not instead:
            return found
        rest = replace(scope, seen=found.resolved)
        again = self._resolve_others(repository, listed, instead, known, rest, cost)
        again.images.update(found.images_of(found.resolved))
        return again

    def _resolve_others(
        self,
        repository: str,
        listed: Listed,
        believed: Believed,
        known: str | None,
        scope: Scope,
        cost: Cost,
    ) -> Resolution:
        """Resolve by HEAD the tags of the scope that the list does not give; others have no digest.

        Tags whose manifest is missing are confirmed, unless the listing is then equal to the
        recorded one, whose missing manifests have been confirmed.
        """
        given = {**believed.tags, **scope.seen}
        found = Resolution({name: given.get(name, Tag(name)) for name in listed.names}, believed)
        found.images.update(believed.images)
        before = next((name for name in found.tags if name in given), None)
        wanted = [name for name in found.tags if scope.has(name) and name not in given]
        found.add(self._resolver.resolve(repository, wanted, cost, before))
        found.fingerprint = fingerprint(found, listed.bad_names, scope)
        if found.missing and (scope.confirm_missing or found.fingerprint != known):
            unconfirmed, found.missing = found.missing, []
            resolved = (name for name in wanted if found.tags[name].digest)
            before = next(resolved, before)
            found.add(self._resolver.confirm(repository, unconfirmed, cost, before))
            found.fingerprint = fingerprint(found, listed.bad_names, scope)
        return found


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
