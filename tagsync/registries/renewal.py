"""What SWR is asked with: each kind of credential an `httpx.Auth` that does no IO of its own.

::

    RegistryAuth
    ├── FixedAuth           at hand from the start
    │   ├── TokenAuth       an IAM token that somebody else renews
    │   └── SigningAuth     an access key and its secret, permanent or temporary
    └── RenewedAuth         fetched, shared by all threads, fetched again before it expires
        ├── PasswordAuth    an IAM token, for a user's password
        └── AgencyAuth      temporary keys, from the metadata service of an ECS host

They are generators that yield requests and are sent the answers, so whoever owns the
`httpx.Client` owns the network too. Two things follow for that client: it must not follow
redirects (httpx's default), because httpx would repeat ``X-Auth-Token`` to any other host; and it
must be synchronous, because what is renewed is guarded by a lock of threads.

Sources: the vendor's "API signing guide" (``SDK-HMAC-SHA256``), "IAM: obtaining a user token
through password authentication" and "ECS: obtaining metadata" (``securitykey``).
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
    Busy,
    ConfigError,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
    Unreachable,
)
from tagsync.registries.pacing import retry_after as parse_retry_after
from tagsync.secrets import Secret

RENEW_BEFORE: Final = timedelta(minutes=10)
"""How long before it expires a credential is renewed."""

KEPT_FOR: Final = timedelta(minutes=1)
"""How long a new credential is used at least, even if our clock says that it has expired.

Clocks differ, and the registry's 401 renews it anyhow; without this, a clock that is wrong by a
day would turn every request into two.
"""

REFUSAL_STANDS: Final = timedelta(minutes=5)
"""For how long a refusal is repeated without asking again.

Identity services lock an account after a few wrong passwords in a row, and a pass over a thousand
repositories would try a thousand times.
"""

MAX_ANSWER_BYTES: Final = 64 * 2**10
"""How large the answer to a sign-in or of the metadata service may be; tokens are a few KiB."""

ANSWER_WITHIN: Final = timedelta(seconds=30)
"""How long reading such an answer may take, which httpx's limit on each read does not bound."""

SIGN_IN_TIMEOUT: Final = httpx.Timeout(ANSWER_WITHIN.total_seconds())

Steps = Generator[httpx.Request, httpx.Response, None]

_T = TypeVar("_T")

ErrorT = TypeVar("ErrorT", bound=RegistryError)


class RegistryAuth(httpx.Auth, ABC):
    """What any kind of credential can do, for use by many threads at once."""

    @property
    @abstractmethod
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets now in use, for whoever must keep them out of what a server echoes."""


class FixedAuth(RegistryAuth):
    """A credential that never changes."""

    requires_request_body = True  # a signature covers it

    @abstractmethod
    def mark(self, request: httpx.Request) -> None:
        """Puts the credential on a request whose body is read, in place of any older one."""

    def auth_flow(self, request: httpx.Request) -> Steps:
        """Marks the request; its answer is the caller's."""
        self.mark(request)
        yield request


class _Lease(NamedTuple):
    """A credential that was fetched, and when to fetch the next one."""

    auth: FixedAuth
    renew_at: datetime


class Failure(NamedTuple):
    """Why the last attempt to be let in failed, and when."""

    error: RegistryError
    at: datetime


Obtaining = Generator[httpx.Request, httpx.Response, tuple[FixedAuth, datetime]]

_Leasing = Generator[httpx.Request, httpx.Response, _Lease]


