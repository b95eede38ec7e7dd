"""Huawei Cloud's and Open Telekom Cloud's Software Repository for Containers (SWR).

The tag list is "Querying the List of Image Repository Tags" of the vendor's API reference:
``GET /v2/manage/namespaces/{namespace}/repos/{repository}/tags``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from tagsync import manifests
from tagsync.clock import Clock, timestamp, utc_now
from tagsync.errors import (
    BadRequest,
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
from tagsync.models import EVERYTHING, Image, Listing, Scope, Tag, Unchanged
from tagsync.registries import client as http
from tagsync.registries import responses as answers
from tagsync.registries.swr.paging import _decoded, _Reading
from tagsync.secrets import Secret, redact

_ORDER: Final = {"order_column": "updated_at", "order_type": "desc"}
"""A fixed order, so that equal listings are equal bytes. Newest first, so that a push between two
pages repeats a row, which is noticed, and does not skip one."""

_REPOSITORY_ORDER: Final = {"order_column": "name", "order_type": "asc"}

_NAMESPACES: Final = "/v2/manage/namespaces"

_REPOSITORIES: Final = "/v2/manage/repos"

_SHARED: Final = "/v2/manage/shared-repositories"

_THROTTLED: Final = frozenset({"SVCSTG.SWR.4031032", "SVCSTG.SWR.4031042"})

_NO_NAMESPACE: Final = frozenset({"SVCSTG.SWR.4040058", "SVCSTG.SWR.4041061"})

_SKEW_ALLOWED: Final = timedelta(minutes=14)

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

_Name = Annotated[str, msgspec.Meta(min_length=1)]


class _Row(msgspec.Struct, gc=False):
    """A row of the tag list. Real answers lack many keys and send null for others."""

    Tag: _Name
    id: _Int64 | None = None
    repo_id: _Int64 | None = None
    image_id: str | None = None
    manifest: str | None = None
    digest: str | None = None
    schema: _Int64 | None = None
    path: str | None = None
    internal_path: str | None = None
    size: _Int64 | None = None
    is_trusted: bool | None = None
    created: str | None = None
    updated: str | None = None
    deleted: str | None = None
    scanned: bool | None = None
    tag_type: _Int64 | None = None
    domain_id: str | None = None


class _RepositoryRow(msgspec.Struct, gc=False):
    """A row of the list of repositories, or of the shared ones."""

    name: _Name
    namespace: _Name


class _Namespace(msgspec.Struct, gc=False):
    name: _Name


class _Namespaces(msgspec.Struct, gc=False):
    namespaces: list[_Namespace] | None


_decode_tags = msgspec.json.Decoder(list[_Row] | None).decode

_decode_repositories = msgspec.json.Decoder(list[_RepositoryRow] | None).decode

_decode_namespaces = msgspec.json.Decoder(_Namespaces).decode


class Swr:
    """An SWR endpoint behind the `Registry` protocol."""

    def __init__(self, client: http.Client, max_listing_bytes: int, clock: Clock = utc_now) -> None:
        """Takes over the client, which has to have been made with `refusal_of`."""
        self._client = client
        self._max_bytes = max_listing_bytes
        self._clock = clock

    def list_tags(
        self,
        repository: str,
        known: str | None = None,
        scope: Scope = EVERYTHING,  # noqa: ARG002  SWR's list has digests and manifests in it
    ) -> Listing | Unchanged:
        """Reads all tags of a repository, again if the pages contradict each other.

        Args:
            repository: ``namespace/name``, whose name may contain slashes.
            known: the fingerprint of the last recorded listing.
            scope: of no effect: the list has everything in it.

        Raises:
            RepositoryNotFound, NamespaceNotFound: there is no such repository.
            InconsistentListing: the pages contradicted each other in every read.
            RegistryError: any other reason for which there is no complete listing.
        """
        requests = size = 0

        def read() -> Listing | Unchanged:
            nonlocal requests, size
            started_at = timestamp(self._clock())
            reading = _Reading(
                self._pages_of(tags_path(repository), _ORDER),
                _decode_tags,
                lambda row: None if row.deleted else row.Tag,
                self._max_bytes,
                known,
            )
            try:
                reading.read()
                return self._listing(reading, started_at)
            finally:
                requests += reading.requests
                size += reading.size

        listing = answers.read_consistently(read, repository)
        return msgspec.structs.replace(listing, requests=requests, size=size)

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        """Finds the repositories that match, organization by organization.

        Globs that begin with a whole organization's name ask for that one alone, others for every
        organization whose name fits.

        Args:
            globs: over ``namespace/name``; ``*`` crosses slashes.
            shared: whether to look among what other accounts share with this one, too.

        Raises:
            InconsistentListing, RegistryError: as `list_tags`.
        """
        found: set[str] = set()
        namespaces = self._namespaces(globs) if globs else ()
        for namespace in namespaces:
            found |= self._repositories(_REPOSITORIES, {"namespace": namespace})
        if shared:
            found |= self._repositories(_SHARED, {"center": "thirdparty"})
        return {name for name in found if any(fnmatchcase(name, glob) for glob in globs)}

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _namespaces(self, globs: Sequence[str]) -> list[str]:
        """The organizations in which a glob may match; those spelled out need not be asked for."""
        prefixes = [re.split(r"[*?\[]", glob, maxsplit=1)[0] for glob in globs]
        named = {prefix.partition("/")[0] for prefix in prefixes if "/" in prefix}
        beginnings = tuple(prefix for prefix in prefixes if "/" not in prefix)
        if beginnings:
            answer = self._client.get(_NAMESPACES, {}, self._max_bytes)
            rows = _decoded(_decode_namespaces, answer).namespaces or []
            named |= {row.name for row in rows if row.name.startswith(beginnings)}
        return sorted(named)

    def _repositories(self, path: str, query: Mapping[str, str]) -> set[str]:
        def read() -> set[str]:
            fetch = self._pages_of(path, {**query, **_REPOSITORY_ORDER})
            reading = _Reading(fetch, _decode_repositories, _full_name, self._max_bytes)
            reading.read()
            return {
                _full_name(_placeable(row, page.answer.url))
                for page in reading.pages
                for row in page.rows
            }

        try:
            return answers.read_consistently(read, path)
        except NamespaceNotFound:
            return set()

    def _pages_of(
        self, path: str, parameters: Mapping[str, str]
    ) -> Callable[[int, int, int], http.Answer]:
        def fetch(offset: int, limit: int, max_bytes: int) -> http.Answer:
            query: dict[str, str | int] = {"offset": offset, "limit": limit, **parameters}
            try:
                return self._client.get(path, query, max_bytes)
            except NotFound as error:
                if offset == 0:
                    raise
                raise InconsistentListing(f"a later page is gone ({error})") from error

        return fetch

    def _listing(self, reading: _Reading[_Row], started_at: str) -> Listing | Unchanged:
        finished_at = timestamp(self._clock())
        if reading.unchanged:
            return Unchanged(
                started_at, finished_at, reading.fingerprint, reading.requests, reading.size
            )
        tags: dict[str, Tag] = {}
        images: dict[str, Image] = {}
        unverified = tuple(
            row.Tag
            for page in reading.pages
            for row in page.rows
            if not _add(row, tags, images, page.answer.url)
        )
        return Listing(
            tags,
            images,
            started_at,
            finished_at,
            reading.fingerprint,
            pages=reading.answers,
            requests=reading.requests,
            size=reading.size,
            unverified=unverified,
        )


def tags_path(repository: str) -> str:
    """The path of a repository's tag list; SWR writes a slash in a repository's name as ``$``."""
    namespace, _, name = repository.partition("/")
    return (
        f"/v2/manage/namespaces/{quote(namespace, safe='')}"
        f"/repos/{quote(name.replace('/', '$'), safe='$')}/tags"
    )


def refusal_of(answer: http.Answer, secrets: tuple[Secret, ...] = ()) -> RegistryError:
    """The error of an answer whose status is not 200, in one sentence with status, code and text.

    Args:
        answer: its body may have any of the shapes that SWR and its gateway use, or none.
        secrets: what must not appear in the sentence even if the server echoes it.
    """
    code, text = (redact(value, secrets) for value in _code_and_message(answer.body))
    said = ": ".join(filter(None, (truncate(code), truncate(text)))) or "no readable message"
    kind, advice = _kind_of_refusal(answer, code)
    if "Docker-Distribution-Api-Version" in answer.headers:
        advice = ": this is the Docker registry; SWR's API is on a host that begins with swr-api"
    elif kind is Unauthorized and (skew := _clock_skew(answer)) > _SKEW_ALLOWED:
        advice = f": the clocks here and there are {skew} apart, set the one here right"
    advice = truncate(redact(advice, secrets))
    sentence = redact(f"{answer.url} answered {answer.status} ({said}){advice}", secrets)
    return kind(
        sentence, retry_after=answer.retry_after, status=answer.status, code=truncate(code) or None
    )


def _kind_of_refusal(answer: http.Answer, code: str) -> tuple[type[RegistryError], str]:
    status = answer.status
    if status == 429 or code in _THROTTLED:  # noqa: PLR2004  statuses read best as figures
        return Throttled, ""
    if later := http.kind_of_passing(status):
        return later, ""
    if 300 <= status < 400:  # noqa: PLR2004
        # Whoever redirects may have put a key into the query.
        where = answer.headers.get("Location", "nowhere").partition("?")[0]
        return BadRequest, f"; it points to {where}"
    if status == 404:  # noqa: PLR2004
        if code.startswith("APIGW"):
            return EndpointNotFound, ": check the endpoint"
        kind = NamespaceNotFound if code in _NO_NAMESPACE else RepositoryNotFound
        return kind, "" if code else ": if the repository exists, check the endpoint"
    kinds: dict[int, tuple[type[RegistryError], str]] = {
        401: (Unauthorized, ": check the credentials"),
        403: (Forbidden, ": the credentials are good but do not permit this"),
    }
    return kinds.get(status, (BadRequest, ""))


def _clock_skew(answer: http.Answer) -> timedelta:
    """How far the server's clock and ours are apart; a signature is refused beyond 15 minutes."""
    try:
        there = parsedate_to_datetime(answer.headers.get("Date", ""))
        return abs(utc_now().replace(microsecond=0) - there.astimezone(UTC))
    except (ValueError, OverflowError):
        return timedelta()


