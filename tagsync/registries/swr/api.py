"""Software Repository for Containers (SWR) of Huawei and Open Telekom Cloud.

The tag list is "Querying the List of Image Repository Tags" of the vendor's API reference:
``GET /v2/manage/namespaces/{namespace}/repos/{repository}/tags``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, get_type_hints
from urllib.parse import quote

import msgspec
import structlog

from tagsync import manifests
from tagsync.clock import Clock, timestamp, utc_now
from tagsync.errors import (
    EndpointNotFound,
    Forbidden,
    InconsistentListing,
    MalformedResponse,
    NamespaceNotFound,
    NotFound,
    RegistryError,
    RepositoryNotFound,
    Throttled,
    Unauthorized,
)
from tagsync.escaping import truncate
from tagsync.models import EVERYTHING, TAG, Image, Listing, Scope, Tag, Unchanged
from tagsync.registries.client import Client
from tagsync.registries.responses import Answer, Refusal, Refusals
from tagsync.registries.swr.paging import Page, PagedRead, decode_list, read_list

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()

_ORDER: Final = {"order_column": "updated_at", "order_type": "desc"}
"""A fixed order, so that equal listings have equal bytes. The newest tag is first: if a tag is
pushed between the requests for two pages, the second page repeats a row of the first, which tagsync
detects. In another order, the second page could skip a row."""

_REPOSITORY_ORDER: Final = {"order_column": "name", "order_type": "asc"}

_NAMESPACES: Final = "/v2/manage/namespaces"
_REPOSITORIES: Final = "/v2/manage/repos"
_SHARED: Final = "/v2/manage/shared-repositories"

_LARGEST_CLOCK_SKEW: Final = timedelta(minutes=14)
"""A larger difference of the clocks is reported as the likely cause of a refused login. SWR refuses
signatures whose date differs by more than 15 minutes from its clock."""

_PATH: Final = re.compile(r"[A-Za-z0-9.-]+(?::\d{1,5})?(?:/[A-Za-z0-9_.$-]+){2,}")
"""The address of a repository, as ``docker pull`` accepts it: host, namespace and name."""

_SHOWN_NAMES: Final = 10
"""Maximum number of names in a log line."""

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]


class _RequiredFields(msgspec.Struct, gc=False):
    """The fields of a row without which its tag is unknown.

    If one of them has another type than documented, the whole list is an error. Instead of a time,
    ``deleted`` may be true or false, which is as clear.
    """

    Tag: _Name
    digest: str | None = None
    deleted: str | bool | None = None


class _Row(_RequiredFields, gc=False):
    """A row of the tag list. Real responses omit some keys, or send JSON's null."""

    id: _Int64 | None = None
    repo_id: _Int64 | None = None
    image_id: str | None = None
    manifest: str | None = None
    schema: _Int64 | None = None
    path: str | None = None
    internal_path: str | None = None
    size: _Int64 | None = None
    is_trusted: bool | None = None
    created: str | None = None
    updated: str | None = None
    scanned: bool | None = None
    tag_type: _Int64 | None = None
    domain_id: str | None = None


class _RowWithBadFields(_Row, gc=False):
    """A row in which some fields have another type than documented. These fields are None.

    Attributes:
        bad_fields: The names of these fields.
    """

    bad_fields: tuple[str, ...] = ()


class _RepositoryRow(msgspec.Struct, gc=False):
    """A row of the list of own repositories, or of the list of shared ones."""

    name: str
    namespace: str


class _Namespace(msgspec.Struct, gc=False):
    name: _Name


class _Namespaces(msgspec.Struct, gc=False):
    namespaces: list[_Namespace] | None


_decode_rows = msgspec.json.Decoder(list[_Row] | None).decode
_decode_required_fields = msgspec.json.Decoder(list[_RequiredFields] | None).decode
_decode_raw_rows = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | None).decode
_FIELD_DECODERS: Final = {
    name: msgspec.json.Decoder(kind).decode
    for name, kind in get_type_hints(_Row, include_extras=True).items()
}
_decode_repositories = msgspec.json.Decoder(list[_RepositoryRow] | None).decode
_decode_namespaces = msgspec.json.Decoder(_Namespaces).decode


