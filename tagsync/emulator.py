"""An SWR of our own on loopback, with repositories, tags, paging and errors as documented.

For the demonstration, for tagsync's tests, and for the tests of those who build on it::

    with Emulator() as swr:
        swr.push("team/api", "v1", "first build")
        ...  # point a registry's endpoint at swr.url

The interface is the vendor's "Querying the List of Image Repository Tags"; where real servers are
known to differ from it, the constructor's arguments make this one differ in the same way.
"""

import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Final, NamedTuple, Self
from urllib.parse import SplitResult, parse_qs, parse_qsl, quote, unquote, urlsplit

from tagsync.models import Clock, utc_now

_MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_HOST: Final = "127.0.0.1"

_METADATA_TOKEN: Final = "made-up-metadata-token"  # noqa: S105  the emulator's own

REFERENCE_REPOSITORY: Final = "namespace/busybox"
"""Where the vendor's own example stands."""


class Keys(NamedTuple):
    """The secret half of an access key, and for a temporary key its security token."""

    secret_key: str
    security_token: str | None = None
    access_key: str = ""


class User(NamedTuple):
    """Who may sign in to the identity service (IAM)."""

    password: str
    domain: str
    project: str


class Request(NamedTuple):
    """What the emulator was asked."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """What the emulator says."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class _Refusal(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


class _Canned(NamedTuple):
    answer: Answer
    matching: str


