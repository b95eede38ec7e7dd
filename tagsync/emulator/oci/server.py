"""The emulated OCI registry as a server: its contents, its tokens and its requests."""

import json
import re
import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from threading import Lock, Thread
from typing import Final, NamedTuple, Self
from urllib.parse import unquote

from tagsync.clock import Clock, utc_now
from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request, Server
from tagsync.emulator.oci.vendor import IndexRow, ListFault, Vendor, fault_answer

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
"""The media type of the emulator's images."""

_HOST: Final = "127.0.0.1"
_SHUTDOWN_POLL_SECONDS: Final = 0.01
_TAGS: Final = re.compile(r"/v2/(.+)/tags/list")
_MANIFEST: Final = re.compile(r"/v2/(.+)/manifests/([^/]+)")
_EVERY: Final = 3
"""A fault of the rows happens to each row whose number is divisible by this one."""


class _Tag(NamedTuple):
    digest: str
    created_at: datetime
    updated_at: datetime


class OciEmulator:
    """An OCI registry on a loopback port that runs from ``__enter__`` to ``__exit__``.

    All methods are thread-safe.

    Attributes:
        requests: All requests that the server has received, in the order of arrival.
    """

    def __init__(
        self,
        vendor: Vendor | None = None,
        *,
        users: Mapping[str, str] | None = None,
        page: int = 1000,
        latency: float = 0.0,
        clock: Clock = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set up an empty registry.

        Args:
            vendor: Adds the vendor's list. None for a registry without one.
            users: The passwords of the users that get a token, by name. None gives a token to
                everybody.
            page: The maximum number of names of a page of ``tags/list``.
            latency: The delay of each answer, in seconds.
            clock: The clock for the times of tags and answers.
            sleep: Waits for a number of seconds.
        """
        self.requests: list[Request] = []
        self._vendor = vendor
        self._users = users
        self._page = page
        self._latency = latency
        self._clock = clock
        self._sleep = sleep
        self._lock = Lock()
        self._tags: dict[str, dict[str, _Tag]] = {}
        self._frozen: dict[str, dict[str, _Tag]] = {}
        self._manifests: dict[str, bytes] = {}
        self._tokens: dict[str, str] = {}  # the scope of each token
        self._faults: frozenset[ListFault] = frozenset()
        self._server: Server | None = None
        self._thread: Thread | None = None

    @property
    def url(self) -> str:
        """The address to use as an endpoint.

        Raises:
            RuntimeError: If the server does not run.
        """
        if self._server is None:
            raise RuntimeError("the emulator has no address until it runs: start it using `with`")
        return f"http://{_HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._server = Server((_HOST, 0), self.respond, self._clock)
        self._thread = Thread(
            target=self._server.serve_forever, args=(_SHUTDOWN_POLL_SECONDS,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server.close_connections()

    @property
    def faults(self) -> frozenset[ListFault]:
        """The faults that are on."""
        return self._faults

    def begin(self, fault: ListFault) -> None:
        """Let the vendor's list have a fault."""
        with self._lock:
            self._faults |= {fault}
            if fault == ListFault.FROZEN:
                self._frozen = {name: dict(tags) for name, tags in self._tags.items()}

    def end(self, fault: ListFault) -> None:
        """Let the vendor's list no longer have a fault."""
        with self._lock:
            self._faults -= {fault}

    def push(self, repository: str, tag: str, content: str) -> str:
        """Push an image that is made from a text under a tag, and return its digest."""
        manifest = _manifest(content)
        digest = f"sha256:{sha256(manifest).hexdigest()}"
        now = self._clock()
        with self._lock:
            tags = self._tags.setdefault(repository, {})
            before = tags.get(tag)
            self._manifests[digest] = manifest
            if before is None or before.digest != digest:
                tags[tag] = _Tag(digest, before.created_at if before else now, now)
        return digest

    def delete(self, repository: str, tag: str) -> None:
        """Delete a tag."""
        with self._lock:
            del self._tags[repository][tag]

    def tags(self, repository: str) -> dict[str, str]:
        """Return the digest of each tag."""
        with self._lock:
            return {tag: state.digest for tag, state in self._tags[repository].items()}

    def heads(self) -> list[str]:
        """Return the tags that were requested by HEAD, in the order of arrival."""
        with self._lock:
            asked = [request for request in self.requests if request.method == "HEAD"]
        return [unquote(request.path.rpartition("/")[2]) for request in asked]

    def clear_requests(self) -> None:
        """Forget all requests."""
        with self._lock:
            self.requests.clear()

    def respond(self, request: Request) -> Answer:
        """Answer a request. The server calls this method for each request."""
        if self._latency:
            self._sleep(self._latency)
        with self._lock:
            self.requests.append(request)
            return self._answer(request)

    # --- used by the vendor's list ----------------------------------------------------------------

    def repositories(self) -> Sequence[str]:
        """Return the names of all repositories, sorted."""
        return sorted(self._tags)

    def index(self, repository: str) -> Sequence[IndexRow] | None:
        """Return the rows of a repository's list, by name, with the faults that are on."""
        source = self._frozen if ListFault.FROZEN in self._faults else self._tags
        if repository not in self._tags:
            return None
        rows = [self._row(tag, state) for tag, state in sorted(source.get(repository, {}).items())]
        if ListFault.EMPTY in self._faults:
            rows = []
        if ListFault.CUT in self._faults:
            rows = rows[: -(-2 * len(rows) // 3)]
        if ListFault.NO_SIGNATURES in self._faults:
            rows = [row for row in rows if not row.tag.startswith("sha256-")]
        return [self._distort(row) if not n % _EVERY else row for n, row in enumerate(rows)]

    def _row(self, tag: str, state: _Tag) -> IndexRow:
        size = len(self._manifests[state.digest])
        times = state.created_at, state.updated_at
        return IndexRow(tag, state.digest, MANIFEST_TYPE, size, *times)

    def _distort(self, row: IndexRow) -> IndexRow:
        if ListFault.NULL_DIGEST in self._faults:
            return row._replace(digest=None)
        if ListFault.BAD_DIGEST in self._faults:
            return row._replace(digest=f"{row.digest}0")
        if ListFault.WRONG_DIGEST in self._faults:
            return row._replace(digest=f"sha256:{sha256(row.tag.encode()).hexdigest()}")
        return row

    # --- requests ---------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Answer:
        path, vendor = unquote(request.path), self._vendor
        if vendor is not None and path == vendor.realm_path:
            return self._issue_token(request)
        if vendor is not None and vendor.needs_token(path):
            challenge = self._challenge(request, path, vendor)
            if challenge is not None:
                return challenge
        answer = None
        if vendor is not None:
            faulty = fault_answer(self._faults) if vendor.list_path(path) else None
            answer = faulty or vendor.respond(request, self)
        answer = answer or self._oci(request, path)
        extra = vendor.headers if vendor is not None and path.startswith("/v2/") else {}
        return answer._replace(headers={**answer.headers, **extra})

    def _oci(self, request: Request, path: str) -> Answer:
        if path == "/v2/":
            return json_answer({})
        if path == "/v2/_catalog":
            return json_answer({"repositories": self.repositories()})
        if match := _TAGS.fullmatch(path):
            return self._names(match[1], request.query)
        if match := _MANIFEST.fullmatch(path):
            return self._manifest(match[1], match[2])
        return _error(404, "NOT_FOUND")

    def _names(self, repository: str, query: Mapping[str, str]) -> Answer:
        if repository not in self._tags:
            return _error(404, "NAME_UNKNOWN")
        last, size = query.get("last", ""), min(int(query.get("n", self._page)), self._page)
        names = [tag for tag in sorted(self._tags[repository]) if tag > last]
        page, headers = names[:size], {}
        if len(names) > size:
            headers["Link"] = f'</v2/{repository}/tags/list?n={size}&last={page[-1]}>; rel="next"'
        return json_answer({"name": repository, "tags": page}, headers)

    def _manifest(self, repository: str, reference: str) -> Answer:
        state = self._tags.get(repository, {}).get(reference)
        digest = state.digest if state else reference
        if digest not in self._manifests:
            return _error(404, "MANIFEST_UNKNOWN")
        headers = {"Docker-Content-Digest": digest, "Content-Type": MANIFEST_TYPE}
        return Answer(200, self._manifests[digest], headers)

    def _challenge(self, request: Request, path: str, vendor: Vendor) -> Answer | None:
        """Return the refusal of a request without a sufficient login, or None if it has one."""
        if vendor.takes_password:
            if self.admits(request.headers.get("Authorization", "")):
                return None
            headers = {"WWW-Authenticate": 'Basic realm="Authorization Required"'}
            return json_answer({"errors": [{"code": "UNAUTHORIZED"}]}, headers, status=401)
        scope = vendor.scope(path)
        if self._is_authorized(request, scope):
            return None
        host = request.headers.get("Host", "")
        asked = f',scope="{scope}"' if scope else ""
        challenge = f'Bearer realm="{vendor.realm(host)}",service="{vendor.service}"{asked}'
        answer = _error(401, "UNAUTHORIZED")
        return answer._replace(headers={"WWW-Authenticate": challenge, **vendor.headers})

    def _issue_token(self, request: Request) -> Answer:
        if not self.admits(request.headers.get("Authorization", "")):
            return _error(401, "UNAUTHORIZED")
        token, scope = secrets.token_hex(16), request.query.get("scope", "")
        if self._vendor is not None and self._vendor.refuses_scope(scope):
            return _error(400, "INVALID_REQUEST")
        self._tokens[token] = scope
        return json_answer({"token": token, "expires_in": 300})

    def admits(self, authorization: str) -> bool:
        """Return whether a header ``Authorization`` permits to read the registry (Basic)."""
        return self._users is None or self.knows(authorization)

    def knows(self, authorization: str) -> bool:
        """Return whether a header ``Authorization`` has the password of a user (Basic)."""
        users = self._users or {}
        known = {basic(name, password) for name, password in users.items()}
        return authorization in known

    def _is_authorized(self, request: Request, scope: str | None) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        granted = self._tokens.get(token)
        return scheme == "Bearer" and granted is not None and _covers(granted, scope)


def _covers(granted: str, needed: str | None) -> bool:
    """Return whether a token's scope has all actions of another scope, if one is needed."""
    if needed is None:
        return True
    (resource, _, actions), (other, _, more) = granted.rpartition(":"), needed.rpartition(":")
    return resource == other and set(more.split(",")) <= set(actions.split(","))


def basic(user: str, password: str) -> str:
    """Return the header ``Authorization`` for a user and a password."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _error(status: int, code: str) -> Answer:
    body = {"errors": [{"code": code, "message": code.lower(), "detail": {}}]}
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    return json_answer(body, headers, status)


def _manifest(content: str) -> bytes:
    """Return the manifest of an image with one layer."""
    layer = f"sha256:{sha256(content.encode()).hexdigest()}"
    config = f"sha256:{sha256(b'config of ' + content.encode()).hexdigest()}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"digest": config, "size": 11, "mediaType": "application/vnd.oci.image.config"},
        "layers": [{"digest": layer, "size": len(content), "mediaType": "x/layer"}],
    }
    return json.dumps(manifest).encode()