class RenewedAuth(RegistryAuth):
    """A credential that is fetched when first needed and again before it expires, once for all.

    One thread fetches it, under a lock that it holds until the answer is read or httpx closes the
    generator; the others wait, and share its success as well as its failure. On the registry's
    401 it is fetched anew, unless another thread has done so meanwhile, and the request is sent
    once more; a second 401 is the caller's.

    The answers that carry credentials are read here, to at most `MAX_ANSWER_BYTES` and within
    `ANSWER_WITHIN`. A 401 that is followed by another attempt is dropped unread. The answer that
    the caller gets is not touched.
    """

    _source: str
    """The host that gives the credential, for sentences."""

    _renew_before: timedelta = RENEW_BEFORE

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._lease: _Lease | None = None
        self._replaced: _Lease | None = None
        self._failure: Failure | None = None

    def _learn(self, response: httpx.Response) -> None:
        """Takes from a refusal what it says of the credential that is wanted."""

    @abstractmethod
    def _obtain(self, request: httpx.Request) -> Obtaining:
        """Fetches the credential and when it expires, on behalf of a request."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Those of the fetched credential and, for requests under way, of the one before."""
        leases = (lease for lease in (self._lease, self._replaced) if lease is not None)
        return tuple(secret for lease in leases for secret in lease.auth.secrets)

    def sync_auth_flow(self, request: httpx.Request) -> Steps:
        """Marks the request, and once more with a new credential if the registry answers 401.

        Raises:
            Unauthorized: the credential was refused, now or within `REFUSAL_STANDS`.
            Throttled: whoever gives it was asked too often.
            Busy: whoever gives it cannot answer just now.
            MalformedResponse: the answer is not what it promises.
            Unreachable: it came too slowly, or another thread's attempt found no connection.
        """
        request.read()
        lease = yield from self._current(request)
        lease.auth.mark(request)
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        drop_body(response)
        self._learn(response)
        lease = yield from self._current(request, refused=lease)
        lease.auth.mark(request)
        yield request

    def _current(self, request: httpx.Request, refused: _Lease | None = None) -> _Leasing:
        """The shared credential; a new one if it is due, missing, or the one just refused."""
        known = self._failure
        if (lease := self._usable(refused)) is not None:
            return lease
        with self._lock:
            if (lease := self._usable(refused)) is not None:
                return lease
            self._repeat_failure(known)
            return (yield from self._renew(request))

    def _usable(self, refused: _Lease | None) -> _Lease | None:
        lease, now = self._lease, self._clock()
        if lease is None or lease is refused or now >= lease.renew_at:
            return None
        return lease

    def _repeat_failure(self, known: Failure | None) -> None:
        """Raises what others ran into while this thread waited, or a refusal that still stands."""
        if (failure := self._failure) is None:
            return
        age = abs(self._clock() - failure.at)
        stands = isinstance(failure.error, Unauthorized) and age < REFUSAL_STANDS
        if stands or failure is not known:
            raise copy_of(failure.error)

    def _renew(self, request: httpx.Request) -> _Leasing:
        # httpx never throws a broken connection into the generator, it only closes it: without an
        # error of ours there was no answer.
        failure: RegistryError | None = Unreachable(f"{self._source} gave no credentials in time")
        try:
            auth, expires_at = yield from self._obtain(request)
            failure = None
        except RegistryError as error:
            failure = error
            raise
        finally:
            now = self._clock()
            self._failure = None if failure is None else Failure(copy_of(failure), now)
        # In this order because the earliest date, which anybody can send, has nothing before it.
        early = self._renew_before
        renew_at = max(expires_at, now + KEPT_FOR + early) - early
        self._replaced, self._lease = self._lease, _Lease(auth, renew_at)
        return self._lease


def copy_of(error: ErrorT) -> ErrorT:
    """The error without its traceback: one object raised in many threads would mix theirs."""
    return type(error)(
        str(error), retry_after=error.retry_after, status=error.status, code=error.code
    )


