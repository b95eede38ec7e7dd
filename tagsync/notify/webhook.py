"""Webhooks: CloudEvents by POST, signed, without redirects."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

import httpx
import msgspec

from tagsync.clock import Clock, utc_now
from tagsync.errors import ConfigError, NotDelivered
from tagsync.notify.messages import CLOUD_EVENT, CLOUD_EVENT_BATCH, Message, cloud_events
from tagsync.notify.sender import one_line
from tagsync.notify.signatures import decode_key, signed_headers
from tagsync.notify.targets import Rule, WebhookTarget
from tagsync.registries.deadline import bounded, within
from tagsync.registries.hosts import is_host, is_loopback
from tagsync.registries.pacing import retry_after
from tagsync.registries.proxies import ProxyTransport
from tagsync.registries.tls import DEFAULT_TRUST
from tagsync.secrets import Secret, redact

_MAX_ANSWER_BYTES: Final = 8192
"""How much of an answer is read. The connection is closed after a longer one."""

_LEAST_SECRET: Final = 6
"""A shorter part of a URL's path or query is also an ordinary word of answers."""

_GONE: Final = 410
_WITH_RETRY_AFTER: Final = frozenset({429, 503})


class WebhookSender:
    """Sends messages to the URL of a rule."""

    sums_up = False

    def __init__(
        self,
        rule: Rule,
        target: WebhookTarget,
        *,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the connections. None is opened yet.

        Raises:
            ConfigError: If the URL, the signing key, or the proxy for the URL is wrong.
        """
        self._rule: Final = rule
        self._url: Final = webhook_url(target.url)
        self._origin: Final = f"{self._url.scheme}://{self._url.netloc.decode()}"
        self._key: Final = None if target.signing_key is None else decode_key(target.signing_key)
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        context = DEFAULT_TRUST.context()
        self._transport: Final = ProxyTransport(
            lambda proxy: bounded(httpx.HTTPTransport(verify=context, proxy=proxy, trust_env=False))
        )
        self._transport.check(self._url)

    def send(self, message: Message, seconds: float) -> str:
        """Send a message; see `tagsync.notify.sender.Sender`."""
        events = cloud_events(self._rule, message)
        is_single = len(events) == 1
        body = msgspec.json.encode(events[0] if is_single else events)
        request = httpx.Request(
            "POST",
            self._url,
            headers={
                "Content-Type": CLOUD_EVENT if is_single else CLOUD_EVENT_BATCH,
                "User-Agent": "tagsync",
                "Accept-Encoding": "identity",
                **signed_headers(self._key, message.id, self._clock(), body),
            },
            content=body,
            extensions={"timeout": httpx.Timeout(seconds).as_dict()},
        )
        # The transport itself follows no redirect, stores no cookie and sends no credential.
        with (
            self._translated_errors(seconds),
            within(seconds, self._monotonic),
            closing(self._transport.handle_request(request)) as response,
        ):
            answer = self._read(response)
        return self._check(response, answer)

    def stop(self) -> None:
        """Do nothing: a request ends by its timeout, and its message is sent again."""

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @contextmanager
    def _translated_errors(self, seconds: float) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise NotDelivered(f"{self._origin} did not answer within {seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = self._redact(str(error)) or type(error).__name__
            raise NotDelivered(f"{self._origin} could not be reached: {reason}") from error

    def _read(self, response: httpx.Response) -> str:
        """Return the beginning of a body. An error does not undo an acceptance."""
        assert isinstance(response.stream, httpx.SyncByteStream), "the transport is synchronous"  # noqa: S101  tells the type checker
        body = b""
        try:
            for chunk in response.stream:
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    break
        except httpx.HTTPError:
            if not response.is_success:
                raise
        return self._redact(body.decode("utf-8", "replace"))

    def _check(self, response: httpx.Response, answer: str) -> str:
        """Return what the receiver answered.

        Raises:
            NotDelivered: If it is not a success.
        """
        status = response.status_code
        if response.is_success:
            return f"status {status}" + (f": {answer}" if answer else "")
        if 300 <= status < 400:  # noqa: PLR2004  redirects
            raise NotDelivered(
                f"{self._origin} answered with a redirect (status {status}), which tagsync does not"
                " follow: set url to the final address"
            )
        if status == _GONE:
            raise NotDelivered(
                f"{self._origin} answered that the receiver no longer exists (status {status}):"
                " correct url, or remove the destination"
            )
        wait = None
        if status in _WITH_RETRY_AFTER:
            wait = retry_after(response.headers, self._clock)
        shown = f": {answer}" if answer else ""
        raise NotDelivered(f"{self._origin} answered with status {status}{shown}", retry_after=wait)

    def _redact(self, text: str) -> str:
        """Return a receiver's text on one line, without the parts of the URL."""
        parts = [self._url.raw_path.decode("ascii", "replace"), *self._url.params.values()]
        parts += self._url.path.split("/")
        # `redact` knows all secrets that exist. These exist only here, because a part of a path
        # may be an ordinary word elsewhere.
        secrets = [Secret(part) for part in parts if len(part) >= _LEAST_SECRET]
        # A secret may be cut off at the end, so the second half is dropped afterwards.
        return one_line(redact(text[:_MAX_ANSWER_BYTES], secrets)[: _MAX_ANSWER_BYTES // 2])


def webhook_url(secret: Secret) -> httpx.URL:
    """Return the URL of a webhook.

    Raises:
        ConfigError: If it is not https, or http to this machine, or contains a password. The error
            does not quote it.
    """
    try:
        url = httpx.URL(secret.reveal())
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"https", "http"} or "%" in url.host or not is_host(url.host):
        raise ConfigError("url is not the address of a webhook: write https://HOST/PATH")
    if url.userinfo:
        raise ConfigError(
            "url contains a user name or a password, which proxies and logs of the receiver would"
            " show: remove it, and check the signature of each message instead"
        )
    if url.scheme == "http" and not is_loopback(url.host):
        raise ConfigError(
            "url is http:// to another host, which would send messages in the clear: use https://"
        )
    return url
