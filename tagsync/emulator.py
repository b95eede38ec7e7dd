"""An SWR of our own on loopback: repositories, tags, paging, errors and credentials as documented.

For the demonstration, for tagsync's tests, and for the tests of those who build on it::

    with Emulator() as swr:
        swr.push("team/api", "v1", "first build")
        ...  # point a registry's endpoint at swr.url

What it answers, all on one address:

===========================================================  =======================================
``GET /v2/manage/namespaces/{namespace}/repos/{name}/tags``  the tags of a repository
``GET /v2/manage/namespaces``                                the organizations
``GET /v2/manage/repos``                                     the repositories
``GET /v2/manage/shared-repositories``                       what other accounts share
``POST /v3/auth/tokens``                                     signing in, with `Emulator`'s ``users``
``PUT /meta-data/latest/api/token``                          an ECS host's metadata service,
``GET /openstack/latest/securitykey``                        with `Emulator`'s ``agency``
===========================================================  =======================================

The tag list is the vendor's "Querying the List of Image Repository Tags", the other lists are the
calls next to it in the same reference. Where real servers are known to differ from it, the
constructor's arguments make this one differ in the same way.
"""

import json
import re
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import parse_qsl, quote, unquote

from tagsync.models import Clock, Image, utc_now

REFERENCE_REPOSITORY: Final = "namespace/busybox"
"""Where the vendor's own example stands."""

AGENCY_ACCESS_KEY: Final = "EMULATEDAGENCYKEY001"
"""The access key that goes with the keys of an `Emulator`'s ``agency``."""

SKEW_ALLOWED: Final = timedelta(minutes=15)
"""How far the date of a signed request may be from the emulator's clock."""

_HOST: Final = "127.0.0.1"
_MAX_BODY: Final = 1 << 20
_MAX_METADATA_TTL: Final = 21600
"""Seconds: the longest life that the metadata service gives to a token."""

_MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_INDEX_TYPES: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    }
)

_ALGORITHM: Final = "SDK-HMAC-SHA256"
_DATE: Final = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION: Final = re.compile(
    rf"{_ALGORITHM} Access=([^,\s]+), *SignedHeaders=([^,\s]+), *Signature=([0-9a-f]{{64}})"
)


# --- what users give and get ----------------------------------------------------------------------


class Headers(Mapping[str, str]):
    """The header fields of a request: looked up in any case, listed as they were sent.

    A field that was sent more than once has its values joined by ``", "``.
    """

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, tuple[str, str]] = {}
        for name, value in fields:
            sent_as, before = self._fields.get(name.lower(), (name, None))
            joined = value if before is None else f"{before}, {value}"
            self._fields[name.lower()] = (sent_as, joined)

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (sent_as for sent_as, _ in self._fields.values())

    def __len__(self) -> int:
        return len(self._fields)


