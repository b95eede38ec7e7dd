"""Authentication whose credential is shared by all threads and renewed in time.

::

    RegistryAuth
    ├── FixedAuth               never changes
    │   ├── swr.iam.TokenAuth       an IAM token that another program renews
    │   └── swr.signing.SigningAuth an access key, permanent or temporary
    ├── RenewedAuth             fetched, shared by all threads, renewed before it expires
    │   ├── swr.iam.PasswordAuth    an IAM token for a user's password
    │   ├── swr.ecs.AgencyAuth      temporary keys from a host's metadata service
    │   └── oci.tokens.BearerAuth   a token for one repository
    └── oci.auth.ChallengedAuth chosen by the challenge of an OCI registry

Each class is an `httpx.Auth`. Its flow is a generator: it yields requests, httpx sends them, and
the generator receives the responses. The flow itself has no network access. The client must

* not let httpx follow redirects, because httpx would send ``X-Auth-Token`` to the other host, too;
* be synchronous, because a thread lock guards renewals.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from datetime import datetime, timedelta
from threading import Lock
from typing import Annotated, Final, NamedTuple, TypeGuard, TypeVar

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
"""How long before its expiry time a credential is renewed."""

MIN_LIFETIME: Final = timedelta(minutes=1)
"""The minimum time that a new credential is used, whatever its expiry time is.

If this machine's clock is wrong by a day, a new credential seems to have expired. Without a minimum
time, each request would then fetch another credential, which doubles the number of requests. If the
credential has really expired, the registry answers 401 and the credential is renewed.
"""

REPEAT_REFUSAL_FOR: Final = timedelta(minutes=5)
"""How long a refused login is not attempted again. The same error is raised instead.

Identity services lock an account after a few wrong passwords in a row. Without this pause, a pass
over a thousand repositories would send a wrong password a thousand times.
"""

MAX_ANSWER_BYTES: Final = 64 * 2**10
"""Maximum size of a response that carries a credential. A token has a few KiB."""

ANSWER_TIMEOUT: Final = timedelta(seconds=30)
"""Maximum time to read a response that carries a credential.

httpx limits only the time of each read.
"""

SIGN_IN_TIMEOUT: Final = httpx.Timeout(ANSWER_TIMEOUT.total_seconds())
"""The timeout of a sign-in if the request that needs it has no timeout."""

AuthFlow = Generator[httpx.Request, httpx.Response, None]
"""A generator that yields requests and receives the response to each."""

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with a time zone, in the format of RFC 3339. It is rounded to microseconds."""

_T = TypeVar("_T")
ErrorT = TypeVar("ErrorT", bound=RegistryError)


class RegistryAuth(httpx.Auth, ABC):
    """Authentication of requests. Safe to use from many threads at once."""

    @property
    @abstractmethod
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets in use.

        They are removed from error messages, because a server may repeat them.
        """


class FixedAuth(RegistryAuth):
    """A credential that never changes."""

    requires_request_body = True  # a signature covers the body

    @abstractmethod
    def authenticate(self, request: httpx.Request) -> None:
        """Add the credential to a request, or replace an older credential in it.

        Args:
            request: A request whose body has been read.
        """

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        """Send the request with the credential."""
        self.authenticate(request)
        yield request


class FixedToken(FixedAuth):
    """A token that is sent with every request. Subclasses know in which header."""

    def __init__(self, token: Secret) -> None:
        """Take the token."""
        self._token = token

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The token."""
        return (self._token,)


class BearerToken(FixedToken):
    """A token in ``Authorization`` (RFC 6750)."""

    def authenticate(self, request: httpx.Request) -> None:
        """Add the token to a request."""
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"