_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""RFC 3339 with a zone; more than six fractional digits are rounded."""


def decode(response: httpx.Response, kind: type[_T], source: str, clock: Clock) -> _T:
    """The body of an answer that carries credentials, read within bounds.

    Raises:
        MalformedResponse: it is not of this kind; the sentence quotes nothing of it.
        Unreachable: it came too slowly.
    """
    body = _body(response, source, clock)
    try:
        return msgspec.json.decode(body, type=kind, dec_hook=_secret_from_json)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not even as a cause: what cannot be decoded may well be the secret.
        raise MalformedResponse(
            f"{source} sent credentials in a form that is not documented",
            status=response.status_code,
        ) from None


def _secret_from_json(kind: type, value: object) -> Secret:
    if kind is Secret and isinstance(value, str) and fits_header(value):
        return Secret(value)
    raise ValueError("not a credential")


def fits_header(value: str) -> bool:
    """Whether a header can carry it, which h11 denies in an error that quotes the value."""
    return value.isascii() and value.isprintable() and value == value.strip() != ""


def check_for_header(name: str, value: str) -> None:
    """Makes sure that a header can carry a value.

    Raises:
        ConfigError: none can; the sentence does not quote the value.
    """
    if not fits_header(value):
        raise ConfigError(
            f"{name} is empty, has white space around it, or holds characters that no HTTP header"
            " can carry: check where it is read from"
        )


def check_text(name: str, secret: Secret) -> None:
    """Makes sure that a secret can be encoded.

    Raises:
        ConfigError: it cannot, or is empty.
    """
    # The environment hands over bytes that are no UTF-8 as surrogates, which cannot be encoded.
    value = secret.reveal()
    if not value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{name} is empty or not UTF-8: check where it is read from")


def _url(name: str, endpoint: str, path: str) -> httpx.URL:
    try:
        url = httpx.URL(endpoint.rstrip("/") + path)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"https", "http"} or not url.host:
        raise ConfigError(f"{name} is not a URL: write it as https://HOST, without a path")
    return url


def raise_if_passing(response: httpx.Response, source: str, clock: Clock) -> None:
    """Raises what may pass by itself."""
    status = response.status_code
    if status == httpx.codes.TOO_MANY_REQUESTS:
        error: type[Throttled | Busy] = Throttled
        reason = "was asked too often to sign in"
    elif status == httpx.codes.CONFLICT or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        error, reason = Busy, "could not sign in just now"
    else:
        return
    retry_after = parse_retry_after(response.headers, clock)
    raise error(f"{source} {reason} (status {status})", retry_after=retry_after, status=status)


def raise_unless_success(response: httpx.Response, source: str, check: str) -> None:
    """Raises for what is left when neither success nor error was answered, such as a redirect."""
    if not response.is_success:
        raise MalformedResponse(
            f"{source} answered with status {response.status_code}, which is neither a credential"
            f" nor a refusal, and a redirect is never followed: check {check}",
            status=response.status_code,
        )


def headers_like(request: httpx.Request) -> dict[str, str]:
    """The headers of a request for credentials that is made on behalf of another one."""
    return {
        "User-Agent": request.headers.get("User-Agent", "tagsync"),
        "Accept": "application/json",
    }


class _BoundedStream(httpx.SyncByteStream):
    """A body that ends in an error instead of going on for too long."""

    def __init__(self, stream: httpx.SyncByteStream, source: str, clock: Clock) -> None:
        self._stream = stream
        self._source = source
        self._clock = clock

    def __iter__(self) -> Iterator[bytes]:
        deadline = self._clock() + ANSWER_WITHIN
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise ResponseTooLarge(
                    f"{self._source} sent more than {MAX_ANSWER_BYTES} bytes of credentials"
                )
            if self._clock() > deadline:
                raise Unreachable(
                    f"{self._source} did not finish its answer within"
                    f" {ANSWER_WITHIN.total_seconds():g} s"
                )
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _body(response: httpx.Response, source: str, clock: Clock) -> bytes:
    # Nothing compressed was asked for, and what is not unpacked cannot grow beyond the bound.
    response.headers.pop("Content-Encoding", None)
    response.stream = _BoundedStream(_sync_stream(response), source, clock)
    return response.read()


def drop_body(response: httpx.Response) -> None:
    """Ends an answer that another request follows.

    httpx would read it to its end, however long; and while it is open it keeps a connection that
    the sign-in may need, for which this thread or the one that it waits for would wait in vain.
    """
    _sync_stream(response).close()
    response.stream = httpx.ByteStream(b"")


def _sync_stream(response: httpx.Response) -> httpx.SyncByteStream:
    if not isinstance(response.stream, httpx.SyncByteStream):
        raise TypeError("these credentials are for httpx.Client, not for httpx.AsyncClient")
    return response.stream
