"""Credentials that expire: one renewal for all threads.

::

    RegistryAuth
    ├── FixedAuth               never changes
    │   ├── swr.iam.TokenAuth       an IAM token that another program renews
    │   └── swr.signing.SigningAuth an access key, permanent or temporary
    ├── RenewedAuth             fetched, shared by all threads, renewed before it expires
    │   ├── swr.iam.PasswordAuth    an IAM token for a user's password
    │   ├── swr.ecs.AgencyAuth      temporary keys from a host's metadata service
    │   └── oci.tokens.BearerAuth   a token for one repository
    └── oci.auth.ChallengedAuth whatever an OCI registry challenges for

Each is an `httpx.Auth`: a generator that yields requests and receives their responses, without
network access of its own. So the client must not follow redirects, because httpx would repeat
``X-Auth-Token`` to any other host, and must be synchronous, because a thread lock guards renewals.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from datetime import datetime, timedelta
from threading import Lock
from typing import Annotated, Final, NamedTuple, TypeVar

import httpx
import msgspec

from tagsync.clock import Clock
from tagsync.errors import (
    ConfigError,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    TimedOut,
    Unauthorized,
)
from tagsync.registries.pacing import retry_after as parse_retry_after
from tagsync.registries.responses import transient_error
from tagsync.secrets import Secret

RENEW_BEFORE: Final = timedelta(minutes=10)
"""How long before it expires a credential is renewed."""

MIN_LIFETIME: Final = timedelta(minutes=1)
"""The shortest use of a new credential, even if this machine's clock says that it has expired.

If the credential has really expired, the registry answers 401 and it is renewed. Without this, a
clock that is wrong by a day would double the number of requests.
"""

REPEAT_REFUSAL_FOR: Final = timedelta(minutes=5)
"""How long a refusal is repeated without another attempt.

Identity services lock an account after a few wrong passwords in a row, and a pass over a thousand
repositories would try a wrong one a thousand times.
"""

MAX_ANSWER_BYTES: Final = 64 * 2**10
"""The largest response that carries a credential. Tokens have a few KiB."""

ANSWER_TIMEOUT: Final = timedelta(seconds=30)
"""The longest time to read such a response; httpx limits only the time of each read."""

SIGN_IN_TIMEOUT: Final = httpx.Timeout(ANSWER_TIMEOUT.total_seconds())

AuthFlow = Generator[httpx.Request, httpx.Response, None]
"""Yields requests, and receives the response to each."""

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time as RFC 3339 writes it, with a time zone. More than six fractional digits are rounded."""

_T = TypeVar("_T")
ErrorT = TypeVar("ErrorT", bound=RegistryError)