class Request(NamedTuple):
    """What the emulator was asked.

    Attributes:
        method: in capitals.
        target: path and query, exactly as they were sent.
        headers: found in any case.
        body: empty where there was none.
    """

    method: str
    target: str
    headers: Headers
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target's path, as it was sent: a ``%24`` is still one."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, decoded; of one that is repeated, the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Keys:
    """What belongs to an access key.

    Attributes:
        secret_key: what requests are signed with.
        security_token: what temporary keys come with; each request has to send and sign it.
        project_id: where given, each request has to send and sign it as ``X-Project-Id``.
    """

    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    project_id: str | None = None


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may sign in.

    Attributes:
        password: of the user.
        domain: the name of the account that the user belongs to.
        project: the name of the project that the token may be for.
    """

    password: str = field(repr=False)
    domain: str
    project: str


class Emulator:
    """A server that runs from ``__enter__`` to ``__exit__``, on loopback and a port of its own.

    Its methods may be called from any thread, before, while and after it serves. Without ``token``,
    ``keys``, ``users`` and ``agency`` everybody is answered; with one of them or several, only who
    shows one of the credentials that they give.

    Attributes:
        requests: what was asked so far, in the order of arrival.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        keys: Mapping[str, Keys] | None = None,
        users: Mapping[str, User] | None = None,
        agency: Keys | None = None,
        metadata_tokens: bool = True,
        token_lifetime: timedelta = timedelta(hours=24),
        max_page: int = 1000,
        default_page: int = 100,
        sends_total: bool = True,
        ignores_paging: bool = False,
        clock: Clock = utc_now,
    ) -> None:
        """Sets up an empty registry.

        Args:
            token: accepted as ``X-Auth-Token``.
            keys: by access key, whose signatures (``SDK-HMAC-SHA256``) are accepted.
            users: by name, who get a token from ``POST /v3/auth/tokens``.
            agency: temporary keys that ``/openstack/latest/securitykey`` gives away together with
                `AGENCY_ACCESS_KEY`, and that are accepted until they expire.
            metadata_tokens: whether the metadata service wants a token of its own; if not, it
                answers 405 to who asks for one, as hosts without it do.
            token_lifetime: of the tokens of ``users`` and of the keys of ``agency``.
            max_page: the most rows that a page has, however many were asked for.
            default_page: rows of a page when no ``limit`` is given.
            sends_total: whether ``Content-Range`` is sent.
            ignores_paging: answer with all rows and no total, as older regions do.
            clock: what dates rows, answers and tokens, and what signatures are held against.

        Raises:
            ValueError: ``agency`` has no security token, which temporary keys always have.
        """
        if agency is not None and agency.security_token is None:
            raise ValueError("the keys of an agency are temporary: give them a security_token")
        self.requests: list[Request] = []
        self._max_page = max_page
        self._default_page = default_page
        self._sends_total = sends_total and not ignores_paging
        self._ignores_paging = ignores_paging
        self._clock = clock
        self._repositories: dict[str, _Repository] = {}
        self._organizations: dict[str, int] = {}
        self._last_id = 0
        self._canned: list[_Canned] = []
        self._lock = Lock()
        self._identity = _Identity(users or {}, token_lifetime, clock)
        self._metadata = _Metadata(agency, token_lifetime, clock, wants_tokens=metadata_tokens)
        guarded = any(given is not None for given in (token, keys, users, agency))
        self._guard = _Guard(token, keys or {}, self._identity, self._metadata) if guarded else None
        self._routes = self._table(signs_in=users is not None, has_agency=agency is not None)
        self._server: _Server | None = None
        self._thread: Thread | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The endpoint, such as ``http://127.0.0.1:40123``; it stays known after ``__exit__``.

        Raises:
            RuntimeError: it does not serve yet.
        """
        if self._url is None:
            raise RuntimeError("the emulator has no address before it serves: enter it with `with`")
        return self._url

    def __enter__(self) -> Self:
        self._server = _Server((_HOST, 0), _handler(self._respond, self._clock))
        self._url = f"http://{_HOST}:{self._server.server_address[1]}"
        # The interval is how long leaving may take.
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server.close_connections()

    def create_repository(self, repository: str, *, shared: bool = False) -> None:
        """Creates an empty repository, and its organization with it; one that exists stays.

        Args:
            repository: ``namespace/name``; the name may contain slashes.
            shared: it is another account's, which shares it with this one: it is found by
                ``/v2/manage/shared-repositories?center=thirdparty`` and not among one's own.

        Raises:
            ValueError: the name has no namespace.
        """
        with self._lock:
            self._created(repository, shared=shared)

    def push(
        self, repository: str, tag: str, content: str | Image | None = None, **fields: Any
    ) -> str:
        """Pushes an image under a tag.

        A tag that exists moves to it and gets a new row. Pushed again, the image that it points to
        already changes nothing but ``updated``.

        Args:
            repository: ``namespace/name``; it is created if need be.
            tag: any text.
            content: what the image is made of, the tag's name if left out: equal text is an equal
                image, with a real manifest of two layers. Or the image itself, right or wrong.
            **fields: fields of the row that should differ from what they would be.

        Returns:
            The image's digest.

        Raises:
            TypeError: a field is not JSON.
            ValueError: the repository's name has no namespace.
        """
        made = tag if content is None else content
        image = _fields_of(made) if isinstance(made, Image) else _image(made)
        with self._lock:
            self._put(repository, tag, image, fields)
        return str(image["digest"])

    def push_reference_example(self) -> str:
        """Puts the example of the vendor's reference into `REFERENCE_REPOSITORY`, to the letter.

        Its row has the fifteen fields and the values of the reference, hence an ``id`` of 0 and no
        ``domain_id``.

        Returns:
            Its digest.
        """
        row = _row(_reference_example())
        with self._lock:
            self._created(REFERENCE_REPOSITORY).rows["latest"] = row
        return str(row.fields["digest"])

    def set_fields(self, repository: str, tag: str, **fields: Any) -> None:
        """Changes fields of a tag's row, and nothing else.

        Raises:
            LookupError: there is no such tag.
            TypeError: a field is not JSON.
        """
        with self._lock:
            rows = self._known(repository, tag).rows
            rows[tag] = _row({**rows[tag].fields, **fields})

    def delete(self, repository: str, tag: str) -> None:
        """Deletes a tag; its repository stays, be it empty.

        Raises:
            LookupError: there is no such tag.
        """
        with self._lock:
            found = self._known(repository, tag)
            del found.rows[tag]
            found.updated = _moment(self._clock())

    def delete_repository(self, repository: str) -> None:
        """Deletes a repository with all its tags; its organization stays.

        Raises:
            LookupError: there is no such repository.
        """
        with self._lock:
            del self._repositories[self._known(repository).full_name]

    def tags(self, repository: str) -> dict[str, str]:
        """The digest of each tag, as the registry has it now.

        Raises:
            LookupError: there is no such repository.
        """
        with self._lock:
            rows = self._known(repository).rows
            return {tag: row.fields["digest"] for tag, row in rows.items()}

    def revoke_tokens(self) -> None:
        """Makes every token that somebody signed in for invalid, as a changed password does."""
        with self._lock:
            self._identity.tokens.revoke()

    def answer_next(
        self,
        status: int,
        body: object = b"",
        headers: Mapping[str, str] | None = None,
        *,
        times: int = 1,
        matching: str = "",
    ) -> None:
        """Answers the next requests with something else, whoever asks and whatever for.

        Args:
            status: of each of these answers.
            body: bytes and text are sent as they are, anything else as JSON.
            headers: to be sent with it, in place of those of the same name. After a
                ``Content-Length`` of one's own the connection is closed, so that one beyond the
                body is an answer that breaks off.
            times: how many requests are answered so.
            matching: only requests whose path and query, as they are sent, contain this.

        Raises:
            TypeError: the body is not JSON.
        """
        if isinstance(body, str):
            body = body.encode()
        answer = _Answer(status, body if isinstance(body, bytes) else _encoded(body), headers or {})
        with self._lock:
            self._canned += [_Canned(answer, matching)] * times

    def _table(self, *, signs_in: bool, has_agency: bool) -> tuple["_Route", ...]:
        """What is answered by whom; the vendor's own hosts for IAM and metadata are among it."""
        manage = "/v2/manage"
        tags = rf"{manage}/namespaces/(?P<namespace>[^/]+)/repos/(?P<name>[^/]+)/tags"
        lists = (
            _Route("GET", re.compile(tags), self._list_tags),
            _Route("GET", re.compile(f"{manage}/namespaces"), self._list_namespaces),
            _Route("GET", re.compile(f"{manage}/repos"), self._list_repositories),
            _Route("GET", re.compile(f"{manage}/shared-repositories"), self._list_shared),
        )
        identity = (_Route("POST", re.compile("/v3/auth/tokens"), self._identity.sign_in, True),)
        token, keys = "/meta-data/latest/api/token", "/openstack/latest/securitykey"
        metadata = (
            _Route("PUT", re.compile(token), self._metadata.give_token, True),
            _Route("GET", re.compile(keys), self._metadata.give_keys, True),
        )
        return lists + (identity if signs_in else ()) + (metadata if has_agency else ())

    def _respond(self, request: Request) -> "_Answer":
        with self._lock:
            self.requests.append(request)
            try:
                return self._canned_for(request.target) or self._routed(request)
            except _Refusal as refusal:
                return refusal.answer

    def _canned_for(self, target: str) -> "_Answer | None":
        for index, canned in enumerate(self._canned):
            if canned.matching in target:
                return self._canned.pop(index).answer
        return None

    def _routed(self, request: Request) -> "_Answer":
        # Decoded before it is matched: a slash within a name is one however it was written.
        path = unquote(request.path)
        for route in self._routes:
            if route.method == request.method and (match := route.path.fullmatch(path)):
                if self._guard and not route.public:
                    self._guard.check(request, self._clock())
                return route.answer(request, **match.groupdict())
        raise _Refusal(_gateway(404, "APIGW.0101", "The API does not exist"))

    def _list_tags(self, request: Request, namespace: str, name: str) -> "_Answer":
        repository = self._repositories.get(f"{namespace}/{name.replace('$', '/')}")
        if repository is None:
            known = namespace in self._organizations or any(
                other.namespace == namespace for other in self._repositories.values()
            )
            code, what = ("4040010", "repository") if known else ("4040058", "organization")
            raise _Refusal(_refusal(404, f"SVCSTG.SWR.{code}", f"the {what} does not exist"))
        wanted = request.query.get("tag")
        rows = [row for tag, row in repository.rows.items() if wanted in {None, tag}]
        page, headers = self._page(rows, request.query, _TAG_COLUMNS)
        return _Answer(200, b"[" + b",".join(row.encoded for row in page) + b"]", headers)

    def _list_namespaces(self, request: Request) -> "_Answer":
        wanted = request.query.get("namespace")
        namespaces = [
            {"id": number, "name": name, "creator_name": "emulator", "auth": 7}
            for name, number in self._organizations.items()
            if wanted in {None, name}
        ]
        return _json({"namespaces": namespaces})

    def _list_repositories(self, request: Request) -> "_Answer":
        wanted = request.query.get("namespace")
        return self._repositories_where(
            request, lambda found: not found.shared and wanted in {None, found.namespace}
        )

    def _list_shared(self, request: Request) -> "_Answer":
        center = request.query.get("center")
        if center not in {"self", "thirdparty"}:
            raise _Refusal(_bad_request("center must be self or thirdparty"))
        # The emulated account shares nothing itself.
        return self._repositories_where(
            request, lambda found: found.shared and center == "thirdparty"
        )

    def _repositories_where(
        self, request: Request, has: Callable[["_Repository"], bool]
    ) -> "_Answer":
        part = request.query.get("name", "")
        found = [each for each in self._repositories.values() if has(each) and part in each.name]
        page, headers = self._page(found, request.query, _REPOSITORY_COLUMNS)
        return _json([each.fields(len(found)) for each in page], headers)

    def _page(
        self, rows: Sequence["_RowT"], query: Mapping[str, str], columns: "_Columns[_RowT]"
    ) -> tuple[Sequence["_RowT"], Mapping[str, str]]:
        """The rows that a query asks for, and the header that says where they stand."""
        ordered = _ordered(rows, query, columns)
        if self._ignores_paging:
            return ordered, {}
        offset, limit = _window(query, self._default_page)
        page = ordered[offset : offset + min(limit, self._max_page)]
        content_range = {"Content-Range": f"{offset}-{len(page)}/{len(rows)}"}
        return page, content_range if self._sends_total else {}

    def _created(self, repository: str, *, shared: bool = False) -> "_Repository":
        if repository in self._repositories:
            return self._repositories[repository]
        namespace, _, name = repository.partition("/")
        if not (namespace and name):
            raise ValueError(f"{repository!r} is no repository: write it as namespace/name")
        if not shared and namespace not in self._organizations:
            self._organizations[namespace] = self._next_id()
        now = _moment(self._clock())
        created = _Repository(self._next_id(), namespace, name, shared, now, now)
        return self._repositories.setdefault(repository, created)

    def _known(self, repository: str, tag: str | None = None) -> "_Repository":
        found = self._repositories.get(repository)
        if found is None:
            raise LookupError(f"the emulator has no repository {repository!r}")
        if tag is not None and tag not in found.rows:
            raise LookupError(f"the emulator has no tag {tag!r} in {repository!r}")
        return found

    def _put(
        self, repository: str, tag: str, image: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> None:
        found = self._created(repository)
        now = _moment(self._clock())
        before = found.rows[tag].fields if tag in found.rows else {}
        if before.get("digest") == image["digest"]:
            row = _row({**before, "updated": now, **fields})
        else:
            created = {"created": before.get("created", now), "updated": now}
            place = {"id": self._next_id(), "repo_id": found.id, "Tag": tag}
            row = _row({**place, **image, **found.addresses(tag), **_UNMARKED, **created, **fields})
        found.rows[tag] = row
        found.updated = now

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id


# --- what is in the registry ----------------------------------------------------------------------


class _Row(NamedTuple):
    """A row of the tag list; encoded when it is made, so that who makes it learns what is wrong."""

    fields: Mapping[str, Any]
    encoded: bytes

    @property
    def number(self) -> int:
        given = self.fields["id"]
        return given if isinstance(given, int) else 0


def _row(fields: Mapping[str, Any]) -> _Row:
    return _Row(fields, _encoded(fields))


@dataclass(slots=True)
class _Repository:
    id: int
    namespace: str
    name: str
    shared: bool
    created: str
    updated: str
    rows: dict[str, _Row] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.id

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    def addresses(self, tag: str = "") -> dict[str, str]:
        """What ``docker pull`` takes, from outside and from inside the cluster."""
        what = f"{self.full_name}:{tag}" if tag else self.full_name
        return {
            "path": f"swr.example.com/{what}",
            "internal_path": f"10.0.0.1:20202/{what}",
        }

    def fields(self, total: int) -> dict[str, Any]:
        """Its row among the repositories, of which there are so many."""
        sizes = (row.fields.get("size") for row in self.rows.values())
        return {
            "id": self.id,
            "name": self.name,
            "namespace": self.namespace,
            "is_public": False,
            "num_images": len(self.rows),
            "size": sum(size for size in sizes if isinstance(size, int)),
            "created_at": self.created,
            "updated_at": self.updated,
            **self.addresses(),
            "tags": list(self.rows),
            "total_range": total,
        }


_UNMARKED: Final[Mapping[str, Any]] = {
    "is_trusted": False,
    "deleted": None,
    "domain_id": "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    "scanned": False,
}


def _image(content: str) -> dict[str, Any]:
    """The fields of a row that follow from the image: a real manifest of two layers."""
    text = content.encode(errors="surrogatepass")
    config = {"mediaType": _CONFIG_TYPE, "size": 1862, "digest": _digest(b"config " + text)}
    layers = [
        {"mediaType": _LAYER_TYPE, "size": 1292800, "digest": _digest(b"base layer")},
        {"mediaType": _LAYER_TYPE, "size": 10240 + len(text), "digest": _digest(b"layer " + text)},
    ]
    return _fields_of_manifest(config, layers)


def _fields_of_manifest(config: dict[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    parts = {"schemaVersion": 2, "mediaType": _MANIFEST_TYPE, "config": config, "layers": layers}
    manifest = json.dumps(parts, separators=(",", ":"))
    return {
        # Without the algorithm, unlike the digest: so the reference's example has it.
        "image_id": config["digest"].removeprefix("sha256:"),
        "manifest": manifest,
        "digest": _digest(manifest.encode()),
        "schema": 2,
        "size": config["size"] + sum(layer["size"] for layer in layers),
        "tag_type": 0,
    }


def _fields_of(image: Image) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "manifest": image.manifest,
        "digest": image.digest,
        "schema": image.schema,
        "size": image.size,
        "tag_type": 1 if image.media_type in _INDEX_TYPES else 0,
    }


def _reference_example() -> dict[str, Any]:
    config = "741f24a795d6d93d7c6edd11780d63c13e16c39615dd9d223378a57a836f2ee6"
    layers = {
        "8ac8bfaff55af948c796026ee867448c5b5b5d9dd3549f4006d9759b25d4a893": 1292800,
        "77ddbf3a9fe11e81761a0f9df43a28e3e6f29bbb53c0c8cf71cd7efa69729aed": 10240,
    }
    image = _fields_of_manifest(
        {"mediaType": _CONFIG_TYPE, "size": 1862, "digest": f"sha256:{config}"},
        [
            {"mediaType": _LAYER_TYPE, "size": size, "digest": f"sha256:{digest}"}
            for digest, size in layers.items()
        ],
    )
    return {
        "id": 0,
        "repo_id": 0,
        "Tag": "latest",
        **image,
        "path": "192.158.24.86/namespace/busybox:latest",
        "internal_path": "10.125.0.198:20202/namespace/busybox:latest",
        "is_trusted": False,
        "created": "2018-07-06T06:18:55Z",
        "updated": "2018-07-06T06:18:55Z",
        "deleted": None,
        "scanned": False,
    }


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def _moment(moment: datetime) -> str:
    """As the reference's example writes it: UTC, without fractions."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- what a list shows of it ----------------------------------------------------------------------


_RowT = TypeVar("_RowT", _Row, _Repository)
_Columns = Mapping[str, Callable[[_RowT], Any]]

# By the first of them, downwards, is how a list is ordered when nothing else is asked for.
_TAG_COLUMNS: Final[_Columns[_Row]] = {
    "updated_at": lambda row: str(row.fields["updated"] or ""),
    "tag": lambda row: str(row.fields["Tag"]),
}
_REPOSITORY_COLUMNS: Final[_Columns[_Repository]] = {
    "updated_time": lambda repository: repository.updated,
    "name": lambda repository: repository.name,
    "tag_count": lambda repository: len(repository.rows),
}


def _ordered(
    rows: Sequence[_RowT], query: Mapping[str, str], columns: _Columns[_RowT]
) -> list[_RowT]:
    _check_pair(query, "order_column", "order_type")
    column = query.get("order_column", next(iter(columns)))
    order_type = query.get("order_type", "desc")
    if column not in columns:
        raise _Refusal(_bad_request(f"order_column must be one of {', '.join(columns)}"))
    if order_type not in {"asc", "desc"}:
        raise _Refusal(_bad_request("order_type must be asc or desc"))
    value = columns[column]
    return sorted(rows, key=lambda row: (value(row), row.number), reverse=order_type == "desc")


def _window(query: Mapping[str, str], default_page: int) -> tuple[int, int]:
    """The offset and the limit that a query asks for, in rows."""
    _check_pair(query, "offset", "limit")
    given = query.get("offset", "0"), query.get("limit", str(default_page))
    # Few enough digits for the vendor's integers.
    if not all(re.fullmatch("[0-9]{1,9}", number) for number in given):
        raise _Refusal(_bad_request("offset and limit must be numbers"))
    offset, limit = map(int, given)
    if limit == 0 or offset % limit:
        raise _Refusal(_bad_request("offset must be 0 or a multiple of limit"))
    return offset, limit


def _check_pair(query: Mapping[str, str], one: str, other: str) -> None:
    if (one in query) != (other in query):
        raise _Refusal(_bad_request(f"{one} and {other} must be used together"))


# --- who may ask ----------------------------------------------------------------------------------


class _Tokens:
    """Those that were issued, each until it expires."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expiries: dict[str, datetime] = {}

    def issue(self, lifetime: timedelta) -> tuple[str, datetime]:
        token, expires_at = secrets.token_hex(32), self._clock() + lifetime
        self._expiries[token] = expires_at
        return token, expires_at

    def accept(self, token: str) -> bool:
        now = self._clock()
        return any(
            _same(token, issued) and now < expires_at
            for issued, expires_at in self._expiries.items()
        )

    def revoke(self) -> None:
        self._expiries.clear()


class _Identity:
    """The vendor's identity service (IAM): a token for a password."""

    def __init__(self, users: Mapping[str, User], lifetime: timedelta, clock: Clock) -> None:
        self._users = users
        self._lifetime = lifetime
        self.tokens = _Tokens(clock)

    def sign_in(self, request: Request) -> "_Answer":
        user = self._user(request.body)
        if user is None:
            raise _Refusal(_identity_refusal(401, "The username or password is wrong."))
        token, expires_at = self.tokens.issue(self._lifetime)
        project = {"name": user.project, "domain": {"name": user.domain}}
        body = {"methods": ["password"], "expires_at": _expiry(expires_at), "project": project}
        return _json({"token": body}, {"X-Subject-Token": token}, status=201)

    def _user(self, body: bytes) -> User | None:
        """Whose name, password, account and project a sign-in gives; null where one is wrong."""
        match _sign_in_of(body):
            case {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {
                            "name": str(name),
                            "password": str(password),
                            "domain": {"name": str(domain)},
                        }
                    },
                },
                "scope": {"project": {"name": str(project)}},
            }:
                user = self._users.get(name)
            case _:
                raise _Refusal(_identity_refusal(400, "The request body is invalid."))
        if user is None or (domain, project) != (user.domain, user.project):
            return None
        return user if _same(password, user.password) else None


