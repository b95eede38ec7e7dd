"""The emulated registry as a server: start, stop, and route requests."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from threading import Lock, Thread
from typing import Any, Final, NamedTuple, Self
from urllib.parse import unquote

from tagsync.clock import Clock, utc_now
from tagsync.emulator.access import Guard, IdentityService, MetadataService, User
from tagsync.emulator.answers import Refusal, encode_json, gateway_error
from tagsync.emulator.faults import Faults
from tagsync.emulator.http import Answer, Request, Server
from tagsync.emulator.lists import Lists, Paging
from tagsync.emulator.repositories import Repositories, image_fields
from tagsync.emulator.signatures import Keys
from tagsync.models import Image

_HOST: Final = "127.0.0.1"

_SHUTDOWN_POLL_SECONDS: Final = 0.01
"""The maximum time that ``__exit__`` waits until the server accepts no more connections."""


class Emulator:
    """A server on a loopback port that runs from ``__enter__`` to ``__exit__``.

    All methods are thread-safe. They may also be called before and after the server runs. If
    ``token``, ``keys``, ``users`` and ``agency`` are all None, the server accepts every request.
    Otherwise, it accepts only requests that have one of these credentials.

    Attributes:
        requests: All requests that the server has received, in the order of arrival.
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
        keeps_states: int = 0,
        faults: Faults | None = None,
        port: int = 0,
        clock: Clock = utc_now,
    ) -> None:
        """Set up an empty registry.

        Args:
            token: A token that is accepted as ``X-Auth-Token``.
            keys: The keys whose signatures (``SDK-HMAC-SHA256``) are accepted, by access key.
            users: The users that can get a token from ``POST /v3/auth/tokens``, by name.
            agency: The temporary keys that ``/openstack/latest/securitykey`` issues together with
                `AGENCY_ACCESS_KEY`. They are accepted until they expire.
            metadata_tokens: Whether the metadata service requires a token that it has issued. If
                not, it answers 405 to a request for such a token, as hosts without this feature do.
            token_lifetime: The lifetime of the tokens of ``users`` and of the keys of ``agency``.
            max_page: The maximum number of rows of a page, even if ``limit`` is higher.
            default_page: The number of rows of a page if the request has no ``limit``.
            sends_total: Whether an answer with a page of a list has the header ``Content-Range``.
            ignores_paging: Whether every answer has all rows and no total, as in older regions.
            keeps_states: The number of earlier states of each repository that the fault ``stale``
                may send.
            faults: The faults of the server. None means no faults.
            port: The port to listen on. 0 means any free port.
            clock: The clock for the times of rows, answers and tokens, and for the check of
                signatures.

        Raises:
            ValueError: If ``agency`` has no security token. Temporary keys always have one.
        """
        if agency is not None and agency.security_token is None:
            raise ValueError("the keys of an agency are temporary: give them a security_token")
        self.requests: list[Request] = []
        self._faults = faults or Faults()
        self._port = port
        self._clock = clock
        self._lock = Lock()
        self._canned_answers: list[_CannedAnswer] = []
        self._repositories = Repositories(clock, keeps_states)
        self._sends_total = sends_total and not ignores_paging
        paging = Paging(max_page, default_page, self._sends_total, ignores_paging)
        self._lists = Lists(self._repositories, self._faults, paging)
        self._identity = IdentityService(users or {}, token_lifetime, clock)
        self._metadata = MetadataService(
            agency, token_lifetime, clock, requires_token=metadata_tokens
        )
        restricted = any(given is not None for given in (token, keys, users, agency))
        guard = Guard(token, keys or {}, self._identity, self._metadata)
        self._guard = guard if restricted else None
        self._routes = self._build_routes(users=users is not None, agency=agency is not None)
        self._server: Server | None = None
        self._thread: Thread | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The address to use as an endpoint, such as ``http://127.0.0.1:40123``.

        The address does not change when the server stops.

        Raises:
            RuntimeError: If the server has not been started.
        """
        if self._url is None:
            raise RuntimeError("the emulator has no address until it runs: start it using `with`")
        return self._url

    def __enter__(self) -> Self:
        self._server = Server((_HOST, self._port), self.respond, self._clock)
        self._url = f"http://{_HOST}:{self._server.server_address[1]}"
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

    def create_repository(self, repository: str, *, shared: bool = False) -> None:
        """Create an empty repository and its organization, unless the repository exists.

        Args:
            repository: ``namespace/name``. The name may contain slashes.
            shared: Whether another account owns the repository and shares it with this account.
                It is then listed by ``/v2/manage/shared-repositories?center=thirdparty`` and not
                among the account's own repositories.

        Raises:
            ValueError: If the name has no namespace.
        """
        with self._lock:
            self._repositories.create(repository, shared=shared)

    def push(
        self, repository: str, tag: str, content: str | Image | None = None, **fields: Any
    ) -> str:
        """Push an image under a tag.

        If the tag points to another image, it moves to this image and gets a new row. If it already
        points to this image, only the field ``updated`` of its row changes.

        Args:
            repository: ``namespace/name``. The repository is created if it does not exist.
            tag: Any text.
            content: Text or an image. For text, the emulator makes an image with a real manifest of
                two layers; equal texts give equal images. An image is served without any check.
                None means the tag's name as text.
            **fields: Values that replace values of the row, by field.

        Returns:
            The image's digest.

        Raises:
            TypeError: If a field cannot be encoded as JSON.
            ValueError: If the repository's name has no namespace.
        """
        image = image_fields(tag if content is None else content)
        with self._lock:
            self._repositories.push(repository, tag, image, fields)
        return str(image["digest"])

    def push_reference_example(self) -> str:
        """Add the example of the vendor's reference to `REFERENCE_REPOSITORY`, unchanged.

        The row of the tag has the fields and values of the reference. For this reason, ``id`` is 0
        in this row, and ``domain_id`` is missing.

        Returns:
            The image's digest.
        """
        with self._lock:
            return self._repositories.push_reference_example()

    def set_fields(self, repository: str, tag: str, **fields: Any) -> None:
        """Change some fields of a tag's row and nothing else.

        Raises:
            LookupError: If the repository or the tag does not exist.
            TypeError: If a field cannot be encoded as JSON.
        """
        with self._lock:
            self._repositories.set_fields(repository, tag, fields)

    def delete(self, repository: str, tag: str) -> None:
        """Delete a tag. Its repository stays, even if it is empty.

        Raises:
            LookupError: If the repository or the tag does not exist.
        """
        with self._lock:
            self._repositories.delete_tag(repository, tag)

    def delete_repository(self, repository: str) -> None:
        """Delete a repository with all its tags. Its organization stays.

        Raises:
            LookupError: If the repository does not exist.
        """
        with self._lock:
            self._repositories.delete(repository)

    def tags(self, repository: str) -> dict[str, str]:
        """Return the current digest of each tag of a repository.

        Raises:
            LookupError: If the repository does not exist.
        """
        with self._lock:
            rows = self._repositories.find(repository).rows
            return {tag: row.fields["digest"] for tag, row in rows.items()}

    def revoke_tokens(self) -> None:
        """Invalidate every token of the identity service, as a change of password does."""
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
        """Set the answer to the next requests, whatever credentials they have.

        Args:
            status: The HTTP status of the answer.
            body: The body. Bytes and text are sent unchanged, other values as JSON.
            headers: Headers to add to the answer. They replace the usual headers of the same name.
                If they contain ``Content-Length``, the connection is closed after the answer. A
                length that is larger than the body therefore makes the answer incomplete.
            times: The number of requests that get this answer.
            matching: Only requests whose path and query contain this text get the answer. The path
                and query are compared as they were sent.

        Raises:
            TypeError: If the body cannot be encoded as JSON.
        """
        if isinstance(body, str):
            body = body.encode()
        content = body if isinstance(body, bytes) else encode_json(body)
        canned = _CannedAnswer(Answer(status, content, headers or {}), matching)
        with self._lock:
            self._canned_answers += [canned] * times

    def _build_routes(self, *, users: bool, agency: bool) -> tuple["_Route", ...]:
        """Return the routes. IAM and the metadata service share this server's address."""
        total = self._sends_total
        manage = "/v2/manage"
        tags = rf"{manage}/namespaces/(?P<namespace>[^/]+)/repos/(?P<name>[^/]+)/tags"
        shared = f"{manage}/shared-repositories"
        lists = (
            _Route("GET", re.compile(tags), self._lists.tags, has_total=total),
            _Route("GET", re.compile(f"{manage}/namespaces"), self._lists.namespaces),
            _Route("GET", re.compile(f"{manage}/repos"), self._lists.repositories, has_total=total),
            _Route("GET", re.compile(shared), self._lists.shared_repositories, has_total=total),
        )
        sign_in = re.compile("/v3/auth/tokens")
        identity = (_Route("POST", sign_in, self._identity.sign_in, public=True),)
        token = re.compile("/meta-data/latest/api/token")
        keys = re.compile("/openstack/latest/securitykey")
        metadata = (
            _Route("PUT", token, self._metadata.issue_token, public=True),
            _Route("GET", keys, self._metadata.issue_keys, public=True),
        )
        return lists + (identity if users else ()) + (metadata if agency else ())

    def respond(self, request: Request) -> Answer:
        """Answer a request, also one that a server in front of the registry passes on."""
        with self._lock:
            self.requests.append(request)
            if canned := self._take_canned_answer(request.target):
                return canned
            route, names = self._find_route(request)
            mishap = self._faults.draw_mishap(public=route.public, has_total=route.has_total)
            if mishap.revokes_tokens:
                self._identity.tokens.revoke()
            try:
                answer = mishap.refusal or self._handle(route, names, request, mishap.skew)
            except Refusal as refusal:
                answer = refusal.answer
            answer = mishap.apply(answer, self._clock())
        if mishap.delay:
            self._faults.sleep(mishap.delay)
        return answer

    def _take_canned_answer(self, target: str) -> Answer | None:
        for index, canned in enumerate(self._canned_answers):
            if canned.matching in target:
                return self._canned_answers.pop(index).answer
        return None

    def _find_route(self, request: Request) -> tuple["_Route", Mapping[str, str]]:
        # Decode the path before matching it: the gateway treats %2F in a name like a slash.
        path = unquote(request.path)
        for route in self._routes:
            if route.method == request.method and (match := route.path.fullmatch(path)):
                return route, match.groupdict()
        return _UNKNOWN_PATH, {}

    def _handle(
        self, route: "_Route", names: Mapping[str, str], request: Request, skew: timedelta
    ) -> Answer:
        if self._guard and not route.public:
            self._guard.check(request, self._clock() + skew)
        return route.handler(request, **names)


class _CannedAnswer(NamedTuple):
    """An answer to the next request whose path and query contain ``matching``."""

    answer: Answer
    matching: str


class _Route(NamedTuple):
    """The handler of requests with a method and a path.

    Attributes:
        method: The method in upper case.
        path: The pattern that the whole decoded path has to match.
        handler: The function that answers a request. It receives the groups of the pattern by name.
        public: Whether a request needs no credential.
        has_total: Whether an answer has the total number of rows.
    """

    method: str
    path: re.Pattern[str]
    handler: Callable[..., Answer]
    public: bool = False
    has_total: bool = False


def _answer_unknown_path(_request: Request) -> Answer:
    return gateway_error(404, "APIGW.0101", "The API does not exist")


_UNKNOWN_PATH: Final = _Route("", re.compile(""), _answer_unknown_path, public=True)
"""The route of every request that matches no other route."""
