"""An HTTP client for registries: rate limit, retries, deadlines and size limits."""

import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import httpx
import msgspec
import stamina

from tagsync.errors import (
    ConfigError,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    TimedOut,
    Unreachable,
    Untrusted,
)
from tagsync.registries.deadline import HANGING_PER_THREAD, PATIENCE_IN_TIMEOUT, bounded, within
from tagsync.registries.pacing import Pacer, requests_left, reset_after
from tagsync.registries.responses import Answer, Refusals, refusal_error
from tagsync.secrets import Secret, redact

ATTEMPTS: Final = 6
"""Maximum number of times that a request is sent while its errors are transient."""

_JSON: Final = "application/json"


class Limits(msgspec.Struct, frozen=True):
    """Limits of the requests to one registry.

    Attributes:
        timeout: Maximum time for one request in seconds, from the first byte sent to the last byte
            received.
        retry_for: How long a request is retried after transient errors, in seconds.
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

    Certificates are always verified. Redirects are never followed, so that credentials reach only
    the configured host. No cookie is stored.
    """

    def __init__(
        self,
        endpoint: str,
        auth: httpx.Auth | None,
        refusals: Refusals,
        limits: Limits,
        *,
        secrets: Callable[[], tuple[Secret, ...]] = tuple,
        ca_file: Path | None = None,
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
            ca_file: A file with certificates (PEM) to trust in addition to the default ones.
            transport: Replaces the network in tests.
            pacer: Replaces the default `Pacer` in tests.
            monotonic: Returns the seconds of a clock that never goes back.

        Raises:
            ConfigError: If ``ca_file`` cannot be read, or contains no certificate.
        """
        self._endpoint = endpoint.rstrip("/")
        self._auth = auth
        self._refusals = refusals
        self._limits = limits
        self._secrets = secrets
        self._pacer = pacer or Pacer(limits.requests_per_second)
        self._monotonic = monotonic
        self._client = bounded(
            _Cookieless(
                transport=transport,
                verify=_trust(ca_file),
                timeout=limits.timeout,
                limits=httpx.Limits(
                    # The caller's threads limit the requests. Those that hang come in addition.
                    max_connections=limits.connections * (1 + HANGING_PER_THREAD),
                    max_keepalive_connections=limits.connections,
                ),
                # A cloud host's metadata service sends keys, which a proxy must not see.
                mounts={"all://169.254.169.254": None},
                headers={
                    "User-Agent": "tagsync",
                    "Accept-Encoding": "gzip",
                },
                follow_redirects=False,
            )
        )

    @property
    def patience(self) -> float:
        """Seconds after which a wait for an answer counts as hanging."""
        return self._limits.timeout / PATIENCE_IN_TIMEOUT

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

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
            path: A percent-encoded path to append to the endpoint, or an absolute URL that the
                registry sent. The URL must have the endpoint's scheme, host and port.
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
        request = _Request("GET", self._url(path), query, accept, max_bytes, limit_text)
        return self._send_with_retries(request)

    def head(self, path: str, *, accept: str) -> Answer:
        """Send a HEAD request, and retry it as `get` does. The answer has no body."""
        limit_text = "the response to a HEAD request may have"
        request = _Request("HEAD", self._url(path), {}, accept, 0, limit_text)
        return self._send_with_retries(request)

    def _url(self, path: str) -> str:
        """Return the URL of a request.

        Raises:
            MalformedResponse: If the URL's scheme, host or port is not the endpoint's, or if the
                URL names a user. Credentials must not be sent to such a URL.
        """
        if path.startswith("/"):
            return self._endpoint + path
        here, there = httpx.URL(self._endpoint), httpx.URL(path)
        same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
        if not same or there.userinfo:
            raise MalformedResponse(
                f"{self._endpoint} names a next page on another host, {there.scheme}://"
                f"{there.host}, but tagsync sends requests only to the configured endpoint"
            )
        return path

    def _send_with_retries(self, request: _Request) -> Answer:
        for attempt in stamina.retry_context(
            on=self._should_retry,
            attempts=ATTEMPTS,
            timeout=self._limits.retry_for,
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
                return msgspec.structs.replace(answer, requests=attempt.num)
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
        if (error.retry_after or 0.0) > self._limits.retry_for:
            return False
        if isinstance(error, Throttled):
            return 0.0
        return True if error.retry_after is None else error.retry_after

    def _send_once(self, request: _Request) -> Answer:
        url, headers = request.url, {"Accept": request.accept}
        # Append the query here: httpx's params= parses and formats the URL twice, which is slower.
        full_url = f"{url}?{urlencode(request.query)}" if request.query else url
        sent = self._client.build_request(request.method, full_url, headers=headers)
        try:
            with within(self._limits.timeout, self._monotonic):
                response = self._client.send(sent, auth=self._auth, stream=True)
                try:
                    body = self._read(response, request)
                finally:
                    response.close()
        except httpx.DecodingError as error:
            raise MalformedResponse(f"{url} sent a body that cannot be decompressed") from error
        except httpx.HTTPError as error:
            raise self._network_error(_failed_url(error, sent), error) from error
        answer = Answer(url, response.status_code, response.headers, body)
        if answer.status != httpx.codes.OK:
            raise refusal_error(answer, self._refusals, self._secrets())
        return answer

    def _read(self, response: httpx.Response, request: _Request) -> bytes:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.strip().lower() not in {"gzip", "identity", ""}:
            # Nested or stronger compression can expand 64 KiB to gigabytes in one step, before
            # the size is checked below.
            raise MalformedResponse(
                f"{response.url.copy_with(query=None)} sent a body that is compressed twice, or in"
                " an encoding that was not requested"
            )
        chunks, size = [], 0
        for chunk in response.iter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > request.max_bytes:
                raise ResponseTooLarge(
                    f"{response.url.copy_with(query=None)} sent more than {request.limit_text}"
                )
        return b"".join(chunks)

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


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError as error:
            raise ConfigError(
                f"the ca_file {ca_file} contains no certificate in PEM format"
            ) from error
        except OSError as error:
            raise ConfigError(f"the ca_file {ca_file} cannot be read: {error.strerror}") from error
    return context


def _failed_url(error: httpx.HTTPError, request: httpx.Request) -> str:
    """Return the failed URL without its query: the request's, or the token server's."""
    with suppress(RuntimeError):  # raised by httpx if the error has no request
        request = error.request
    return str(request.url.copy_with(query=None))


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