def _sign_in_of(body: bytes) -> object:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content.get("auth") if isinstance(content, dict) else None


class _Metadata:
    """The service at which an ECS host finds the keys of its agency."""

    def __init__(
        self, agency: Keys | None, lifetime: timedelta, clock: Clock, *, wants_tokens: bool
    ) -> None:
        self._agency = agency
        self._wants_tokens = wants_tokens
        self._lifetime = lifetime
        self._clock = clock
        self._tokens = _Tokens(clock)
        self._expires_at: datetime | None = None

    def give_token(self, request: Request) -> "_Answer":
        if not self._wants_tokens:
            return _Answer(405, b"", {"Allow": "GET"})
        ttl = request.headers.get("X-Metadata-Token-Ttl-Seconds", "")
        if not re.fullmatch("[0-9]{1,9}", ttl) or not 1 <= int(ttl) <= _MAX_METADATA_TTL:
            return _Answer(400, b"Bad Request", _TEXT)
        token, _ = self._tokens.issue(timedelta(seconds=int(ttl)))
        return _Answer(200, token.encode(), _TEXT)

    def give_keys(self, request: Request) -> "_Answer":
        given = request.headers.get("X-Metadata-Token", "")
        if self._agency is None or (self._wants_tokens and not self._tokens.accept(given)):
            return _Answer(401, b"Unauthorized", _TEXT)
        if not self.keys():
            self._expires_at = self._clock() + self._lifetime
        credential = {
            "access": AGENCY_ACCESS_KEY,
            "secret": self._agency.secret_key,
            "securitytoken": self._agency.security_token,
            "expires_at": _expiry(self._expires_at or self._clock()),
        }
        return _json({"credential": credential})

    def keys(self) -> dict[str, Keys]:
        """Those that were given away and have not expired."""
        if self._agency is None or self._expires_at is None or self._clock() >= self._expires_at:
            return {}
        return {AGENCY_ACCESS_KEY: self._agency}


