"""The endpoint for push hints: ``POST /hooks/REGISTRY/SECRET``.

A registry can report that an image was pushed. Such a report makes tagsync poll the repository at
once; it is never recorded, and nothing in it is believed. A sender must know the secret. All that
does not belong to a request with the secret is answered alike, so that an answer says nothing about
which registries are configured.

Neither the path nor a header of a request is logged, because both may contain the secret.
"""

import base64
import binascii
import hmac
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, Final

import msgspec
import structlog

from tagsync.daemon.endpoint import log_bugs, plain_text
from tagsync.daemon.metrics import Application, HintResult, Metrics
from tagsync.daemon.push_senders import Push, read_push
from tagsync.escaping import truncate
from tagsync.secrets import Secret

Hint = Callable[[str, Sequence[str]], Mapping[HintResult, int]]
"""A function that polls repositories of a registry soon; see `Daemon.hint`."""

MAX_BODY: Final = 256 * 1024
"""Maximum size of a body, in bytes."""

RATE: Final = 20.0
"""Requests per second that are read, on average."""

BURST: Final = 200
"""Requests that are read at once if there were none for a while."""

_LOG_INTERVAL: Final = 60.0
"""Seconds between two log lines of the same event."""

_LOGGED_KEYS: Final = 10
"""Maximum number of keys of an unknown body that are logged."""

_PREFIX: Final = "/hooks/"