class RegistryAuth(httpx.Auth, ABC):
    """Authentication of requests. Safe to use from many threads at once."""

    @property
    @abstractmethod
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets in use, to be removed from whatever a server repeats."""


class FixedAuth(RegistryAuth):
    """A credential that never changes."""

    requires_request_body = True  # a signature covers it

    @abstractmethod
    def authenticate(self, request: httpx.Request) -> None:
        """Put the credential on a request whose body is read, replacing any older one."""

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        """Send the request with the credential."""
        self.authenticate(request)
        yield request


class _Lease(NamedTuple):
    """A fetched credential, and when to fetch the next one."""

    auth: FixedAuth
    renew_at: datetime


class Failure(NamedTuple):
    """Why and when the last attempt to log in failed."""

    error: RegistryError
    at: datetime


Fetch = Generator[httpx.Request, httpx.Response, tuple[FixedAuth, datetime]]
"""Yields requests; returns a credential and when it expires."""

_LeaseFlow = Generator[httpx.Request, httpx.Response, _Lease]


class RenewedAuth(RegistryAuth):
    """A credential that expires, fetched and renewed once for all threads.

    It is fetched on first use, and renewed before it expires. One thread fetches it and holds a
    lock until it has read the response or httpx closes the generator. The other threads wait, and
    share its success as well as its failure. If the registry answers 401, the credential is
    renewed, unless another thread has renewed it meanwhile, and the request is sent once more; a
    second 401 is returned to the caller.

    A response that carries a credential is read here, up to `MAX_ANSWER_BYTES` and within
    `ANSWER_TIMEOUT`. A 401 that is followed by another attempt is discarded unread. The response
    for the caller is left unread.
    """

    _issuer: str
    """The host that issues the credential, for error messages."""

    _renew_before: timedelta = RENEW_BEFORE

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._lease: _Lease | None = None
        self._replaced: _Lease | None = None
        self._failure: Failure | None = None

    def update_challenge(self, response: httpx.Response) -> None:
        """Update the challenge from a 401 response. Does nothing by default."""

    @abstractmethod
    def fetch(self, request: httpx.Request) -> Fetch:
        """Fetch the credential and the time when it expires, on behalf of a request."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Secrets of the current credential, and of its predecessor, still in use."""
        leases = (lease for lease in (self._lease, self._replaced) if lease is not None)
        return tuple(secret for lease in leases for secret in lease.auth.secrets)

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        """Send the request, and send it again with a new credential after a 401.

        Raises:
            Unauthorized: If the login was refused, now or within `REPEAT_REFUSAL_FOR`.
            Throttled: If the issuer of the credential throttles.
            Busy: If the issuer of the credential is temporarily unavailable.
            MalformedResponse: If the issuer's response is not a credential.
            Unreachable: If the issuer responds too slowly, or another thread could not connect.
        """
        request.read()
        lease = yield from self._current_lease(request)
        lease.auth.authenticate(request)
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        discard_body(response)
        self.update_challenge(response)
        lease = yield from self._current_lease(request, refused=lease)
        lease.auth.authenticate(request)
        yield request

    def _current_lease(self, request: httpx.Request, refused: _Lease | None = None) -> _LeaseFlow:
        """Return the shared credential; renew it if missing, due, or just refused."""
        failure_before = self._failure
        if (lease := self._usable_lease(refused)) is not None:
            return lease
        with self._lock:
            if (lease := self._usable_lease(refused)) is not None:
                return lease
            self._repeat_failure(failure_before)
            return (yield from self._renew(request))

    def _usable_lease(self, refused: _Lease | None) -> _Lease | None:
        lease, now = self._lease, self._clock()
        if lease is None or lease is refused or now >= lease.renew_at:
            return None
        return lease

    def _repeat_failure(self, failure_before: Failure | None) -> None:
        """Raise a failure that happened while this thread waited, or a recent refusal."""
        if (failure := self._failure) is None:
            return
        age = abs(self._clock() - failure.at)
        refused = isinstance(failure.error, Unauthorized) and age < REPEAT_REFUSAL_FOR
        if refused or failure is not failure_before:
            raise without_traceback(failure.error)

    def _renew(self, request: httpx.Request) -> _LeaseFlow:
        # If the connection breaks, httpx closes the generator without raising anything in it.
        failure: RegistryError | None = TimedOut(f"{self._issuer} sent no credentials in time")
        try:
            auth, expires_at = yield from self.fetch(request)
            failure = None
        except RegistryError as error:
            failure = error
            raise
        finally:
            now = self._clock()
            self._failure = None if failure is None else Failure(without_traceback(failure), now)
        # Subtract last: the earliest date, which a server may send, has no earlier one.
        early = self._renew_before
        renew_at = max(expires_at, now + MIN_LIFETIME + early) - early
        self._replaced, self._lease = self._lease, _Lease(auth, renew_at)
        return self._lease


def without_traceback(error: ErrorT) -> ErrorT:
    """Return a copy without traceback: threads that share an error mix theirs."""
    return type(error)(
        str(error), retry_after=error.retry_after, status=error.status, code=error.code
    )


def decode_credentials(response: httpx.Response, kind: type[_T], issuer: str, clock: Clock) -> _T:
    """Return the decoded body of a response with a credential, read within bounds.

    Raises:
        MalformedResponse: If the body has another form. The error does not quote it.
        Unreachable: If the body arrives too slowly.
    """
    body = read_body(response, issuer, clock)
    try:
        return msgspec.json.decode(body, type=kind, dec_hook=_decode_secret)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Raise without a cause: a body that cannot be decoded may be the secret itself.
        raise MalformedResponse(
            f"{issuer} sent credentials in an undocumented form",
            status=response.status_code,
        ) from None


def _decode_secret(kind: type, value: object) -> Secret:
    if kind is Secret and isinstance(value, str) and is_header_value(value):
        return Secret(value)
    raise ValueError("not a credential")


def is_header_value(value: str) -> bool:
    """Return whether an HTTP header can carry a value.

    h11 quotes values that it cannot send in its errors, so they must be refused earlier.
    """
    return value.isascii() and value.isprintable() and value == value.strip() != ""