class Swr:
    """An SWR endpoint. It implements the protocol `Registry`."""

    def __init__(self, client: Client, max_listing_bytes: int, clock: Clock = utc_now) -> None:
        """Prepare the registry. No request is sent yet.

        Args:
            client: Sends the requests. It must have been created with `REFUSALS`. `close` closes
                it.
            max_listing_bytes: Maximum size of the response bodies of one listing together.
            clock: Returns the time at which a listing starts and finishes.
        """
        self._client = client
        self._max_bytes = max_listing_bytes
        self._clock = clock

    def list_tags(
        self,
        repository: str,
        known: str | None = None,
        scope: Scope = EVERYTHING,  # noqa: ARG002  SWR's list contains digests and manifests
    ) -> Listing | Unchanged:
        """Return all tags of a repository.

        If the list is not consistent, it is read again; see `tagsync.registries.swr.paging`.

        Args:
            repository: ``namespace/name``. The name may contain slashes.
            known: Fingerprint of the last recorded listing.
            scope: Ignored, because SWR's list contains digests and manifests.

        Raises:
            RepositoryNotFound, NamespaceNotFound: If the repository does not exist.
            InconsistentListing: If no read, or no two reads in a row, gave a consistent list.
            RegistryError: If a complete listing cannot be read for any other reason.
        """
        started: list[str] = []

        def new_read() -> PagedRead[_Row]:
            started.append(timestamp(self._clock()))
            return PagedRead(
                self._page_requests(tags_path(repository), _ORDER),
                _decode_tags,
                lambda row: None if _is_deleted(row) else row.Tag,
                self._max_bytes,
                known,
            )

        pages = read_list(new_read, repository)
        # A row that two reads lack was missing since the first of them began.
        return self._listing(pages, repository, started[-2 if pages.confirmed else -1])

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        """Return the repositories that match one of the globs.

        SWR lists the repositories of one organization at a time. A glob that begins with the whole
        name of an organization (``team-a/*``) needs only the list of this organization. For other
        globs, the list of every organization whose name may match is requested.

        Args:
            globs: Patterns over ``namespace/name``. ``*`` also matches slashes.
            shared: Whether to include repositories that other accounts share with this one.

        Raises:
            InconsistentListing, RegistryError: As for `list_tags`.
        """
        found: set[str] = set()
        namespaces = self._namespaces(globs) if globs else ()
        for namespace in namespaces:
            found |= self._repositories(_REPOSITORIES, {"namespace": namespace})
        if shared:
            found |= self._repositories(_SHARED, {"center": "thirdparty"})
        return {name for name in found if any(fnmatchcase(name, glob) for glob in globs)}

    def list_use(self, repository: str, scope: Scope = EVERYTHING) -> None:  # noqa: ARG002  the same for all
        """Return None: SWR's list has the digest of each tag."""
        return

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _namespaces(self, globs: Sequence[str]) -> list[str]:
        """Return the organizations whose repositories may match.

        If every glob begins with the whole name of an organization, no request is sent.
        """
        prefixes = [re.split(r"[*?\[]", glob, maxsplit=1)[0] for glob in globs]
        exact = {prefix.partition("/")[0] for prefix in prefixes if "/" in prefix}
        beginnings = tuple(prefix for prefix in prefixes if "/" not in prefix)
        if not beginnings:
            return sorted(exact)
        answer = self._client.get(_NAMESPACES, {}, self._max_bytes)
        rows = decode_list(_decode_namespaces, answer).namespaces or []
        return sorted(exact | {row.name for row in rows if row.name.startswith(beginnings)})

    def _repositories(self, path: str, query: Mapping[str, str]) -> set[str]:
        fetch = self._page_requests(path, {**query, **_REPOSITORY_ORDER})
        try:
            pages = read_list(
                lambda: PagedRead(fetch, _decode_repositories, _full_name, self._max_bytes), path
            )
        except NamespaceNotFound:
            return set()
        rows = [row for page in pages.pages for row in page.rows]
        ignored = sorted({_full_name(row) for row in rows if not _can_be_path(row)})
        if ignored:
            names = [truncate(name) for name in ignored[:_SHOWN_NAMES]]
            log.warning("discovery.skipped", path=path, names=names, count=len(ignored))
        return {_full_name(row) for row in rows if _can_be_path(row)}

    def _page_requests(
        self, path: str, parameters: Mapping[str, str]
    ) -> Callable[[int, int, int], Answer]:
        """Return a function that requests a page, given offset, limit and maximum size."""

        def fetch(offset: int, limit: int, max_bytes: int) -> Answer:
            query: dict[str, str | int] = {"offset": offset, "limit": limit, **parameters}
            try:
                return self._client.get(path, query, max_bytes)
            except NotFound as error:
                if offset == 0:
                    raise
                raise InconsistentListing(f"a later page is gone ({error})") from error

        return fetch

    def _listing(
        self, pages: PagedRead[_Row], repository: str, started_at: str
    ) -> Listing | Unchanged:
        finished_at = timestamp(self._clock())
        if pages.unchanged:
            return Unchanged(started_at, finished_at, pages.fingerprint, pages.requests, pages.size)
        _check_repository(pages.pages, repository)
        found = _Found()
        for page in pages.pages:
            for row in page.rows:
                if not _is_deleted(row):
                    found.add(row, page.answer.url)
        found.require_a_digest(pages.pages[0].answer.url)
        return Listing(
            found.tags,
            found.images,
            started_at,
            finished_at,
            pages.fingerprint,
            pages=pages.answers,
            requests=pages.requests,
            size=pages.size,
            unverified=tuple(found.unverified),
            wrong_manifests=found.wrong_manifests,
            failed=found.failed,
            bad_names=tuple(found.bad_names),
            bad_fields=found.bad_fields,
            source="swr",
        )


