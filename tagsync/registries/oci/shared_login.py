"""A registry's login, shared by all threads and protected against lock-outs."""

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
"""Yields requests and receives their responses, then returns a result."""


class Login(NamedTuple):
    """A user and the password, or an identity token to exchange for tokens (OAuth 2).

    Attributes:
        username: None with an identity token.
        secret: The password, or the identity token.
    """

    username: str | None
    secret: Secret


LoginSource = Callable[[], Login | None]
"""Returns the current login, or None if there is none. Raises ConfigError if it cannot be read."""


def basic_credentials(login: Login) -> str:
    """Return a user and a password as Basic authentication sends them (RFC 7617)."""
    return base64.b64encode(f"{login.username}:{login.secret.reveal()}".encode()).decode()


class SharedLogin:
    """A registry's login, and whether it was accepted when it was last used.

    Registries and their token servers lock an account after a few wrong passwords, and a pass over
    a thousand repositories would try a wrong one a thousand times. Therefore:

    * Until a login has been accepted, one thread at a time uses it.
    * A refusal is repeated for `REPEAT_REFUSAL_FOR` without a request. So is the failure to read
      the login.
    * The first refusal after a success is not repeated, because it may concern one repository only.
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
        """The password or token, and the form in which a password is sent."""
        login = self._login
        if login is None:
            return ()
        if login.username is None:
            return (login.secret,)
        return (login.secret, Secret(basic_credentials(login)))

    def use(self, flow: Callable[[Login | None], LoginFlow[ResultT]]) -> LoginFlow[ResultT]:
        """Run a flow with the login, or with None for an anonymous user.

        Args:
            flow: Sends requests with the login. It raises Unauthorized if the login is refused.

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
            # Store this failure, too: otherwise every repository waits for a helper that hangs.
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
            # Read the login again: a helper may have renewed it since it was read.
            self._accepted, self._read_at = False, None
            raise
        self._accepted, self._refusal = True, None
        return result
