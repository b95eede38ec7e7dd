"""A registry's login, shared by all threads, which avoids account lock-outs."""

import base64
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from threading import Lock
from typing import Final, NamedTuple, TypeVar

import httpx

from tagsync.clock import Clock
from tagsync.errors import ConfigError, Unauthorized
from tagsync.registries.renewal import REPEAT_REFUSAL_FOR, Failure, without_traceback
from tagsync.secrets import Secret

LOGIN_CACHED_FOR: Final = timedelta(minutes=10)
"""How long a login from Docker's configuration or a credential helper is used before it is read
again."""

ResultT = TypeVar("ResultT")

LoginFlow = Generator[httpx.Request, httpx.Response, ResultT]
"""A generator that yields requests, receives the response to each, and returns a result."""


class Login(NamedTuple):
    """A user and a password, or an identity token to exchange for tokens (OAuth 2).

    Attributes:
        username: The user's name. None if the secret is an identity token.
        secret: The password, or the identity token.
    """

    username: str | None
    secret: Secret


LoginSource = Callable[[], Login | None]
"""Returns the current login, or None if there is none. Raises ConfigError if it cannot be read."""


def basic_credentials(login: Login) -> str:
    """Return a user and a password in the form of Basic authentication (RFC 7617)."""
    return base64.b64encode(f"{login.username}:{login.secret.reveal()}".encode()).decode()


class SharedLogin:
    """A registry's login, and whether it was accepted when it was last used.

    Registries and their token servers lock an account after a few wrong passwords, and a pass over
    a thousand repositories would send a wrong password a thousand times. Therefore:

    * Until a login has been accepted, only one thread at a time uses it.
    * For `REPEAT_REFUSAL_FOR` after a refusal, the same error is raised again and no request is
      sent. The same applies if the login cannot be read.
    * The first refusal after a success does not stop further attempts, because it may concern only
      one repository.
    """

    def __init__(self, source: LoginSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._lock = Lock()
        self._login: Login | None = None
        self._read_at: datetime | None = None
        self._accepted = False
        self._refusal: Failure | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The password or identity token, and the encoded form of a password."""
        login = self._login
        if login is None:
            return ()
        if login.username is None:
            return (login.secret,)
        return (login.secret, Secret(basic_credentials(login)))

    def use(self, flow: Callable[[Login | None], LoginFlow[ResultT]]) -> LoginFlow[ResultT]:
        """Run a flow with the login, or with None for an anonymous user.

        Args:
            flow: Sends requests with the login. Raises Unauthorized if the login is refused.

        Raises:
            Unauthorized: If the login was refused, now or recently, or cannot be read.
        """
        if self._accepted and self._is_fresh():
            return (yield from self._run(flow, self._login))
        with self._lock:
            self._repeat_refusal()
            if not self._is_fresh():
                self._read()
            if self._login is not None:
                return (yield from self._run(flow, self._login))
        return (yield from flow(None))

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock() - self._read_at < LOGIN_CACHED_FOR

    def _read(self) -> None:
        try:
            self._login = self._source()
        except ConfigError as error:
            # Store this failure, too: otherwise each repository would wait for a helper that hangs.
            self._refusal = Failure(Unauthorized(str(error)), self._clock())
            raise Unauthorized(str(error)) from error
        self._read_at = self._clock()

    def _repeat_refusal(self) -> None:
        refusal = self._refusal
        if refusal and abs(self._clock() - refusal.at) < REPEAT_REFUSAL_FOR:
            raise without_traceback(refusal.error)

    def _run(
        self, flow: Callable[[Login | None], LoginFlow[ResultT]], login: Login | None
    ) -> LoginFlow[ResultT]:
        try:
            result = yield from flow(login)
        except Unauthorized as error:
            if not self._accepted:
                self._refusal = Failure(without_traceback(error), self._clock())
            # The next use reads the login again, because a helper may have renewed it meanwhile.
            self._accepted, self._read_at = False, None
            raise
        self._accepted, self._refusal = True, None
        return result
