"""HTTP as tagsync asks it of any registry: paced, bounded, and its failures made errors."""

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
    Busy,
    ConfigError,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    Unreachable,
    Untrusted,
)
from tagsync.registries.deadline import bounded, within
from tagsync.registries.pacing import Pacer, _reset_after, requests_left, retry_after
from tagsync.secrets import Secret, redact

ATTEMPTS: Final = 6
"""How often a request that fails in passing is sent at most."""

_JSON: Final = "application/json"


class Answer(msgspec.Struct, frozen=True):
    """One answer, its body read to the end and decompressed.

    Attributes:
        requests: how many were sent until this answer came.
    """

    url: str
    status: int
    headers: httpx.Headers
    body: bytes
    requests: int = 1

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, if the server named them."""
        return retry_after(self.headers)


class Limits(msgspec.Struct, frozen=True):
    """What one registry may cost.

    Attributes:
        timeout: seconds for one request, from its first byte sent to the last one read.
        retry_for: seconds within which a request that fails in passing is tried again.
        max_listing_bytes: how large all bodies of one listing together may be.
        requests_per_second: the rate of all its requests together.
        connections: how many requests may be under way at once.
    """

    timeout: float = 30.0
    retry_for: float = 60.0
    max_listing_bytes: int = 256 * 2**20
    requests_per_second: float = 50.0
    connections: int = 8


class _Request(msgspec.Struct, frozen=True):
    """What is asked, however often; attributes as `Client.get`."""

    method: str
    url: str
    query: Mapping[str, str | int]
    accept: str
    max_bytes: int
    bound: str


class _NoCookies(httpx.Cookies):
    """Keeps no cookie: what one answer says must not steer the next request.

    That none is looked for takes a tenth off the time that a small answer needs.
    """

    def extract_cookies(self, response: httpx.Response) -> None:
        """Keeps none."""


class _Cookieless(httpx.Client):
    """httpx's client, which would put the cookies that it is given into a jar of its own."""

    cookies = _NoCookies()  # type: ignore[override]  # httpx allows to set it, nobody here does