class Lease:
    """A fetched credential, and what is known about it.

    Attributes:
        auth: Adds the credential to requests.
        fetched_at: When the credential was fetched.
        renew_at: When to fetch the next one.
        is_accepted: Whether the registry has accepted the credential.
        is_refused_when_new: Whether the registry refused the credential at first.
    """

    __slots__ = ("auth", "fetched_at", "is_accepted", "is_refused_when_new", "renew_at")

    def __init__(self, auth: FixedAuth, fetched_at: datetime, renew_at: datetime) -> None:
        self.auth = auth
        self.fetched_at = fetched_at
        self.renew_at = renew_at
        self.is_accepted = False
        self.is_refused_when_new = False


class Failure(NamedTuple):
    """Why and when the last attempt to log in failed."""

    error: RegistryError
    at: datetime


Fetch = Generator[httpx.Request, httpx.Response, tuple[FixedAuth, datetime]]
"""A generator like `AuthFlow` that returns a credential and the time when it expires."""

SendFlow = Generator[httpx.Request, httpx.Response, httpx.Response]
"""A generator like `AuthFlow` that returns the last response, which the caller reads."""

_LeaseFlow = Generator[httpx.Request, httpx.Response, Lease]


class RenewedAuth(RegistryAuth):
    """A credential that expires, which one thread fetches and renews for all threads.

    The credential is fetched on first use, and renewed before it expires. The thread that fetches
    it holds a lock until it has read the response or httpx closes the generator. The other threads
    wait, and share the new credential or the error.

    If the registry answers 401, the credential is renewed, unless another thread has just renewed
    it. Then the request is sent once more. A second 401 is returned to the caller, and for a while
    no further 401 renews a credential that the registry accepts for other requests.

    This class reads a response that carries a credential, up to `MAX_ANSWER_BYTES` and within
    `ANSWER_TIMEOUT`. It discards a first 401 unread. It leaves the final response unread, because
    the caller reads it.
    """

    _issuer: str
    """The host that issues the credential, for error messages."""

    _renew_before: timedelta = RENEW_BEFORE

    _repeat_refusal_for: timedelta = REPEAT_REFUSAL_FOR

    _useless_for: timedelta = MIN_LIFETIME
    """How long a refusal is returned at once after a new credential did not help."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._lease: Lease | None = None
        self._replaced: Lease | None = None
        self._failure: Failure | None = None
        self._useless_at: datetime | None = None

    def update_challenge(self, response: httpx.Response) -> None:
        """Update the challenge from a 401 response. Does nothing by default.

        The challenge is the part of a response that names the login that the server accepts.
        """

    @abstractmethod
    def fetch(self, request: httpx.Request) -> Fetch:
        """Fetch a new credential and the time when it expires.

        Args:
            request: The request that needs the credential.
        """

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets of the current credential, and of the last one.

        Other threads may still use the last one.
        """
        leases = (lease for lease in (self._lease, self._replaced) if lease is not None)
        return tuple(secret for lease in leases for secret in lease.auth.secrets)

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        """Send the request, and send it again with a new credential after a 401.

        Raises:
            RegistryError: As for `send`.
        """
        yield from self.send(request)

    def send(self, request: httpx.Request) -> SendFlow:
        """Send the request, and send it again with a new credential after a 401.

        Raises:
            Unauthorized: If the login was refused, now or within `REPEAT_REFUSAL_FOR`.
            Throttled: If the issuer of the credential throttles.
            Busy: If the issuer of the credential is temporarily unavailable.
            MalformedResponse: If the issuer's response contains no valid credential.
            Unreachable: If the issuer responds too slowly, or another thread could not connect.
        """
        request.read()
        lease = yield from self._current_lease(request)
        lease.auth.authenticate(request)
        response = yield request
        if self._is_refusal(response):
            if not self._should_renew(response, lease):
                return response
            discard_body(response)
            self.update_challenge(response)
            lease = yield from self._current_lease(request, refused=lease)
            lease.auth.authenticate(request)
            response = yield request
            if self._is_refusal(response):
                self._note_second_refusal(response, lease)
                return response
        self._note_accepted(lease)
        return response

    def _note_accepted(self, lease: Lease) -> None:
        """Remember that the registry accepted a credential."""
        lease.is_accepted = True

    def _is_refusal(self, response: httpx.Response) -> bool:
        """Return whether the registry may have refused the credential."""
        return response.status_code == httpx.codes.UNAUTHORIZED

    def _should_renew(self, response: httpx.Response, lease: Lease) -> bool:  # noqa: ARG002  a subclass needs it
        """Return whether a new credential may help after a refusal.

        If it did not help a moment ago, and the registry accepts the current credential for other
        requests, this request is not permitted.
        """
        return not (lease.is_accepted and self._renewal_is_useless())

    def _note_second_refusal(self, response: httpx.Response, lease: Lease) -> None:  # noqa: ARG002  as above
        """Remember that a new credential was refused, too."""
        self._useless_at = self._clock()

    def _renewal_is_useless(self) -> bool:
        at = self._useless_at
        return at is not None and abs(self._clock() - at) < self._useless_for

    def _note_replaced(self, lease: Lease | None) -> None:
        """Note that a new credential replaces this one. Does nothing by default."""

    def _current_lease(self, request: httpx.Request, refused: Lease | None = None) -> _LeaseFlow:
        """Return the shared credential. Renew it first if this is necessary.

        Args:
            request: The request that needs the credential.
            refused: The credential that the registry has just refused, which must be renewed.
        """
        failure_before = self._failure
        if (lease := self._usable_lease(refused)) is not None:
            return lease
        with self._lock:
            if (lease := self._usable_lease(refused)) is not None:
                return lease
            self._repeat_failure(failure_before)
            return (yield from self._renew(request))

    def _usable_lease(self, refused: Lease | None) -> Lease | None:
        lease, now = self._lease, self._clock()
        if lease is None or lease is refused or now >= lease.renew_at:
            return None
        return lease

    def _repeat_failure(self, failure_before: Failure | None) -> None:
        """Raise the last failure again if another attempt would be useless.

        This applies if another thread failed while this one waited for the lock, or if the
        login was refused less than `REPEAT_REFUSAL_FOR` ago.

        Args:
            failure_before: The last failure before this thread waited for the lock.
        """
        if (failure := self._failure) is None:
            return
        age = abs(self._clock() - failure.at)
        refused = isinstance(failure.error, Unauthorized) and age < self._repeat_refusal_for
        if refused or failure is not failure_before:
            raise without_traceback(failure.error)

    def _renew(self, request: httpx.Request) -> _LeaseFlow:
        # If the connection breaks, httpx closes the generator without raising an error in it, so
        # the failure is assumed first and cleared on success.
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
        # Subtract last: a server may send the earliest possible date, from which nothing can be
        # subtracted.
        early = self._renew_before
        renew_at = max(expires_at, now + MIN_LIFETIME + early) - early
        self._note_replaced(self._lease)
        self._replaced, self._lease = self._lease, Lease(auth, now, renew_at)
        return self._lease


