"""An HTTP client for registries: rate limit, retries, deadlines and size limits."""

import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from typing import Final
from urllib.parse import urlencode

import httpx
import msgspec
import stamina

from tagsync.errors import (
    BadRequest,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    TimedOut,
    Unreachable,
    Untrusted,
)
from tagsync.registries.deadline import HANGING_PER_THREAD, bounded, patience_within, within
from tagsync.registries.leftovers import without_leftovers
from tagsync.registries.pacing import Pacer, requests_left, reset_after
from tagsync.registries.proxies import ProxyTransport
from tagsync.registries.redirects import (
    MAX_REDIRECTS,
    check_address,
    describe,
    guarding,
    is_redirect,
    next_hop,
    origin,
)
from tagsync.registries.responses import Answer, Refusals, refusal_error, transient_error
from tagsync.registries.tls import DEFAULT_TRUST, Trust
from tagsync.secrets import Secret, redact

ATTEMPTS: Final = 6
"""Maximum number of times that a request is sent while its errors are transient."""

PROBE_BYTES: Final = 64 * 2**10
"""Maximum size of the answer to a probe."""

_JSON: Final = "application/json"

_STEP: Final = 64 * 2**10
"""Maximum number of bytes to decompress in one step."""


class Limits(msgspec.Struct, frozen=True):
    """Limits of the requests to one registry.

    Attributes:
        timeout: Maximum time for one request in seconds, from the first byte sent to the last byte
            received.
        retry_for: How long a request is retried after transient errors, in seconds. With 0, it is
            sent once.
        max_listing_bytes: Maximum size of the response bodies of one listing together.
        requests_per_second: Maximum rate of all requests to the registry together.
        connections: Number of requests at the same time, without those that hang.
    """

    timeout: float = 30.0
    retry_for: float = 60.0
    max_listing_bytes: int = 256 * 2**20
    requests_per_second: float = 50.0
    connections: int = 8


class _Request(msgspec.Struct, frozen=True):
    """A request, which may be sent several times. Attributes as in `Client.get`."""

    method: str
    url: str
    query: Mapping[str, str | int]
    accept: str
    max_bytes: int
    limit_text: str


class _NoCookies(httpx.Cookies):
    """A cookie jar that stays empty: one response must not influence the next request.

    Without the search for cookies, small requests are also 10 % faster.
    """

    def extract_cookies(self, response: httpx.Response) -> None:
        """Ignore the cookies of a response."""


class _Cookieless(httpx.Client):
    """A client without cookies.

    httpx copies a jar that is passed to its constructor into an ordinary one. Therefore this class
    replaces the attribute that holds the jar.
    """

    cookies = _NoCookies()  # type: ignore[override]  # httpx has a setter; tagsync never uses it