class _Guard:
    """Lets those pass who show a credential that somebody has."""

    def __init__(
        self,
        token: str | None,
        keys: Mapping[str, Keys],
        identity: _Identity,
        metadata: _Metadata,
    ) -> None:
        self._token = token
        self._keys = keys
        self._identity = identity
        self._metadata = metadata

    def check(self, request: Request, now: datetime) -> None:
        """Raises `_Refusal` unless a request shows one."""
        if request.headers.get("Authorization", "").startswith(_ALGORITHM):
            fault = signature_fault(request, {**self._keys, **self._metadata.keys()}, now)
        else:
            fault = self._token_fault(request.headers.get("X-Auth-Token"))
        if fault is not None:
            message = f"Incorrect IAM authentication information: {fault}"
            raise _Refusal(_gateway(401, "APIGW.0301", message))

    def _token_fault(self, given: str | None) -> str | None:
        if given is None:
            return "the request has neither a token nor a signature"
        if self._token is not None and _same(given, self._token):
            return None
        return None if self._identity.tokens.accept(given) else "the token is wrong or has expired"


def _same(given: str, right: str) -> bool:
    """Whether a secret is the right one, in a time that does not tell how far it is."""
    return compare_digest(
        given.encode(errors="surrogatepass"), right.encode(errors="surrogatepass")
    )


