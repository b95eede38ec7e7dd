"""An HTTP client for registries: paced, with retries, deadlines and size limits."""

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
from tagsync.registries.deadline import bounded, within
from tagsync.registries.pacing import Pacer, requests_left, reset_after
from tagsync.registries.responses import Answer, Refusals, refusal_error
from tagsync.secrets import Secret, redact

ATTEMPTS: Final = 6
"""The most times that a request is sent, if its errors are transient."""

_JSON: Final = "application/json"


class Limits(msgspec.Struct, frozen=True):
    """Limits of the requests to one registry.

    Attributes:
        timeout: Seconds for one request, from the first byte sent to the last byte received.
        retry_for: Seconds within which a transient error is retried.
        max_listing_bytes: The most bytes of all response bodies of one listing.
        requests_per_second: The rate of all requests together.
        connections: The most requests at once.
    """

    timeout: float = 30.0
    retry_for: float = 60.0
    max_listing_bytes: int = 256 * 2**20
    requests_per_second: float = 50.0
    connections: int = 8


class _Request(msgspec.Struct, frozen=True):
    """A request, which may be sent several times; attributes as in `Client.get`."""

    method: str
    url: str
    query: Mapping[str, str | int]
    accept: str
    max_bytes: int
    limit_text: str


class _NoCookies(httpx.Cookies):
    """A cookie jar that stays empty: one response must not influence the next request.

    Not looking for cookies also makes small requests a tenth faster.
    """

    def extract_cookies(self, response: httpx.Response) -> None:
        """Ignore the cookies of a response."""


class _Cookieless(httpx.Client):
    """A client without cookies.

    httpx copies the cookies that it is given into a jar of its own, so this replaces the jar.
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
            auth: Adds the credentials to each request.
            refusals: The meaning of answers whose status is not 200.
            limits: Rate, time and size of the requests.
            secrets: Returns the credentials in use, which a server may repeat in an error.
            ca_file: Certificates (PEM) to trust in addition to the usual ones.
            transport: Replaces the network in tests.
            pacer: Replaces the pacer made from the limits in tests.
            monotonic: Seconds of a clock that never goes back.

        Raises:
            ConfigError: If the file of certificates cannot be read, or contains none.
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
                    max_connections=limits.connections,
                    max_keepalive_connections=limits.connections,
                ),
                # A cloud host's metadata, including its keys, must not pass through a proxy.
                mounts={"all://169.254.169.254": None},
                headers={
                    "User-Agent": "tagsync",
                    "Accept-Encoding": "gzip",
                },
                follow_redirects=False,
            )
        )

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
        """Send a GET request, with retries after transient errors.

        Args:
            path: A quoted path to append to the endpoint, or an absolute URL that the registry
                sent. A URL must have the endpoint's scheme, host and port.
            query: The parameters.
            max_bytes: The largest body to accept.
            accept: The media types to accept.
            limit_text: Names ``max_bytes`` in an error. By default the error names
                ``max_listing_size``.

        Raises:
            RegistryError: If an answer does not come, is too large, or has another status than 200.
        """
        if limit_text is None:
            limit_text = f"the {self._limits.max_listing_bytes} bytes that max_listing_size allows"
        request = _Request("GET", self._url(path), query, accept, max_bytes, limit_text)
        return self._send_with_retries(request)

    def head(self, path: str, *, accept: str) -> Answer:
        """Send a HEAD request, whose answer has no body; otherwise like `get`."""
        limit_text = "the response to a HEAD request may have"
        request = _Request("HEAD", self._url(path), {}, accept, 0, limit_text)
        return self._send_with_retries(request)

    def _url(self, path: str) -> str:
        """Return the URL of a request.

        Raises:
            MalformedResponse: If it has another scheme, host or port than the endpoint:
                credentials must not be sent there.
        """
        if path.startswith("/"):
            return self._endpoint + path
        here, there = httpx.URL(self._endpoint), httpx.URL(path)
        same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
        if not same or there.userinfo:
            raise MalformedResponse(
                f"{self._endpoint} names a next page on another host, {there.scheme}://"
                f"{there.host}, to which no request is sent"
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
                    # The registry or its token server throttles; every request needs both.
                    self._pacer.throttled(error.retry_after)
                    raise
                self._pacer.answered()
                self._pause_if_exhausted(answer)
                return msgspec.structs.replace(answer, requests=attempt.num)
        raise AssertionError("stamina ends with a return or an exception")

    def _pause_if_exhausted(self, answer: Answer) -> None:
        """Pause all requests if the server allows no more before a time that it names."""
        seconds = reset_after(answer.headers)
        if requests_left(answer.headers) == 0 and seconds is not None:
            self._pacer.throttled(seconds)

    def _should_retry(self, error: Exception) -> bool | float:
        """Return whether to retry, or after how many seconds if the registry named a time.

        A throttled request is retried at once, because the pacer makes it wait with all others.
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
        # With params= httpx would parse and format the URL twice, which doubles the time for this.
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
            # Nested or denser compression can expand 64 KiB a millionfold before it is counted.
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
                " or name the file of your own CA by ca_file"
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
    """Return the URL that failed: the request's, or that of its token server."""
    with suppress(RuntimeError):  # raised by httpx if the error has no request
        request = error.request
    return str(request.url.copy_with(query=None))


def _is_certificate_error(error: BaseException) -> bool:
    """Return whether TLS failed because of the certificate.

    httpx and httpcore wrap the cause in errors of their own.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