class Client:
    """An HTTP client for one registry.

    Certificates are always verified. A few redirects are followed, and credentials are sent only
    to the endpoint's scheme, host and port; see `tagsync.registries.redirects`. No cookie is
    stored.
    """

    def __init__(
        self,
        endpoint: str,
        auth: httpx.Auth | None,
        refusals: Refusals,
        limits: Limits,
        *,
        secrets: Callable[[], tuple[Secret, ...]] = tuple,
        trust: Trust = DEFAULT_TRUST,
        transport: httpx.BaseTransport | None = None,
        pacer: Pacer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the client. No connection is opened yet.

        Args:
            endpoint: The URL to which paths are appended.
            auth: Adds the credential to each request. None sends requests anonymously.
            refusals: Says which error an answer means if its status is not 200.
            limits: Limits for the rate, time and size of requests.
            secrets: Returns the secrets in use. The client removes them from error messages,
                because a server may repeat them.
            trust: The files with certificates for TLS.
            transport: Replaces the network in tests.
            pacer: Replaces the default `Pacer` in tests.
            monotonic: Returns the seconds of a clock that never goes back.

        Raises:
            ConfigError: If a file of certificates cannot be used, or if the environment names a
                proxy for the endpoint that is not a valid address.
        """
        self.endpoint: Final = endpoint.rstrip("/")
        self._endpoint = httpx.URL(self.endpoint)
        self._auth = auth
        self._refusals = refusals
        self._limits = limits
        self._secrets = secrets
        self._pacer = pacer or Pacer(limits.requests_per_second)
        self._monotonic = monotonic
        self._trust = trust
        self._transport = transport
        if transport is None:
            transport = ProxyTransport(_opener(trust.context(), limits))
            transport.check(self._endpoint)
        elif isinstance(transport, httpx.HTTPTransport):
            bounded(transport, check_address)
        self._client = _client(transport, limits)
        # A redirect to another host must not show it the client certificate.
        self._elsewhere = self._client
        if trust.client_cert_file is not None:
            public = Trust(trust.ca_file).context()
            self._elsewhere = _client(ProxyTransport(_opener(public, limits)), limits)

    @property
    def patience(self) -> float:
        """Seconds after which a wait for an answer counts as hanging."""
        return patience_within(self._limits.timeout)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._elsewhere.close()

    def get(
        self,
        path: str,
        query: Mapping[str, str | int],
        max_bytes: int,
        *,
        accept: str = _JSON,
        limit_text: str | None = None,
    ) -> Answer:
        """Send a GET request, and retry it after transient errors.

        Args:
            path: A percent-encoded path to append to the endpoint. It may have a query.
            query: The query parameters.
            max_bytes: Maximum size of the body.
            accept: The media types to accept.
            limit_text: Describes ``max_bytes`` in the error for a body that is too large. By
                default, the error names the configuration key ``max_listing_size``.

        Raises:
            RegistryError: If no answer arrives, or the answer is too large or has a status other
                than 200.
        """
        if limit_text is None:
            limit_text = f"the {self._limits.max_listing_bytes} bytes that max_listing_size allows"
        request = _Request("GET", self.endpoint + path, query, accept, max_bytes, limit_text)
        return self._send_with_retries(request)

    def probe(self, path: str) -> Answer:
        """Send a GET request once and without a credential, and return what is answered.

        Raises:
            RegistryError: If no answer arrives, if the answer is larger than `PROBE_BYTES`, or if
                its status means a transient error.
        """
        limit_text = f"the {PROBE_BYTES} bytes that an answer without a list may have"
        request = _Request("GET", self.endpoint + path, {}, _JSON, PROBE_BYTES, limit_text)
        self._pacer.wait(self._limits.retry_for)
        answer = self._deliver(request, None)
        if transient_error(answer.status) is not None:
            raise refusal_error(answer, self._refusals, self._secrets())
        return answer

    def sibling(
        self, endpoint: str, auth: httpx.Auth | None, secrets: Callable[[], tuple[Secret, ...]]
    ) -> "Client":
        """Return a client with the same limits for another interface of the registry.

        At the same scheme, host and port, both clients share the rate of their requests. Another
        host has a rate of its own, and is shown no client certificate.

        Args:
            endpoint: The URL to which paths are appended.
            auth: Adds the credential to each request. None sends requests anonymously.
            secrets: Returns the secrets to remove from error messages.

        Raises:
            ConfigError: If the environment names a proxy that is not a valid address.
        """
        at_home = origin(httpx.URL(endpoint)) == origin(self._endpoint)
        return Client(
            endpoint,
            auth,
            self._refusals,
            self._limits,
            secrets=secrets,
            trust=self._trust if at_home else Trust(self._trust.ca_file),
            transport=self._transport,
            pacer=self._pacer if at_home else None,
            monotonic=self._monotonic,
        )

    def apart(self) -> "Client":
        """Return a client for requests that the registry may throttle without the others.

        It shares everything but the pauses of throttled requests. Close only the original.
        """
        client = copy(self)
        client._pacer = self._pacer.apart()  # noqa: SLF001  a copy of this object
        return client

    def head(self, path: str, *, accept: str) -> Answer:
        """Send a HEAD request, and retry it as `get` does. The answer has no body."""
        limit_text = "the response to a HEAD request may have"
        request = _Request("HEAD", self.endpoint + path, {}, accept, 0, limit_text)
        return self._send_with_retries(request)

    def _send_with_retries(self, request: _Request) -> Answer:
        for attempt in stamina.retry_context(
            on=self._should_retry,
            attempts=ATTEMPTS,
            timeout=self._limits.retry_for or None,  # stamina warns of 0
            wait_initial=min(0.2, self._limits.retry_for),
            wait_max=min(5.0, self._limits.retry_for),
        ):
            with attempt:
                self._pacer.wait(self._limits.retry_for)
                try:
                    answer = self._send_once(request)
                except Throttled as error:
                    # The registry or its token server throttles. Each request needs both of them,
                    # so all requests pause.
                    self._pacer.throttled(error.retry_after)
                    raise
                self._pacer.answered()
                self._pause_if_exhausted(answer)
                return msgspec.structs.replace(answer, requests=answer.requests + attempt.num - 1)
        raise AssertionError("stamina ends with a return or an exception")

    def _pause_if_exhausted(self, answer: Answer) -> None:
        """Pause all requests if the server's rate limit is used up, until it is reset."""
        seconds = reset_after(answer.headers)
        if requests_left(answer.headers) == 0 and seconds is not None:
            self._pacer.throttled(seconds)

    def _should_retry(self, error: Exception) -> bool | float:
        """Return whether to retry after an error, or the seconds to wait before a retry.

        The result is a number of seconds if the registry named it (``Retry-After``). For a
        throttled request it is 0, because the pacer already makes all requests wait.
        """
        if not isinstance(error, RegistryError) or not error.transient:
            return False
        if not self._limits.retry_for:
            return False
        if (error.retry_after or 0.0) > self._limits.retry_for:
            return False
        if isinstance(error, Throttled):
            return 0.0
        return True if error.retry_after is None else error.retry_after

    def _send_once(self, request: _Request) -> Answer:
        """Send a request once, and raise the error that its answer means."""
        answer = self._deliver(request, self._auth)
        if answer.status != httpx.codes.OK:
            raise refusal_error(answer, self._refusals, self._secrets())
        return answer

    def _deliver(self, request: _Request, auth: httpx.Auth | None) -> Answer:
        """Send a request once, and follow redirects, all within the time of one request."""
        # Append the query here: httpx's params= parses and formats the URL twice, which is slower.
        query = f"?{urlencode(request.query)}" if request.query else ""
        sent = self._build(request, request.url + query)
        size, hops = 0, 0
        with within(self._limits.timeout, self._monotonic):
            response, body = self._exchange(sent, auth, request, size)
            while is_redirect(response):
                size, hops = size + len(body), hops + 1
                sent, auth = self._redirected(response, request, auth, hops)
                with guarding(sent.url, self._endpoint):
                    response, body = self._exchange(sent, auth, request, size)
        # A redirect's target may be a signed URL, whose query contains a key.
        url = self._shown(sent.url) if hops else request.url
        return Answer(url, response.status_code, response.headers, body, 1 + hops, hops > 0)

    def _build(self, request: _Request, url: str | httpx.URL) -> httpx.Request:
        """Return a request to a URL, which may contain text that the registry sent."""
        headers = {"Accept": request.accept}
        try:
            return self._client.build_request(request.method, url, headers=headers)
        except httpx.InvalidURL as error:
            raise MalformedResponse(
                f"{self.endpoint} makes tagsync request a URL that is too long, or that contains"
                " characters that no URL may have"
            ) from error

    def _exchange(
        self, sent: httpx.Request, auth: httpx.Auth | None, request: _Request, size: int
    ) -> tuple[httpx.Response, bytes]:
        """Send a request to one URL, and return its response and the body.

        Args:
            sent: The request.
            auth: Adds the credential. None sends no credential.
            request: The request as the caller asked for it, with the limits.
            size: Number of bytes that the redirects before this request have sent.
        """
        try:
            at_home = origin(sent.url) == origin(self._endpoint)
            client = self._client if at_home else self._elsewhere
            response = client.send(sent, auth=auth, stream=True)
            try:
                return response, self._read(response, request, size)
            finally:
                response.close()
        except httpx.DecodingError as error:
            raise MalformedResponse(
                f"{self._shown(_failed_url(error, sent))} sent a body that cannot be decompressed,"
                " because it is not gzip or is cut off"
            ) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            # httpx prepares the request to the target of a redirect, even if it does not send it.
            raise MalformedResponse(
                f"{self._shown(sent.url)} makes tagsync request something that is not a URL"
            ) from error
        except httpx.HTTPError as error:
            raise self._network_error(self._shown(_failed_url(error, sent)), error) from error

    def _redirected(
        self, response: httpx.Response, request: _Request, auth: httpx.Auth | None, hops: int
    ) -> tuple[httpx.Request, httpx.Auth | None]:
        """Return the request to the target of a redirect, and its authentication.

        Args:
            response: The redirect.
            request: The request as the caller asked for it.
            auth: The authentication of the redirected request.
            hops: Number of redirects of this request, this one included.
        """
        try:
            target = next_hop(response, self._endpoint)
            if hops > MAX_REDIRECTS:
                raise BadRequest(
                    f"{request.url} led through {MAX_REDIRECTS} redirects, the most that tagsync"
                    f" follows, and again to a {response.status_code}: it redirects to"
                    f" {describe(target)}",
                    status=response.status_code,
                )
        except RegistryError as error:  # a server may repeat a secret in the target
            text = redact(str(error), self._secrets())
            raise type(error)(text, status=error.status) from None
        if origin(target) != origin(self._endpoint):
            return self._build(request, target), None
        self._pacer.wait(self._limits.retry_for)
        return self._build(request, target), auth

    def _read(self, response: httpx.Response, request: _Request, size: int) -> bytes:
        """Read and decompress a body, up to the maximum size."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"gzip", "x-gzip", "identity", ""}:
            # Nested or stronger compression can expand 64 KiB to gigabytes in one step, before
            # the size is checked below.
            raise MalformedResponse(
                f"{self._shown(response.url)} sent a body that is compressed twice, or in an"
                " encoding that was not requested"
            )
        assert isinstance(response.stream, httpx.SyncByteStream), "the client is synchronous"  # noqa: S101  tells the type checker
        chunks: Iterable[bytes] = response.stream
        if encoding in {"gzip", "x-gzip"}:  # the same (RFC 9110, 8.4.1.3)
            chunks = _decompress(chunks)
        body = []
        for chunk in chunks:
            body.append(chunk)
            size += len(chunk)
            if size > request.max_bytes:
                raise ResponseTooLarge(
                    f"{self._shown(response.url)} sent more than {request.limit_text}"
                )
        return b"".join(body)

    def _shown(self, url: httpx.URL) -> str:
        """Return a URL for an error message. A redirect may have put a secret into its path."""
        return redact(describe(url), self._secrets())

    def _network_error(self, url: str, error: httpx.HTTPError) -> RegistryError:
        reason = redact(str(error), self._secrets()) or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            return TimedOut(f"{url} did not finish its answer within {self._limits.timeout:g} s")
        if _is_certificate_error(error):
            return Untrusted(
                f"{url} showed a certificate that is not trusted ({reason}): check the host name,"
                " or set ca_file to the certificate of your own CA"
            )
        if isinstance(error, httpx.ConnectError):
            return Unreachable(
                f"{url} could not be reached ({reason}): check the host name and the network"
            )
        return Unreachable(f"the connection to {url} broke: {reason}")


def _client(transport: httpx.BaseTransport, limits: Limits) -> httpx.Client:
    client = _Cookieless(
        transport=transport,
        timeout=limits.timeout,
        headers={
            "User-Agent": "tagsync",
            "Accept-Encoding": "gzip",
        },
        follow_redirects=False,
        trust_env=False,  # `ProxyTransport` reads the proxy variables
    )
    return without_leftovers(client)


def _opener(
    context: ssl.SSLContext, limits: Limits
) -> Callable[[httpx.Proxy | None], httpx.BaseTransport]:
    """Return a function that opens the connections through a proxy, or direct ones for None."""

    def open_transport(proxy: httpx.Proxy | None) -> httpx.BaseTransport:
        pool = httpx.Limits(
            # The caller's threads limit the requests. Those that hang come in addition.
            max_connections=limits.connections * (1 + HANGING_PER_THREAD),
            max_keepalive_connections=limits.connections,
        )
        transport = httpx.HTTPTransport(verify=context, limits=pool, proxy=proxy, trust_env=False)
        return bounded(transport, check_address)

    return open_transport


def _decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a decompressed body in small steps. It may consist of several gzip members (RFC 1952).

    httpx decodes the first member and drops the others, and takes a body that is cut off for a
    complete one.

    Raises:
        httpx.DecodingError: If the body is not gzip, is cut off, or is followed by other bytes.
    """
    member, started = zlib.decompressobj(zlib.MAX_WBITS | 16), False
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if member.eof:
                    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
                started = True
                yield member.decompress(data, _STEP)
                data = member.unused_data if member.eof else member.unconsumed_tail
    except zlib.error as error:
        raise httpx.DecodingError(str(error)) from error
    if started and not member.eof:
        raise httpx.DecodingError("the body is cut off")


def _failed_url(error: httpx.HTTPError, request: httpx.Request) -> httpx.URL:
    """Return the URL whose request failed: the registry's, or that of the token server."""
    with suppress(RuntimeError):  # raised by httpx if the error has no request
        request = error.request
    return request.url


def _is_certificate_error(error: BaseException) -> bool:
    """Return whether TLS failed because of the certificate.

    httpx and httpcore wrap the TLS error in their own errors, so this searches the chain of causes.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