_USAGE: Final = "POST /hooks/REGISTRY/SECRET"

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class Hooks:
    """The WSGI application that receives push hints. Before `configure` it knows no registry."""

    def __init__(
        self, hint: Hint, metrics: Metrics, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the application.

        Args:
            hint: Polls repositories soon.
            metrics: Counts the hints.
            monotonic: Returns seconds that a change of the system clock does not affect.
        """
        self._secret = Secret("")
        self._registries: Collection[str] = ()
        self._hint = hint
        self._metrics = metrics
        self._requests = _RateLimit(RATE, BURST, monotonic)
        self._lines = _LineLimit(monotonic)

    def configure(self, secret: Secret, registries: Collection[str]) -> None:
        """Set what a reload may change.

        Args:
            secret: A sender has to know it.
            registries: Names of the configured registries.
        """
        for registry in ("", *registries):
            self._metrics.add_hints(registry)
        self._secret, self._registries = secret, registries

    def application(self) -> Application:
        """Return the application, which logs its own bugs."""
        return log_bugs(self._respond)

    def _respond(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        registry = ""
        try:
            body = _read_body(environ)
            registry = self._authorized_registry(environ, body)
            if not self._requests.take():
                raise _Refusal("429 Too Many Requests", "too many requests", "throttled")
            content = _decode(environ, body)
        except _Refusal as refusal:
            return self._refuse(refusal, registry, environ, start_response)
        push = read_push(content, environ.get("HTTP_CE_TYPE"))
        results = self._pass_on(push, registry)
        for result, count in results.items():
            self._metrics.count_hints(registry, result, count)
        if push.sender is None:
            self._log_unknown(registry, content)
        text = ", ".join(f"{result}: {count}" for result, count in results.items())
        log.debug("hook.accepted", registry=registry, sender=push.sender, results=text)
        if push.validation is not None:
            return _answer_validation(push.validation, start_response)
        return plain_text("202 Accepted", text, start_response)

    def _pass_on(self, push: Push, registry: str) -> Mapping[HintResult, int]:
        if push.sender is None:
            return {"unknown": 1}
        if not push.repositories:
            return {"ignored": 1}
        return self._hint(registry, push.repositories)

    def _authorized_registry(self, environ: dict[str, Any], body: bytes) -> str:
        """Return the registry's name if the request proves that its sender knows the secret.

        The name of an unknown registry takes as long as a wrong secret, and has the same answer.

        Raises:
            _Refusal: If the path names no registry, or the proof is missing or wrong.
        """
        secret = self._secret.reveal().encode()
        path = environ["PATH_INFO"]
        registry, _, in_path = path.removeprefix(_PREFIX).partition("/")
        signature = f"sha256={hmac.new(secret, body, 'sha256').hexdigest()}".encode()
        proofs = [(in_path.encode("latin-1"), secret)]
        proofs += [(each, secret) for each in _credentials(environ.get("HTTP_AUTHORIZATION", ""))]
        given = environ.get("HTTP_X_HUB_SIGNATURE_256", "").encode("latin-1")
        proofs.append((given, signature))
        # A list, because a generator would end with the first proof that holds.
        held = [hmac.compare_digest(given, expected) for given, expected in proofs]
        known = path.startswith(_PREFIX) and registry in self._registries
        if not any(held) or not known:
            raise _Refusal("404 Not Found", _USAGE, "unauthorized")
        return str(registry)

    def _refuse(
        self,
        refusal: "_Refusal",
        registry: str,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
    ) -> Iterable[bytes]:
        self._metrics.count_hints(registry, refusal.result)
        if (suppressed := self._lines.take("hook.refused")) is not None:
            log.warning(
                "hook.refused",
                registry=registry or None,
                reason=refusal.result,
                status=refusal.status,
                address=environ.get("REMOTE_ADDR"),
                suppressed=suppressed,
            )
        return plain_text(refusal.status, refusal.text, start_response, *refusal.headers)

    def _log_unknown(self, registry: str, content: object) -> None:
        """Log the keys of an unknown body, once in a while. A value may be a secret."""
        if (suppressed := self._lines.take("hook.unknown")) is None:
            return
        keys = list(content)[:_LOGGED_KEYS] if isinstance(content, dict) else []
        log.warning(
            "hook.unknown",
            registry=registry,
            keys=truncate(", ".join(keys)),
            suppressed=suppressed,
        )


class _Refusal(Exception):
    """A request that is refused, with the answer."""

    def __init__(self, status: str, text: str, result: HintResult = "malformed") -> None:
        super().__init__(status)
        self.status = status
        self.text = text
        self.result = result

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Further headers of the answer."""
        if self.status.startswith("429"):
            return [("Retry-After", "1")]
        return [("Allow", "POST")] if self.status.startswith("405") else []


def _read_body(environ: dict[str, Any]) -> bytes:
    """Read the body, also that of a request that will be refused.

    Otherwise the system would reset the connection, and the sender would not see the answer.

    Raises:
        _Refusal: If the method is wrong, or the body is too large, incomplete or late.
    """
    if environ["REQUEST_METHOD"] != "POST":
        raise _Refusal("405 Method Not Allowed", _USAGE)
    length = environ.get("CONTENT_LENGTH", "")
    if not length.isascii() or not length.isdigit():
        raise _Refusal("411 Length Required", "send the header Content-Length")
    size = int(length[:20])
    try:
        if size > MAX_BODY:
            environ["wsgi.input"].read(min(size, 4 * MAX_BODY))
            raise _Refusal("413 Content Too Large", f"at most {MAX_BODY} bytes")
        body: bytes = environ["wsgi.input"].read(size)
    except TimeoutError:
        raise _Refusal("408 Request Timeout", "the body did not arrive in time") from None
    except OSError:
        body = b""
    if len(body) != size:
        raise _Refusal("400 Bad Request", "the body is incomplete")
    return body


def _decode(environ: dict[str, Any], body: bytes) -> object:
    """Return the JSON of a body.

    Raises:
        _Refusal: If the body is not JSON, or the header does not say so.
    """
    media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise _Refusal("415 Unsupported Media Type", "send application/json")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise _Refusal("400 Bad Request", "the body is not JSON") from None


def _credentials(header: str) -> Iterator[bytes]:
    """Yield what may be the secret in a header ``Authorization``.

    This is the whole value, what follows ``Bearer``, and the password of ``Basic``.
    """
    yield header.encode("latin-1")
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        yield value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            yield base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return


def _answer_validation(code: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer the request by which Azure's Event Grid asks whether events are wanted."""
    body = msgspec.json.encode({"validationResponse": code})
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    )
    return [body]


class _RateLimit:
    """A token bucket. Any thread may use it."""

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = burst
        self._at = monotonic()
        self._lock = Lock()

    def take(self) -> bool:
        """Return whether there is a token, and take it."""
        with self._lock:
            now = self._monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class _LineLimit:
    """Limits how often each event is logged. Any thread may use it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._logged_at: dict[str, float] = {}
        self._suppressed: Counter[str] = Counter()
        self._lock = Lock()

    def take(self, event: str) -> int | None:
        """Return the number of suppressed lines since the last one, or None to log nothing."""
        with self._lock:
            now = self._monotonic()
            before = self._logged_at.get(event)
            if before is not None and now - before < _LOG_INTERVAL:
                self._suppressed[event] += 1
                return None
            self._logged_at[event] = now
            return self._suppressed.pop(event, 0)