def tags_path(repository: str) -> str:
    """Return the path of a repository's tag list.

    SWR writes a slash in the name of a repository as ``$``.
    """
    namespace, _, name = repository.partition("/")
    return (
        f"/v2/manage/namespaces/{quote(namespace, safe='')}"
        f"/repos/{quote(name.replace('/', '$'), safe='$')}/tags"
    )


def _advice(answer: Answer, error: type[RegistryError]) -> str | None:
    """Return advice if the endpoint is the Docker registry, or if a clock is wrong."""
    if "Docker-Distribution-Api-Version" in answer.headers:
        return ": this is the Docker registry; SWR's API is on a host that begins with swr-api"
    if error is Unauthorized and (skew := _clock_skew(answer)) > _LARGEST_CLOCK_SKEW:
        return f": the clocks of this machine and of the registry differ by {skew}; correct them"
    return None


def _clock_skew(answer: Answer) -> timedelta:
    """Return the difference between the clocks of the server and of this machine.

    It is zero if the answer has no valid date.
    """
    try:
        there = parsedate_to_datetime(answer.headers.get("Date", ""))
        return abs(utc_now().replace(microsecond=0) - there.astimezone(UTC))
    except (ValueError, OverflowError):
        return timedelta()


REFUSALS: Final = Refusals(
    code_keys=("errorCode", "error_code"),
    message_keys=("errorMessage", "error_msg"),
    rows=(
        Refusal(Throttled, code=r"SVCSTG\.SWR\.(4031032|4031042)"),
        Refusal(EndpointNotFound, 404, code=r"(?i)APIG.*", advice=": check the endpoint"),
        Refusal(NamespaceNotFound, 404, code=r"SVCSTG\.SWR\.(4040058|4041061)"),
        Refusal(
            RepositoryNotFound,
            404,
            code="",
            advice=": if the repository exists, check the endpoint",
        ),
        Refusal(RepositoryNotFound, 404),
        Refusal(Unauthorized, 401, advice=": check the credentials"),
        Refusal(Forbidden, 403, advice=": the credentials are valid but do not permit this"),
    ),
    hint=_advice,
)
"""The meaning of the error codes of SWR and of its gateway (``APIGW``, or ``APIG``)."""


def _decode_tags(body: bytes) -> list[_Row] | None:
    """Decode a page of the tag list. A field of another type than documented becomes None.

    Raises:
        msgspec.DecodeError: If the body is not a list of rows, or if one of `_RequiredFields` has
            another type than documented.
    """
    rows: list[_Row] | None
    try:
        rows = _decode_rows(body)
    except msgspec.ValidationError:
        _decode_required_fields(body)
        rows = [_decode_row(fields) for fields in _decode_raw_rows(body) or ()]
    return rows


def _decode_row(fields: dict[str, msgspec.Raw]) -> _Row:
    values: dict[str, Any] = {}
    bad_fields = []
    for name, decode in _FIELD_DECODERS.items():
        if (raw := fields.get(name)) is None:
            continue
        try:
            values[name] = decode(raw)
        except msgspec.ValidationError:
            bad_fields.append(name)
    if not bad_fields:
        return _Row(**values)
    return _RowWithBadFields(**values, bad_fields=tuple(bad_fields))


def _check_repository(pages: Sequence[Page[_Row]], repository: str) -> None:
    """Check that each page lists the tags of this repository, and not those of another one.

    A cache or a proxy may send a page that was stored for another request.

    Raises:
        MalformedResponse: If all addresses on a page belong to another repository, or if two pages
            have different ids of a repository.
    """
    ids: set[int] = set()
    for page in pages:
        names = {name for row in page.rows if (name := _named_repository(row)) is not None}
        if names and not any(f"/{name}".endswith(f"/{repository.lower()}") for name in names):
            raise MalformedResponse(
                f"{page.answer.url} listed the tags of {truncate(min(names))}, another repository"
            )
        new_ids = {row.repo_id for row in page.rows if row.repo_id is not None}
        if ids and new_ids and ids.isdisjoint(new_ids):
            raise MalformedResponse(
                f"{page.answer.url} listed the repository {min(new_ids)} on a later page, but the"
                f" repository {min(ids)} before"
            )
        ids |= new_ids