def _code_and_message(body: bytes) -> tuple[str, str]:
    """Finds the code and the message, or nothing, in every shape of error body that is known."""
    content = answers.errors_of(body)
    code = content.get("errorCode") or content.get("error_code") or ""
    text = content.get("errorMessage") or content.get("error_msg") or ""
    return str(code), str(text)


def _placeable(row: _RepositoryRow, url: str) -> _RepositoryRow:
    """The row, if its names can stand in a path without meaning another one.

    Raises:
        MalformedResponse: they are dots, which lead upwards, or hold what SWR writes for a slash.
    """
    dots = {".", ".."} & {row.namespace, row.name}
    if dots or "/" in row.namespace or "$" in row.name:
        raise MalformedResponse(
            f"{url} listed the repository {truncate(_full_name(row))!r}, which no path can name"
        )
    return row


def _full_name(row: _RepositoryRow) -> str:
    return f"{row.namespace}/{row.name}"


def _add(row: _Row, tags: dict[str, Tag], images: dict[str, Image], url: str) -> bool:
    """Takes one row into the listing; one that says when it was deleted is a tag that is gone.

    Returns:
        Whether the row's manifest, if it has one, is what it claims to be.
    """
    if row.deleted:
        return True
    if row.Tag in tags:
        raise MalformedResponse(f"{url} listed the tag {truncate(row.Tag)!r} twice")
    digest = row.digest or None
    tags[row.Tag] = Tag(
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
    if not digest:
        return True
    known = images.get(digest)
    # One look at equal bytes is enough; of unequal ones those are kept that are what they claim.
    if known is None or (known.manifest, known.image_id) != (row.manifest or None, row.image_id):
        image = manifests.listed_image(
            digest, row.manifest or None, image_id=row.image_id, schema=row.schema, size=row.size
        )
        if known is None or image.verified:
            images[digest] = image
        known = image
    return known.verified is not False