class Client:
    """One registry's HTTP.

    Certificates are always verified, redirects never followed: credentials go to the configured
    host alone. No cookie is kept.
    """

    def __init__(
        self,
        endpoint: str,
        auth: httpx.Auth | None,
        refusal: Callable[[Answer], RegistryError],
        limits: Limits,
        *,
        secrets: Callable[[], tuple[Secret, ...]] = tuple,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
        pacer: Pacer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens no connection yet.

        Args:
            endpoint: the URL that paths are appended to.
            auth: signs or marks each request.
            refusal: makes an error of an answer whose status is not 200.
            limits: what the registry may cost.
            secrets: the credentials now in use, which a server might echo in an error.
            ca_file: certificates (PEM) to trust beside the usual ones.
            transport: replaces the network, for tests.
            pacer: replaces the one made from the limits, for tests.
            monotonic: seconds of a clock that never goes back.

        Raises:
            ConfigError: the file of certificates cannot be read, or holds none.
        """
        self._endpoint = endpoint.rstrip("/")
        self._auth = auth
        self._refusal = refusal
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
                # What a cloud host says of itself, its keys among it, is no business of a proxy.
                mounts={"all://169.254.169.254": None},
                headers={
                    "User-Agent": "tagsync",
                    "Accept-Encoding": "gzip",
                },
                follow_redirects=False,
            )
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def get(
        self,
        path: str,
        query: Mapping[str, str | int],
        max_bytes: int,
        *,
        accept: str = _JSON,
        bound: str | None = None,
    ) -> Answer:
        """Asks until there is an answer, for as long as what fails may pass by itself.

        Args:
            path: after the endpoint, already quoted; or a whole URL that the registry itself named
                and that has to be of the endpoint's scheme and host.
            query: parameters.
            max_bytes: how large the body may be.
            accept: the media types that are understood.
            bound: how a sentence calls ``max_bytes`` where it is not what is left of a listing's.

        Raises:
            RegistryError: no answer, one that is too large, or a refusal.
        """
        bound = bound or f"the {self._limits.max_listing_bytes} bytes that max_listing_size allows"
        return self._ask(_Request("GET", self._url(path), query, accept, max_bytes, bound))

    def head(self, path: str, *, accept: str) -> Answer:
        """As `get`, for what the headers say alone."""
        return self._ask(_Request("HEAD", self._url(path), {}, accept, 0, "an answer to HEAD has"))

    def _url(self, path: str) -> str:
        """The URL to ask.

        Raises:
            MalformedResponse: it is of another scheme or host, which credentials must not reach.
        """
        if path.startswith("/"):
            return self._endpoint + path
        here, there = httpx.URL(self._endpoint), httpx.URL(path)
        same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
        if not same or there.userinfo:
            raise MalformedResponse(
                f"{self._endpoint} points to another host for what follows, {there.scheme}://"
                f"{there.host}, which is not asked"
            )
        return path

    def _ask(self, request: "_Request") -> Answer:
        for attempt in stamina.retry_context(
            on=self._may_pass,
            attempts=ATTEMPTS,
            timeout=self._limits.retry_for,
            wait_initial=min(0.2, self._limits.retry_for),
            wait_max=min(5.0, self._limits.retry_for),
        ):
            with attempt:
                self._pacer.wait(self._limits.retry_for)
                try:
                    answer = self._send(request)
                except Throttled as error:
                    # By the registry or by the sign-in, which every request would ask for again.
                    self._pacer.throttled(error.retry_after)
                    raise
                self._pacer.answered()
                self._rest_if_spent(answer)
                return msgspec.structs.replace(answer, requests=attempt.num)
        raise AssertionError("stamina ends with a return or an exception")

    def _rest_if_spent(self, answer: Answer) -> None:
        """Asks nothing more before the time at which a server that allows no more allows more."""
        rest = _reset_after(answer.headers)
        if requests_left(answer.headers) == 0 and rest is not None:
            self._pacer.throttled(rest)

    def _may_pass(self, error: Exception) -> bool | float:
        """Whether to try again, and if the registry named a time, after how many seconds.

        A throttled request waits at the pacer, together with all the others.
        """
        if not isinstance(error, RegistryError) or not error.transient:
            return False
        if (error.retry_after or 0.0) > self._limits.retry_for:
            return False
        if isinstance(error, Throttled):
            return 0.0
        return True if error.retry_after is None else error.retry_after

    def _send(self, asked: "_Request") -> Answer:
        url, headers = asked.url, {"Accept": asked.accept}
        # With params= httpx would parse and write the URL twice: 112 µs instead of 57 a request.
        whole = f"{url}?{urlencode(asked.query)}" if asked.query else url
        request = self._client.build_request(asked.method, whole, headers=headers)
        try:
            with within(self._limits.timeout, self._monotonic):
                response = self._client.send(request, auth=self._auth, stream=True)
                try:
                    body = self._read(response, asked)
                finally:
                    response.close()
        except httpx.DecodingError as error:
            raise MalformedResponse(f"{url} sent a body that cannot be decompressed") from error
        except httpx.HTTPError as error:
            raise self._no_answer(_asked(error, request), error) from error
        answer = Answer(url, response.status_code, response.headers, body)
        if answer.status != httpx.codes.OK:
            raise self._refusal(answer)
        return answer

    def _read(self, response: httpx.Response, asked: "_Request") -> bytes:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.strip().lower() not in {"gzip", "identity", ""}:
            # Two layers, or a denser kind, may multiply 64 KiB a millionfold before it is counted.
            raise MalformedResponse(
                f"{response.url.copy_with(query=None)} sent a body that is compressed twice, or in"
                " a way that was not asked for"
            )
        chunks, size = [], 0
        for chunk in response.iter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > asked.max_bytes:
                raise ResponseTooLarge(
                    f"{response.url.copy_with(query=None)} sent more than {asked.bound}"
                )
        return b"".join(chunks)

    def _no_answer(self, url: str, error: httpx.HTTPError) -> RegistryError:
        reason = redact(str(error), self._secrets()) or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            return Unreachable(f"{url} did not finish its answer within {self._limits.timeout:g} s")
        if _is_about_certificates(error):
            return Untrusted(
                f"{url} showed a certificate that is not trusted ({reason}): check the host; the"
                " file of a CA of your own is named by ca_file"
            )
        if isinstance(error, httpx.ConnectError):
            return Unreachable(
                f"{url} could not be reached ({reason}): check the host's name, and the network"
            )
        return Unreachable(f"the connection to {url} broke: {reason}")


def kind_of_passing(status: int) -> type[Busy] | None:
    """The error of a status that means "later" with every registry, or null."""
    later = status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.CONFLICT
    return Busy if later else None


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError as error:
            raise ConfigError(f"the ca_file {ca_file} holds no certificate in PEM form") from error
        except OSError as error:
            raise ConfigError(f"the ca_file {ca_file} cannot be read: {error.strerror}") from error
    return context


def _asked(error: httpx.HTTPError, request: httpx.Request) -> str:
    """The URL that failed: a sign-in goes to another host, and fails in its own name."""
    with suppress(RuntimeError):  # httpx's word for an error that knows no request
        request = error.request
    return str(request.url.copy_with(query=None))


def _is_about_certificates(error: BaseException) -> bool:
    """Whether TLS failed for want of trust, which httpx and httpcore wrap in their own errors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