def _is_deleted(row: _RequiredFields) -> bool:
    """Return whether a row is of a deleted tag. The zero time of Go means that it has no time."""
    return bool(row.deleted) and not str(row.deleted).startswith("0001-01-01")


def _named_repository(row: _Row) -> str | None:
    """Return host, namespace and name from a row's path. None if it has another form."""
    path, colon, tag = (row.path or "").rpartition(":")
    if not colon or tag != row.Tag or not _PATH.fullmatch(path):
        return None
    return path.replace("$", "/").lower()


def _can_be_path(row: _RepositoryRow) -> bool:
    """Return whether a repository's name can be part of a path without changing its meaning.

    Empty names, ``.`` and ``..`` cannot. A namespace cannot contain a slash, and the name of a
    repository cannot contain ``$``, which means a slash in a path.
    """
    dots = {"", ".", ".."} & {row.namespace, row.name}
    return not (dots or "/" in row.namespace or "$" in row.name)


def _full_name(row: _RepositoryRow) -> str:
    return f"{row.namespace}/{row.name}"


class _Found(msgspec.Struct):
    """The tags of the rows that were read so far. Most attributes are those of `Listing`.

    Attributes:
        bad_digest: A text that is not a digest, in the place of one. None if there is none.
    """

    tags: dict[str, Tag] = {}
    images: dict[str, Image] = {}
    unverified: list[str] = []
    wrong_manifests: dict[str, str] = {}
    failed: dict[str, str] = {}
    bad_names: list[str] = []
    bad_fields: dict[str, tuple[str, ...]] = {}
    bad_digest: str | None = None

    def add(self, row: _Row, url: str) -> None:
        """Add the tag of a row that is not deleted.

        A name that cannot be a tag is left out. A tag without a valid digest is not resolved.

        Raises:
            MalformedResponse: If another row has the same tag.
        """
        if not TAG.fullmatch(row.Tag):
            self.bad_names.append(row.Tag)
            return
        if row.Tag in self.tags:
            raise MalformedResponse(f"{url} listed the tag {truncate(row.Tag)!r} twice")
        digest = row.digest if manifests.may_be_digest(row.digest or "") else None
        self.tags[row.Tag] = _tag(row, digest)
        if isinstance(row, _RowWithBadFields):
            self.bad_fields[row.Tag] = row.bad_fields
        if digest is None:
            self.bad_digest = self.bad_digest or row.digest or None
            listed = f"{truncate(row.digest)!r} as its" if row.digest else "no"
            self.failed[row.Tag] = f"the registry lists it with {listed} digest"
            return
        image = self._add_image(row, digest)
        if image.verified is False and image.manifest is not None:
            body = image.manifest.encode()
            self.wrong_manifests[row.Tag] = manifests.actual_digest(body, digest)
        if image.verified is False or _is_contradicted(row, image):
            self.unverified.append(row.Tag)

    def _add_image(self, row: _Row, digest: str) -> Image:
        """Add the image that a row describes, and return it."""
        known = self.images.get(digest)
        # Several tags may list the same digest. If their manifests are equal, check only the first.
        # If they differ, keep the one that matches the digest.
        same_bytes = known is not None and known.manifest == (row.manifest or None)
        if known is not None and same_bytes and (row.image_id or known.image_id) == known.image_id:
            return known
        image = manifests.listed_image(
            digest, row.manifest or None, image_id=row.image_id, schema=row.schema, size=row.size
        )
        if known is None or (image.verified and not known.verified):
            self.images[digest] = image
        return image

    def require_a_digest(self, url: str) -> None:
        """Require one valid digest in a list that has texts as digests.

        Raises:
            MalformedResponse: If none of these texts is a digest.
        """
        if self.bad_digest is not None and not self.images:
            raise MalformedResponse(
                f"{url} sent a list without a valid digest; it has, for instance,"
                f" {truncate(self.bad_digest)!r}"
            )


def _tag(row: _Row, digest: str | None) -> Tag:
    return Tag(
        row.Tag,
        digest,
        row.image_id,
        row.schema,
        row.size,
        row.path,
        row.internal_path,
        row.is_trusted,
        row.tag_type,
        row.scanned,
        row.id,
        row.repo_id,
        row.domain_id,
        row.created,
        row.updated,
    )


def _is_contradicted(row: _Row, image: Image) -> bool:
    """Return whether the row's verified manifest references another configuration than the row."""
    return bool(image.verified and row.image_id and image.image_id != row.image_id)