def _expiry(moment: datetime) -> str:
    """As IAM and the metadata service write it, with six fractional digits."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# --- signatures -----------------------------------------------------------------------------------


def signature_fault(request: Request, keys: Mapping[str, Keys], now: datetime) -> str | None:
    """What is wrong with the signature of a request (``SDK-HMAC-SHA256``).

    Follows the vendor's API signing guide and, where that leaves something open, what its SDKs
    sign. Pure, and no part of the client under test: it takes the request as it was received.

    Args:
        request: with the target as it was sent.
        keys: by access key.
        now: what the request's date is held against, aware of its time zone.

    Returns:
        A sentence without a secret in it; null where the signature is right.
    """
    match = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    if match is None:
        return "the Authorization header is malformed"
    access_key, signed, signature = match.groups()
    names = signed.split(";")
    if access_key not in keys:
        return "the access key is unknown"
    key = keys[access_key]
    fault = _header_fault(request, key, names) or _date_fault(request, now)
    if fault is not None:
        return fault
    right = _signature(request, names, key.secret_key)
    return None if _same(signature, right) else "the signature is wrong"


def _header_fault(request: Request, key: Keys, names: Sequence[str]) -> str | None:
    missing = ({"host", "x-sdk-date"} - set(names)) or {
        name for name in names if name not in request.headers
    }
    if missing:
        return f"{', '.join(sorted(missing))} is not signed or not sent"
    wanted = {"X-Security-Token": key.security_token, "X-Project-Id": key.project_id}
    for name, value in wanted.items():
        if value is not None and name.lower() not in names:
            return f"{name} is not signed"
        if value is not None and not _same(request.headers[name], value):
            return f"{name} is wrong"
    return None


def _date_fault(request: Request, now: datetime) -> str | None:
    try:
        date = datetime.strptime(request.headers["X-Sdk-Date"], _DATE).replace(tzinfo=UTC)
    except ValueError:
        return "X-Sdk-Date is malformed"
    if abs(date - now) > SKEW_ALLOWED:
        return "X-Sdk-Date is more than 15 minutes off"
    return None


def _signature(request: Request, names: Sequence[str], secret_key: str) -> str:
    # Header values were decoded as Latin-1, so that this gives their bytes back; the rest is ASCII.
    hashed = sha256(_canonical_request(request, names).encode("latin-1")).hexdigest()
    text = f"{_ALGORITHM}\n{request.headers['X-Sdk-Date']}\n{hashed}"
    return hmac_digest(secret_key.encode(), text.encode("latin-1"), "sha256").hex()


def _canonical_request(request: Request, names: Sequence[str]) -> str:
    path, _, query = request.target.partition("?")
    ordered = sorted(names)
    headers = "".join(f"{name}:{request.headers[name].strip()}\n" for name in ordered)
    return "\n".join(
        (
            request.method,
            _canonical_path(path),
            _canonical_query(query),
            headers,
            ";".join(ordered),
            sha256(request.body).hexdigest(),
        )
    )


def _canonical_path(path: str) -> str:
    """Every part encoded anew, and a slash at the end, which is signed though it is not sent."""
    encoded = "/".join(_encode(part) for part in unquote(path).split("/"))
    return encoded if encoded.endswith("/") else f"{encoded}/"


def _canonical_query(query: str) -> str:
    # A plus is one: a space is signed, and has to be sent, as %20.
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    decoded = sorted((unquote(name), unquote(value)) for name, _, value in pairs)
    return "&".join(f"{_encode(name)}={_encode(value)}" for name, value in decoded)


def _encode(text: str) -> str:
    return quote(text, safe="~")


# --- what is answered -----------------------------------------------------------------------------


class _Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]


class _Canned(NamedTuple):
    answer: _Answer
    matching: str


class _Route(NamedTuple):
    method: str
    path: re.Pattern[str]
    answer: Callable[..., _Answer]
    public: bool = False


class _Refusal(Exception):
    def __init__(self, answer: _Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


_TEXT: Final[Mapping[str, str]] = {"Content-Type": "text/plain"}


def _encoded(content: object) -> bytes:
    return json.dumps(content).encode()


def _json(content: object, headers: Mapping[str, str] | None = None, status: int = 200) -> _Answer:
    return _Answer(status, _encoded(content), headers or {})


def _refusal(status: int, code: str, message: str) -> _Answer:
    error = {"errorCode": code, "errorMessage": message, "detail": HTTPStatus(status).phrase}
    return _json({"errors": [error]}, status=status)


def _bad_request(message: str) -> _Answer:
    return _refusal(400, "SVCSTG.SWR.4001072", message)


def _gateway(status: int, code: str, message: str) -> _Answer:
    """The gateway stands before the registry, and has a form of its own for what it refuses."""
    request_id = sha256(f"{status} {code}".encode()).hexdigest()[:32]
    body = {"error_msg": message, "error_code": code, "request_id": request_id}
    return _json(body, status=status)


def _identity_refusal(status: int, message: str) -> _Answer:
    error = {"code": status, "message": message, "title": HTTPStatus(status).phrase}
    return _json({"error": error}, status=status)


# --- HTTP -----------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    # Leaving does not wait for a client that keeps its connection open: it is cut off.
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()
        self._lock = Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Cuts off who is still connected; each connection's own thread then closes it."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own affair; anything else is a fault of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _handler(respond: Callable[[Request], _Answer], clock: Clock) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.read_body()
            if body is None:
                self.close_connection = True
                self.send(_Answer(400, b"", {}))
                return
            # The base class shortens leading slashes in `path`, which were signed as they are.
            target = self.requestline.split()[1]
            self.send(respond(Request(self.command, target, Headers(self.headers.items()), body)))

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  http.server's names

        def read_body(self) -> bytes | None:
            """The request's body; null where its length is not said, too large or not kept."""
            length = self.headers.get("Content-Length", "0")
            if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,9}", length):
                return None
            size = int(length)
            body = self.rfile.read(size) if size <= _MAX_BODY else b""
            return body if len(body) == size else None

        def send(self, answer: _Answer) -> None:
            """Sends head and body at once, lest one wait for the other's acknowledgement."""
            own_length = any(name.lower() == "content-length" for name in answer.headers)
            self.close_connection |= own_length
            bodiless = answer.status in {204, 304} or self.command == "HEAD"
            fields = {
                "Date": self.date_time_string(int(clock().timestamp())),
                "Content-Type": "application/json",
                "Content-Length": str(len(answer.body)),
                **({"Connection": "close"} if self.close_connection else {}),
                **{name.title(): value for name, value in answer.headers.items()},
            }
            phrase = self.responses.get(answer.status, ("",))[0]
            head = [f"HTTP/1.1 {answer.status} {phrase}"]
            head += [f"{name}: {value}" for name, value in fields.items()]
            self.wfile.write(
                "\r\n".join([*head, "", ""]).encode() + (b"" if bodiless else answer.body)
            )

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's own name
            """Says nothing: standard error belongs to the program that is shown or tested."""

    return Handler
