"""The registry itself: repositories, tags, and the lists that show them."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from threading import Lock, Thread
from typing import Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import unquote

from tagsync.clock import Clock, utc_now
from tagsync.emulator.access import Guard, Identity, Metadata, User
from tagsync.emulator.answers import Refusal, as_json, bad_request, encoded, gateway, refusal
from tagsync.emulator.faults import TRUTH, Faults, Lie, Page
from tagsync.emulator.http import Answer, Request, Server, handler
from tagsync.emulator.signatures import Keys
from tagsync.models import Image

REFERENCE_REPOSITORY: Final = "namespace/busybox"
"""Where the vendor's own example stands."""

_HOST: Final = "127.0.0.1"

_MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_INDEX_TYPES: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    }
)

ALGORITHM: Final = "SDK-HMAC-SHA256"


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
        faults: Faults | None = None,
        port: int = 0,
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
            faults: what goes wrong; else nothing does.
            port: where it serves; 0 for any that is free.
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
        self._faults = faults or Faults()
        self._port = port
        self._clock = clock
        self._repositories: dict[str, _Repository] = {}
        self._organizations: dict[str, int] = {}
        self._last_id = 0
        self._canned: list[_Canned] = []
        self._lock = Lock()
        self._identity = Identity(users or {}, token_lifetime, clock)
        self._metadata = Metadata(agency, token_lifetime, clock, wants_tokens=metadata_tokens)
        guarded = any(given is not None for given in (token, keys, users, agency))
        self._guard = Guard(token, keys or {}, self._identity, self._metadata) if guarded else None
        self._routes = self._table(signs_in=users is not None, has_agency=agency is not None)
        self._server: Server | None = None
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
        self._server = Server((_HOST, self._port), handler(self._respond, self._clock))
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
        answer = Answer(status, body if isinstance(body, bytes) else encoded(body), headers or {})
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

    def _respond(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            if canned := self._canned_for(request.target):
                return canned
            route, names = self._route_of(request)
            mishap = self._faults.mishap(signing_in=route.public)
            if mishap.revokes:
                self._identity.tokens.revoke()
            try:
                answer = mishap.refusal or self._routed(route, names, request, mishap.skew)
            except Refusal as refused:
                answer = refused.answer
            answer = mishap.spoiled(answer, self._clock())
        if mishap.delay:
            self._faults.sleep(mishap.delay)
        return answer

    def _canned_for(self, target: str) -> Answer | None:
        for index, canned in enumerate(self._canned):
            if canned.matching in target:
                return self._canned.pop(index).answer
        return None

    def _route_of(self, request: Request) -> tuple["_Route", Mapping[str, str]]:
        # Decoded before it is matched: a slash within a name is one however it was written.
        path = unquote(request.path)
        for route in self._routes:
            if route.method == request.method and (match := route.path.fullmatch(path)):
                return route, match.groupdict()
        return _NOWHERE, {}

    def _routed(
        self, route: "_Route", names: Mapping[str, str], request: Request, skew: timedelta
    ) -> Answer:
        if self._guard and not route.public:
            self._guard.check(request, self._clock() + skew)
        return route.answer(request, **names)

    def _list_tags(self, request: Request, namespace: str, name: str) -> Answer:
        repository = self._repositories.get(f"{namespace}/{name.replace('$', '/')}")
        if repository is None:
            raise Refusal(self._missing(namespace))
        wanted = request.query.get("tag")
        rows = [row for tag, row in repository.rows.items() if wanted in {None, tag}]
        lie = self._lie(repository, request.query)
        if lie.vanished:
            raise Refusal(self._missing(namespace))
        rows = [row for row in rows if row.fields["Tag"] not in lie.hidden]
        page, headers = self._page(rows, request.query, _TAG_COLUMNS, lie)
        return Answer(200, b"[" + b",".join(row.encoded for row in page) + b"]", headers)

    def _missing(self, namespace: str) -> Answer:
        known = namespace in self._organizations or any(
            other.namespace == namespace for other in self._repositories.values()
        )
        code, what = ("4040010", "repository") if known else ("4040058", "organization")
        return refusal(404, f"SVCSTG.SWR.{code}", f"the {what} does not exist")

    def _lie(self, repository: "_Repository", query: Mapping[str, str]) -> Lie:
        offset, size = 0, None
        if not self._ignores_paging:
            offset, limit = _window(query, self._default_page)
            size = min(limit, self._max_page)
        page = Page(
            repository.full_name,
            repository.rows.keys(),
            offset,
            size,
            sends_total=self._sends_total,
        )
        return self._faults.lie(page)

    def _list_namespaces(self, request: Request) -> Answer:
        wanted = request.query.get("namespace")
        namespaces = [
            {"id": number, "name": name, "creator_name": "emulator", "auth": 7}
            for name, number in self._organizations.items()
            if wanted in {None, name}
        ]
        return as_json({"namespaces": namespaces})

    def _list_repositories(self, request: Request) -> Answer:
        wanted = request.query.get("namespace")
        return self._repositories_where(
            request, lambda found: not found.shared and wanted in {None, found.namespace}
        )

    def _list_shared(self, request: Request) -> Answer:
        center = request.query.get("center")
        if center not in {"self", "thirdparty"}:
            raise Refusal(bad_request("center must be self or thirdparty"))
        # The emulated account shares nothing itself.
        return self._repositories_where(
            request, lambda found: found.shared and center == "thirdparty"
        )

    def _repositories_where(self, request: Request, has: Callable[["_Repository"], bool]) -> Answer:
        part = request.query.get("name", "")
        found = [each for each in self._repositories.values() if has(each) and part in each.name]
        page, headers = self._page(found, request.query, _REPOSITORY_COLUMNS)
        return as_json([each.fields(len(found)) for each in page], headers)

    def _page(
        self,
        rows: Sequence["_RowT"],
        query: Mapping[str, str],
        columns: "_Columns[_RowT]",
        lie: Lie = TRUTH,
    ) -> tuple[Sequence["_RowT"], Mapping[str, str]]:
        """The rows that a query asks for, and the header that says where they stand."""
        ordered = _ordered(rows, query, columns)
        if self._ignores_paging:
            return ordered, {}
        offset, limit = _window(query, self._default_page)
        start = offset + lie.shift
        size = min(limit, self._max_page, limit if lie.cap is None else lie.cap)
        page = ordered[start : start + size]
        content_range = {"Content-Range": f"{offset}-{len(page)}/{len(rows) + lie.more}"}
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
    return _Row(fields, encoded(fields))


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
        raise Refusal(bad_request(f"order_column must be one of {', '.join(columns)}"))
    if order_type not in {"asc", "desc"}:
        raise Refusal(bad_request("order_type must be asc or desc"))
    value = columns[column]
    return sorted(rows, key=lambda row: (value(row), row.number), reverse=order_type == "desc")


def _window(query: Mapping[str, str], default_page: int) -> tuple[int, int]:
    """The offset and the limit that a query asks for, in rows."""
    _check_pair(query, "offset", "limit")
    given = query.get("offset", "0"), query.get("limit", str(default_page))
    # Few enough digits for the vendor's integers.
    if not all(re.fullmatch("[0-9]{1,9}", number) for number in given):
        raise Refusal(bad_request("offset and limit must be numbers"))
    offset, limit = map(int, given)
    if limit == 0 or offset % limit:
        raise Refusal(bad_request("offset must be 0 or a multiple of limit"))
    return offset, limit


def _check_pair(query: Mapping[str, str], one: str, other: str) -> None:
    if (one in query) != (other in query):
        raise Refusal(bad_request(f"{one} and {other} must be used together"))


class _Canned(NamedTuple):
    answer: Answer
    matching: str


class _Route(NamedTuple):
    method: str
    path: re.Pattern[str]
    answer: Callable[..., Answer]
    public: bool = False


def _no_such_path(_request: Request) -> Answer:
    return gateway(404, "APIGW.0101", "The API does not exist")


_NOWHERE: Final = _Route("", re.compile(""), _no_such_path, public=True)
"""Where every other request goes."""