def without_traceback(error: ErrorT) -> ErrorT:
    """Return a copy of an error without its traceback.

    If several threads raised the same error object, their tracebacks would be mixed.
    """
    return type(error)(
        str(error), retry_after=error.retry_after, status=error.status, code=error.code
    )


def decode_credentials(response: httpx.Response, kind: type[_T], issuer: str, clock: Clock) -> _T:
    """Read and decode a response that carries a credential.

    The limits of `read_body` apply.

    Args:
        response: A response whose body is unread.
        kind: The type of the decoded body.
        issuer: The host that issues the credential, for an error.
        clock: Returns the time, to measure how long the body takes.

    Raises:
        MalformedResponse: If the body has another form. The error does not quote the body.
        ResponseTooLarge: If the body is too large.
        Unreachable: If the body arrives too slowly.
    """
    body = read_body(response, issuer, clock)
    try:
        return msgspec.json.decode(body, type=kind, dec_hook=_decode_secret)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Raise without a cause: the decoder's error may quote the body, which may be a secret.
        raise MalformedResponse(
            f"{issuer} sent credentials in an undocumented form",
            status=response.status_code,
        ) from None


def _decode_secret(kind: type, value: object) -> Secret:
    if kind is Secret and isinstance(value, str) and is_header_value(value):
        return Secret(value)
    raise ValueError("not a credential")


