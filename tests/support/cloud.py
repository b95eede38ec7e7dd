"""An SWR endpoint, an identity service and a metadata service, in memory."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx

from tagsync.registries.credentials import (
    AgencyCredential,
    PasswordCredential,
)
from tagsync.registries.swr.ecs import AgencyAuth
from tagsync.registries.swr.iam import PasswordAuth
from tagsync.secrets import Secret

START = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
API = "https://swr-api.example.com/v2/manage/namespaces"
IAM = "https://iam.example.com"
PASSWORD = "made-up-Passw0rd"
SECRET_KEY = "MadeUpSecretKey0000000000000000000000001"

Handler = Callable[[httpx.Request], httpx.Response]


class SetClock:
    """A clock whose time the test sets."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class AnnouncingClock(SetClock):
    """A clock that counts the threads that have read it, as each does before waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.askers: set[int] = set()
        self.asked = threading.Condition()

    def __call__(self) -> datetime:
        with self.asked:
            self.askers.add(threading.get_ident())
            self.asked.notify_all()
        return super().__call__()

    def wait_for(self, threads: int) -> bool:
        """Wait until this many threads have read the clock; return whether they have."""
        with self.asked:
            return self.asked.wait_for(lambda: len(self.askers) >= threads, timeout=10)


class Body(httpx.SyncByteStream):
    """A streamed body that records how much of it was read, and whether it was closed."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.taken = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.taken += len(piece)
            yield piece

    def close(self) -> None:
        self.closed = True


def snapshot(request: httpx.Request) -> httpx.Request:
    """Return a copy of the request: the same object may be changed and sent again."""
    return httpx.Request(
        request.method,
        request.url,
        headers=request.headers,
        content=request.read(),
        extensions=request.extensions,
    )


class Cloud:
    """An SWR API, IAM and a metadata service, which issue numbered credentials.

    Attributes:
        valid: Numbers of the credentials that the API accepts. None accepts all.
        sign_ins: Number of credentials that were issued.
        requests: All requests, as they were received.
        override: Handlers by path, used before everything else.
    """

    def __init__(self, clock: SetClock, *, lifetime: timedelta = timedelta(hours=24)) -> None:
        self.clock = clock
        self.lifetime = lifetime
        self.valid: set[int] | None = None
        self.sign_ins = 0
        self.requests: list[httpx.Request] = []
        self.override: dict[str, Handler] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(snapshot(request))
        path = request.url.path
        if path in self.override:
            return self.override[path](request)
        known: dict[str, Handler] = {
            "/v3/auth/tokens": self.sign_in,
            "/meta-data/latest/api/token": lambda _: httpx.Response(200, text="metadata-token\n"),
            "/openstack/latest/securitykey": self.keys,
        }
        return known.get(path, self.api)(request)

    def sign_in(self, _: httpx.Request) -> httpx.Response:
        """Answer a sign-in at IAM."""
        self.sign_ins += 1
        body = {"token": {"expires_at": self.expiry(), "methods": ["password"]}}
        headers = {"X-Subject-Token": f"made-up-token-{self.sign_ins}"}
        return httpx.Response(201, json=body, headers=headers)

    def keys(self, _: httpx.Request) -> httpx.Response:
        """Answer a request for temporary keys."""
        self.sign_ins += 1
        return httpx.Response(200, json={"credential": self.credential()})

    def credential(self) -> dict[str, str]:
        """Return the newest temporary keys."""
        return {
            "access": f"ACCESS{self.sign_ins}",
            "secret": f"made-up-secret-{self.sign_ins}",
            "securitytoken": f"made-up-token-{self.sign_ins}",
            "expires_at": self.expiry(),
        }

    def expiry(self) -> str:
        """Return the time when a new credential expires."""
        return (self.clock.now + self.lifetime).isoformat(timespec="microseconds")

    def api(self, request: httpx.Request) -> httpx.Response:
        """Answer a request to the API."""
        number = self.number(request)
        accepted = self.valid is None or number in self.valid
        return httpx.Response(200 if accepted else 401, json={})

    @staticmethod
    def number(request: httpx.Request) -> int:
        """Return the number of the credential on a request."""
        headers = request.headers
        token = headers.get("X-Auth-Token") or headers["X-Security-Token"]
        return int(token.removeprefix("made-up-token-"))

    def used(self) -> list[int]:
        """Return the number of the credential of each request to the API."""
        return [self.number(r) for r in self.requests if r.url.host == "swr-api.example.com"]

    def paths(self) -> list[str]:
        """Return method and path of each request."""
        return [f"{request.method} {request.url.path}" for request in self.requests]


def send(auth: httpx.Auth, handler: Handler, request: httpx.Request | None = None) -> int:
    """Send a request to a handler; return the status of the response."""
    with httpx.Client(transport=httpx.MockTransport(handler)) as client:
        request = request or client.build_request("GET", API)
        response = client.send(request, auth=auth, stream=True)
        response.close()
        return response.status_code


def sent(auth: httpx.Auth, request: httpx.Request) -> httpx.Request:
    """Return a request as it reaches the transport."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(snapshot(request))
        return httpx.Response(200)

    send(auth, handler, request)
    return seen[0]


def by_password(clock: SetClock) -> PasswordAuth:
    """Return the authentication with a user's password."""
    return PasswordAuth(PasswordCredential(IAM, "robot", Secret(PASSWORD), "acme", "eu-de"), clock)


def by_agency(clock: SetClock) -> AgencyAuth:
    """Return the authentication with the keys of a host's agency."""
    return AgencyAuth(AgencyCredential(), clock)


def shows(value: object, *secrets: str) -> bool:
    """Return whether a value, its attributes or its causes show one of the secrets."""
    texts = [repr(value), str(value), repr(getattr(value, "__dict__", ""))]
    if isinstance(value, BaseException):
        causes = [value.__cause__, None if value.__suppress_context__ else value.__context__]
        if any(shows(cause, *secrets) for cause in causes if cause is not None):
            return True
    return any(secret in text for secret in secrets for text in texts)