class Emulator:
    """A server that runs from ``__enter__`` to ``__exit__``, on loopback and a port of its own.

    Its methods may be called from any thread, also while it serves.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        keys: Mapping[str, Keys] | None = None,
        users: Mapping[str, User] | None = None,
        agency: Keys | None = None,
        metadata_tokens: bool = True,
        max_page: int = 1000,
        default_page: int = 100,
        sends_total: bool = True,
        ignores_paging: bool = False,
        clock: Clock = utc_now,
    ) -> None:
        """Sets up an empty registry.

        Args:
            token: what ``X-Auth-Token`` may be. Without any credential everybody is answered.
            keys: by access key: whose signatures are accepted.
            users: by name: who may sign in at ``/v3/auth/tokens``, for a token of 24 hours.
            agency: the temporary keys that the metadata service hands out; they are accepted too.
            metadata_tokens: whether that service wants a token of its own first.
            max_page: the most rows that a page has, however many were asked for.
            default_page: rows of a page when no ``limit`` is given.
            sends_total: whether ``Content-Range`` is sent.
            ignores_paging: answer with all rows and no total, as older regions do.
            clock: what ``created`` and ``updated`` are taken from.
        """
        self.requests: list[Request] = []
        self._tokens = {token: datetime.max.replace(tzinfo=UTC)} if token is not None else {}
        self._keys = dict(keys or {}) | ({agency.access_key: agency} if agency else {})
        self._users = dict(users or {})
        self._agency = agency
        self._metadata_tokens = metadata_tokens
        self._shared: set[str] = set()
        self._max_page = max_page
        self._default_page = default_page
        self._sends_total = sends_total and not ignores_paging
        self._ignores_paging = ignores_paging
        self._clock = clock
        self._repositories: dict[str, dict[str, dict[str, Any]]] = {}
        self._last_id = 0
        self._canned: list[_Canned] = []
        self._lock = Lock()
        self._server = _Server((_HOST, 0), _handler(self))
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """The endpoint, such as ``http://127.0.0.1:40123``."""
        return f"http://{_HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def create_repository(self, repository: str, *, shared: bool = False) -> None:
        """Creates an empty repository, ``namespace/name``, and its organization with it.

        Args:
            repository: its name.
            shared: whether it belongs to another account, which shares it with this one.
        """
        with self._lock:
            self._repositories.setdefault(repository, {})
            if shared:
                self._shared.add(repository)

    def revoke_tokens(self) -> None:
        """Makes every token invalid, as a change of the password or of permissions does."""
        with self._lock:
            self._tokens = dict.fromkeys(self._tokens, datetime.min.replace(tzinfo=UTC))

    def push(self, repository: str, tag: str, content: str, **fields: Any) -> str:
        """Pushes an image under a tag; a tag that exists moves to it.

        Args:
            repository: ``namespace/name``; it is created if need be.
            tag: any text.
            content: what the image is made of: equal content is an equal image.
            **fields: documented fields of the row that should differ from what they would be.

        Returns:
            The image's digest.
        """
        image = _image(content)
        self._put(repository, tag, {**image, **fields})
        return str(image["digest"])

    def push_reference_example(self) -> str:
        """Puts the example of the vendor's reference, to the letter, and returns its digest."""
        self._put(REFERENCE_REPOSITORY, "latest", _reference_example())
        return str(_reference_example()["digest"])

    def set_fields(self, repository: str, tag: str, **fields: Any) -> None:
        """Changes documented fields of a tag's row, and nothing else."""
        with self._lock:
            self._repositories[repository][tag].update(fields)

    def delete(self, repository: str, tag: str) -> None:
        """Deletes a tag."""
        with self._lock:
            del self._repositories[repository][tag]

    def delete_repository(self, repository: str) -> None:
        """Deletes a repository with all its tags."""
        with self._lock:
            del self._repositories[repository]

    def tags(self, repository: str) -> dict[str, str]:
        """The digest of each tag, as the registry has it now."""
        with self._lock:
            return {tag: row["digest"] for tag, row in self._repositories[repository].items()}

    def answer_next(
        self,
        status: int,
        body: object = b"",
        headers: Mapping[str, str] | None = None,
        *,
        times: int = 1,
        matching: str = "",
    ) -> None:
        """Answers the next requests with something else.

        Args:
            status: of each of these answers.
            body: bytes and text are sent as they are, anything else as JSON.
            headers: to be sent with it.
            times: how many requests are answered so.
            matching: only requests whose path and query contain this.
        """
        raw = body if isinstance(body, bytes) else str(body).encode()
        if not isinstance(body, bytes | str):
            raw = json.dumps(body).encode()
        with self._lock:
            self._canned += [_Canned(Answer(status, raw, headers or {}), matching)] * times

    def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Answer:
        """What the server says to a request; ``target`` is its path and query as they were sent."""
        headers = {name.lower(): value for name, value in headers.items()}
        parts = urlsplit(target)
        query = {
            name: values[-1]
            for name, values in parse_qs(parts.query, keep_blank_values=True).items()
        }
        with self._lock:
            self.requests.append(Request(method, parts.path, query, headers))
            for index, canned in enumerate(self._canned):
                if canned.matching in target:
                    return self._canned.pop(index).answer
            try:
                if answer := self._sign_in(method, parts.path, headers, body):
                    return answer
                self._authorize(method, parts, headers, body)
                return self._route(parts.path, query)
            except _Refusal as refusal:
                return refusal.answer

    def _put(self, repository: str, tag: str, row: dict[str, Any]) -> None:
        with self._lock:
            rows = self._repositories.setdefault(repository, {})
            self._last_id += 1
            now = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            generated = {
                "id": self._last_id,
                "repo_id": 1 + list(self._repositories).index(repository),
                "Tag": tag,
                "path": f"swr.example.com/{repository}:{tag}",
                "internal_path": f"10.0.0.1:20202/{repository}:{tag}",
                "is_trusted": False,
                "created": rows[tag]["created"] if tag in rows else now,
                "updated": now,
                "deleted": None,
                "domain_id": "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
                "scanned": False,
                "tag_type": 0,
            }
            # Newest first is how the list is ordered, also among pushes within one second.
            rows.pop(tag, None)
            rows[tag] = generated | row

    def _sign_in(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer | None:
        """The services that hand out credentials, and ask for none or for their own."""
        match method, path:
            case "POST", "/v3/auth/tokens":
                return self._issue_token(body)
            case "PUT", "/meta-data/latest/api/token" if self._agency and self._metadata_tokens:
                if not headers.get("x-metadata-token-ttl-seconds", "").isdigit():
                    return _json({"error": "a time to live is missing"}, status=400)
                return Answer(200, _METADATA_TOKEN.encode(), {"Content-Type": "text/plain"})
            case "PUT", "/meta-data/latest/api/token":
                return _json({"error": "not allowed"}, status=405)
            case "GET", "/openstack/latest/securitykey":
                return self._security_key(headers)
        return None

    def _issue_token(self, body: bytes) -> Answer:
        try:
            auth = json.loads(body)["auth"]
            given = auth["identity"]["password"]["user"]
            scope = auth["scope"]["project"]["name"]
            user = self._users[given["name"]]
            granted = compare_digest(given["password"].encode(), user.password.encode())
            granted = granted and (given["domain"]["name"], scope) == (user.domain, user.project)
        except (ValueError, KeyError, TypeError):
            granted = False
        if not granted:
            error = {
                "code": 401,
                "message": "The username or password is wrong.",
                "title": "Unauthorized",
            }
            return _json({"error": error}, status=401)
        token = f"issued-token-{len(self._tokens)}-{sha256(body).hexdigest()}"
        expires = self._clock().astimezone(UTC) + timedelta(hours=24)
        self._tokens[token] = expires
        expires_at = expires.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        answer = _json({"token": {"expires_at": expires_at}}, {"X-Subject-Token": token})
        return answer._replace(status=201)

    def _security_key(self, headers: Mapping[str, str]) -> Answer:
        if self._agency is None:
            return _json({"error": "no agency"}, status=404)
        if self._metadata_tokens and headers.get("x-metadata-token") != _METADATA_TOKEN:
            return _json({"error": "a token is missing"}, status=401)
        expires = self._clock().astimezone(UTC) + timedelta(hours=24)
        credential = {
            "access": self._agency.access_key,
            "secret": self._agency.secret_key,
            "securitytoken": self._agency.security_token,
            "expires_at": expires.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return _json({"credential": credential})

    def _authorize(
        self, method: str, target: SplitResult, headers: Mapping[str, str], body: bytes
    ) -> None:
        if not (self._tokens or self._keys or self._users):
            return
        now = self._clock()
        if "authorization" in headers:
            fault = _signature_fault(method, target, headers, body, self._keys, now)
        else:
            given = headers.get("x-auth-token", "").encode()
            good = any(
                compare_digest(given, token.encode()) and now < expires
                for token, expires in self._tokens.items()
            )
            fault = None if good else "Incorrect IAM authentication information"
        if fault:
            raise _Refusal(_gateway(401, "APIGW.0301", fault))

    def _route(self, path: str, query: Mapping[str, str]) -> Answer:
        if path == "/v2/manage/namespaces":
            return self._list_namespaces()
        if path == "/v2/manage/repos":
            return self._list_repositories(query)
        if path == "/v2/manage/shared-repositories":
            return self._list_shared(query)
        match = re.fullmatch(r"/v2/manage/namespaces/([^/]+)/repos/([^/]+)/tags", path)
        if not match:
            raise _Refusal(_gateway(404, "APIGW.0101", "The API does not exist"))
        namespace, name = unquote(match[1]), unquote(match[2]).replace("$", "/")
        rows = self._repositories.get(f"{namespace}/{name}")
        if rows is None:
            known = any(key.startswith(f"{namespace}/") for key in self._repositories)
            code, what = ("4040010", "repo") if known else ("4040058", "namespace")
            raise _Refusal(_refusal(404, f"SVCSTG.SWR.{code}", f"{what} not exist"))
        wanted = query.get("tag", "")
        newest_first = [row for row in reversed(rows.values()) if wanted in row["Tag"]]
        if self._ignores_paging:
            return _json(newest_first)
        return self._page(newest_first, query)

    def _list_namespaces(self) -> Answer:
        own = (name for name in self._repositories if name not in self._shared)
        names = dict.fromkeys(name.partition("/")[0] for name in own)
        rows = [
            {"id": number, "name": name, "creator_name": "admin", "auth": 7}
            for number, name in enumerate(names, 1)
        ]
        return _json({"namespaces": rows})

    def _list_repositories(self, query: Mapping[str, str]) -> Answer:
        wanted = query.get("namespace")
        rows = [
            self._repository_row(name)
            for name in sorted(self._repositories)
            if name not in self._shared and wanted in {None, name.partition("/")[0]}
        ]
        return self._page(rows, query)

    def _list_shared(self, query: Mapping[str, str]) -> Answer:
        if query.get("center") not in {"self", "thirdparty"}:
            raise _Refusal(_bad_request("center must be self or thirdparty"))
        shared = sorted(self._shared) if query["center"] == "thirdparty" else []
        return self._page([self._repository_row(name) for name in shared], query)

    def _repository_row(self, repository: str) -> dict[str, Any]:
        namespace, _, name = repository.partition("/")
        rows = self._repositories[repository].values()
        updated = max((row["updated"] for row in rows), default=None)
        return {
            "name": name,
            "namespace": namespace,
            "is_public": False,
            "num_images": len(rows),
            "size": sum(row["size"] for row in rows),
            "created_at": min((row["created"] for row in rows), default=None),
            "updated_at": updated,
            "path": f"swr.example.com/{repository}",
            "internal_path": f"10.0.0.1:20202/{repository}",
            "tags": [row["Tag"] for row in rows],
            "total_range": len(self._repositories),
        }

    def _page(self, rows: list[dict[str, Any]], query: Mapping[str, str]) -> Answer:
        for pair in (("offset", "limit"), ("order_column", "order_type")):
            if len(query.keys() & set(pair)) == 1:
                raise _Refusal(_bad_request(f"{pair[0]} and {pair[1]} go together"))
        try:
            offset, limit = int(query.get("offset", 0)), int(query.get("limit", self._default_page))
        except ValueError:
            raise _Refusal(_bad_request("offset and limit must be integers")) from None
        if limit < 1 or offset < 0 or offset % limit:
            raise _Refusal(_bad_request("offset must be 0 or a multiple of limit"))
        page = rows[offset : offset + min(limit, self._max_page)]
        total = {"Content-Range": f"{offset}-{len(page)}/{len(rows)}"} if self._sends_total else {}
        return _json(page, total)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Closing does not wait for a client that keeps its connection open.
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is its own affair."""


def _handler(emulator: Emulator) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body would else wait for one another's acknowledgement.
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            answer = emulator.respond(self.command, self.path, dict(self.headers.items()), body)
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_POST = do_PUT = do_GET  # noqa: N815  http.server's own names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's own name
            """Says nothing: standard error belongs to the program that is being shown or tested."""

    return Handler


def _signature_fault(  # noqa: PLR0911  one return for each fault that the guide names
    method: str,
    target: SplitResult,
    headers: Mapping[str, str],
    body: bytes,
    keys: Mapping[str, Keys],
    now: datetime,
) -> str | None:
    """What is wrong with a signed request, by the vendor's "API signing guide"; null if nothing."""
    match = re.fullmatch(
        r"SDK-HMAC-SHA256 Access=(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]{64})",
        headers["authorization"],
    )
    if not match or match[1] not in keys:
        return "Incorrect IAM authentication information: verify aksk signature fail"
    key, signed, date = keys[match[1]], match[2].split(";"), headers.get("x-sdk-date", "")
    needed = {"host", "x-sdk-date"} | ({"x-security-token"} if key.security_token else set())
    if not needed <= set(signed):
        return f"these headers have to be signed: {', '.join(sorted(needed))}"
    if headers.get("x-security-token") != key.security_token:
        return "Incorrect IAM authentication information: the security token is wrong"
    try:
        taken = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return "X-Sdk-Date is not of the form YYYYMMDDTHHMMSSZ"
    if abs(now - taken) > timedelta(minutes=15):
        return "The X-Sdk-Date is more than 15 minutes off the server's time"
    canonical = _canonical_request(method, target, {name: headers[name] for name in signed}, body)
    text = f"SDK-HMAC-SHA256\n{date}\n{sha256(canonical.encode()).hexdigest()}"
    expected = hmac.new(key.secret_key.encode(), text.encode(), sha256).hexdigest()
    if not compare_digest(expected, match[3]):
        return "Incorrect IAM authentication information: verify aksk signature fail"
    return None


def _canonical_request(
    method: str, target: SplitResult, signed: Mapping[str, str], body: bytes
) -> str:
    path = "/".join(quote(part, safe="~") for part in unquote(target.path).split("/"))
    query = sorted(
        (quote(name, safe="~"), quote(value, safe="~"))
        for name, value in parse_qsl(target.query, keep_blank_values=True)
    )
    return "\n".join(
        (
            method,
            path if path.endswith("/") else f"{path}/",
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{value.strip()}" for name, value in signed.items()),
            "",
            ";".join(signed),
            sha256(body).hexdigest(),
        )
    )


def _json(content: object, headers: Mapping[str, str] | None = None, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode(), headers or {})


def _refusal(status: int, code: str, message: str) -> Answer:
    error = {"errorCode": code, "errorMessage": message, "detail": HTTPStatus(status).phrase}
    return _json({"errors": [error]}, status=status)


def _bad_request(message: str) -> Answer:
    return _refusal(400, "SVCSTG.SWR.4001072", message)


def _gateway(status: int, code: str, message: str) -> Answer:
    request_id = sha256(f"{status} {code}".encode()).hexdigest()[:32]
    body = {"error_msg": message, "error_code": code, "request_id": request_id}
    return _json(body, status=status)


def _digest(text: str) -> str:
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def _image(content: str) -> dict[str, Any]:
    """The fields of a row that follow from the image: a real manifest of two layers."""
    config = {"mediaType": _CONFIG_TYPE, "size": 1862, "digest": _digest(f"config {content}")}
    layers = [
        {"mediaType": _LAYER_TYPE, "size": 1292800, "digest": _digest("base layer")},
        {"mediaType": _LAYER_TYPE, "size": 10240 + len(content), "digest": _digest(content)},
    ]
    return _fields_of_image({"config": config, "layers": layers})


def _fields_of_image(parts: dict[str, Any]) -> dict[str, Any]:
    config, layers = parts["config"], parts["layers"]
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": _MANIFEST_TYPE, **parts}, separators=(",", ":")
    )
    return {
        "image_id": config["digest"].removeprefix("sha256:"),
        "manifest": manifest,
        "digest": _digest(manifest),
        "schema": 2,
        "size": config["size"] + sum(layer["size"] for layer in layers),
    }


def _reference_example() -> dict[str, Any]:
    config = "741f24a795d6d93d7c6edd11780d63c13e16c39615dd9d223378a57a836f2ee6"
    layers = {
        "8ac8bfaff55af948c796026ee867448c5b5b5d9dd3549f4006d9759b25d4a893": 1292800,
        "77ddbf3a9fe11e81761a0f9df43a28e3e6f29bbb53c0c8cf71cd7efa69729aed": 10240,
    }
    image = _fields_of_image(
        {
            "config": {"mediaType": _CONFIG_TYPE, "size": 1862, "digest": f"sha256:{config}"},
            "layers": [
                {"mediaType": _LAYER_TYPE, "size": size, "digest": f"sha256:{digest}"}
                for digest, size in layers.items()
            ],
        }
    )
    return image | {
        "id": 0,
        "repo_id": 0,
        "path": "192.158.24.86/namespace/busybox:latest",
        "internal_path": "10.125.0.198:20202/namespace/busybox:latest",
        "created": "2018-07-06T06:18:55Z",
        "updated": "2018-07-06T06:18:55Z",
    }