def is_header_value(value: str | None) -> TypeGuard[str]:
    """Return whether an HTTP header can carry a value.

    Secrets must be checked before they are sent: if h11 cannot send a value, its error quotes it.
    """
    return (
        value is not None
        and value.isascii()
        and value.isprintable()
        and value == value.strip() != ""
    )


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
    """Check that a configured secret is UTF-8 text and is not empty.

    Raises:
        ConfigError: If it is not. The error does not quote the secret.
    """
    # If a variable of the environment is not UTF-8, Python decodes its invalid bytes to surrogates.
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
    """Raise a transient error if a response to a sign-in means one.

    Raises:
        Throttled, Busy: If a later sign-in may succeed, by the response's status.
    """
    status = response.status_code
    error = transient_error(status)
    if error is None:
        return
    throttled = "throttles requests for credentials"
    reason = throttled if error is Throttled else "issues no credentials at the moment"
    retry_after = parse_retry_after(response.headers, clock)
    raise error(f"{issuer} {reason} (status {status})", retry_after=retry_after, status=status)


def raise_unless_success(response: httpx.Response, issuer: str, to_check: str) -> None:
    """Raise an error if a response is not a success. The caller has handled refusals.

    Args:
        response: The response to a sign-in.
        issuer: The host that issues the credential, for the error.
        to_check: The setting that the user should check, for the error.

    Raises:
        MalformedResponse: If the response has another status, such as that of a redirect.
    """
    if not response.is_success:
        raise MalformedResponse(
            f"{issuer} answered with status {response.status_code}, which is neither a credential"
            f" nor a refusal, and tagsync does not follow redirects: check {to_check}",
            status=response.status_code,
        )


def sign_in_headers(request: httpx.Request) -> dict[str, str]:
    """Return the headers of a sign-in that another request needs."""
    return {
        "User-Agent": request.headers.get("User-Agent", "tagsync"),
        "Accept": "application/json",
        # Without this header, a server may choose any encoding (RFC 9110, 12.5.3).
        "Accept-Encoding": "identity",
    }


def sign_in_extensions(request: httpx.Request) -> dict[str, object]:
    """Return the httpx extensions of a sign-in: the timeout of the original request.

    httpx sets the client's timeout only on the original request, which needs the sign-in. Without a
    timeout, a server that never responds would block every thread.
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
    """Read the body of a response that carries a credential, with limits.

    Raises:
        ResponseTooLarge: If the body is larger than `MAX_ANSWER_BYTES`.
        Unreachable: If reading the body takes longer than `ANSWER_TIMEOUT`.
    """
    # A sign-in requests no compression. Without the header, httpx does not decompress the body,
    # so that a small response cannot become a large one.
    response.headers.pop("Content-Encoding", None)
    response.stream = _BoundedStream(_sync_stream(response), issuer, clock)
    return response.read()


def discard_body(response: httpx.Response) -> None:
    """Close a response unread, because the flow sends another request next.

    Otherwise httpx would read the body to its end, however long it is. An open response also
    occupies a connection that the sign-in may need: if all connections were occupied, the threads
    would wait for each other.
    """
    _sync_stream(response).close()
    response.stream = httpx.ByteStream(b"")


def _sync_stream(response: httpx.Response) -> httpx.SyncByteStream:
    if not isinstance(response.stream, httpx.SyncByteStream):
        raise TypeError("these credentials are for httpx.Client, not for httpx.AsyncClient")
    return response.stream