def check_header_value(key: str, value: str) -> None:
    """Check that an HTTP header can carry a configured value.

    Raises:
        ConfigError: If it cannot. The error does not quote the value.
    """
    if not is_header_value(value):
        raise ConfigError(
            f"{key} is empty, has white space around it, or contains characters that an HTTP header"
            " cannot carry: check the place that it is read from"
        )


def check_secret(key: str, secret: Secret) -> None:
    """Check that a configured secret can be encoded.

    Raises:
        ConfigError: If it cannot, or is empty.
    """
    # Python decodes bytes of the environment that are not UTF-8 as surrogates.
    value = secret.reveal()
    if not value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{key} is empty or not UTF-8 text: check the place that it is read from")


def endpoint_url(key: str, endpoint: str, path: str) -> httpx.URL:
    """Return the URL of a path at a configured endpoint.

    Raises:
        ConfigError: If the endpoint is not a URL.
    """
    try:
        url = httpx.URL(endpoint.rstrip("/") + path)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"https", "http"} or not url.host:
        raise ConfigError(f"{key} is not a URL: write it as https://HOST, without a path")
    return url


def raise_if_transient(response: httpx.Response, issuer: str, clock: Clock) -> None:
    """Raise the error for a response that means that a later sign-in may succeed."""
    status = response.status_code
    error = transient_error(status)
    if error is None:
        return
    throttled = "throttles requests for credentials"
    reason = throttled if error is Throttled else "issues no credentials at the moment"
    retry_after = parse_retry_after(response.headers, clock)
    raise error(f"{issuer} {reason} (status {status})", retry_after=retry_after, status=status)


def raise_unless_success(response: httpx.Response, issuer: str, to_check: str) -> None:
    """Raise an error for a response that is neither success nor refusal."""
    if not response.is_success:
        raise MalformedResponse(
            f"{issuer} answered with status {response.status_code}, which is neither a credential"
            f" nor a refusal, and a redirect is never followed: check {to_check}",
            status=response.status_code,
        )


def sign_in_headers(request: httpx.Request) -> dict[str, str]:
    """Return the headers of a sign-in on behalf of another request."""
    return {
        "User-Agent": request.headers.get("User-Agent", "tagsync"),
        "Accept": "application/json",
    }


def sign_in_extensions(request: httpx.Request) -> dict[str, object]:
    """Return the extensions of a sign-in: the timeout of the other request.

    httpx sets the client's timeout only on the request that it was given. Without a timeout, a
    server that never responds would block every thread.
    """
    return {"timeout": request.extensions.get("timeout", SIGN_IN_TIMEOUT.as_dict())}


class _BoundedStream(httpx.SyncByteStream):
    """A body that raises an error if it is too large or too slow."""

    def __init__(self, stream: httpx.SyncByteStream, issuer: str, clock: Clock) -> None:
        self._stream = stream
        self._issuer = issuer
        self._clock = clock

    def __iter__(self) -> Iterator[bytes]:
        deadline = self._clock() + ANSWER_TIMEOUT
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise ResponseTooLarge(
                    f"{self._issuer} sent more than {MAX_ANSWER_BYTES} bytes of credentials"
                )
            if self._clock() > deadline:
                raise TimedOut(
                    f"{self._issuer} did not finish its answer within"
                    f" {ANSWER_TIMEOUT.total_seconds():g} s"
                )
            yield chunk

    def close(self) -> None:
        self._stream.close()


def read_body(response: httpx.Response, issuer: str, clock: Clock) -> bytes:
    """Return the body of a response that carries a credential, read within bounds.

    Raises:
        ResponseTooLarge, Unreachable: If the body is too large or arrives too slowly.
    """
    # No compression was requested, and a body that is not decompressed cannot grow.
    response.headers.pop("Content-Encoding", None)
    response.stream = _BoundedStream(_sync_stream(response), issuer, clock)
    return response.read()


def discard_body(response: httpx.Response) -> None:
    """Close a response that another request will follow.

    httpx would read it to its end, however long. While it is open it also occupies a connection,
    which the sign-in may need: with all connections occupied, threads would wait for each other.
    """
    _sync_stream(response).close()
    response.stream = httpx.ByteStream(b"")


def _sync_stream(response: httpx.Response) -> httpx.SyncByteStream:
    if not isinstance(response.stream, httpx.SyncByteStream):
        raise TypeError("these credentials are for httpx.Client, not for httpx.AsyncClient")
    return response.stream
