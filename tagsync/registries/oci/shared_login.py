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

MAX_REFUSALS: Final = 4
"""How often a login may be refused in a row before it counts as wrong for all repositories.

Servers lock an account after five or more wrong passwords."""

_MAX_REPOSITORIES: Final = 1024
"""Maximum number of repositories that are remembered as accepted, and as refused."""

ResultT = TypeVar("ResultT")

LoginFlow = Generator[httpx.Request, httpx.Response, ResultT]
"""A generator that yields requests, receives the response to each, and returns a result."""


class Login(NamedTuple):
    """A user and a password, or a token.

    Attributes:
        username: The user's name. None if the secret is a token.
        secret: The password or the token.
        is_bearer: True for a token that the registry itself accepts. False for an identity token,
            which a token server exchanges for other tokens (OAuth 2).
    """

    username: str | None
    secret: Secret
    is_bearer: bool = False


LoginSource = Callable[[], Login | None]
"""Returns the current login, or None if there is none. Raises ConfigError if it cannot be read."""

Probe = Callable[[Login], LoginFlow[bool | None]]
"""Asks a server whether it accepts a login, whatever the repository.

The result is True if the server accepts it, False if it refuses it, and None if the server's
response does not tell."""


def basic_credentials(login: Login) -> str:
    """Return a user and a password in the form of Basic authentication (RFC 7617)."""
    return base64.b64encode(f"{login.username}:{login.secret.reveal()}".encode()).decode()


class SharedLogin:
    """A registry's login, and whether it was accepted when it was last used.

    A server may refuse a login for one repository only, with the same response as for a wrong
    password. This must not stop the polls of the other repositories. On the other hand, a pass over
    a thousand repositories must not send a wrong password a thousand times, because servers lock an
    account after a few. Therefore:

    * Until a login has been accepted, only one thread at a time uses it.
    * After the first refusal tagsync checks the login itself, if the server allows that.
    * For `REPEAT_REFUSAL_FOR` after a refusal, the same error is raised again for this repository.
    * After `MAX_REFUSALS` in a row the error is raised for all repositories. After the pause, one
      repository may use the login, and those that were refused last come last.
    * While a login is accepted, a refusal counts only for a repository that was accepted before.
    * If the login cannot be read, this error is raised for all repositories.
    """

    def __init__(self, source: LoginSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._lock = Lock()
        self._login: Login | None = None
        self._read_at: datetime | None = None
        self._is_accepted = False
        self._accepted: dict[str, None] = {}
        self._refused: dict[str, Failure] = {}
        self._refusals = 0
        self._refusal: Failure | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The password or token, and the encoded form of a password."""
        login = self._login
        if login is None:
            return ()
        if login.username is None:
            return (login.secret,)
        return (login.secret, Secret(basic_credentials(login)))

    def current(self) -> Login | None:
        """Return the login, or None if there is none. Read it first if necessary.

        Raises:
            Unauthorized: If the login cannot be read.
        """
        if not self._is_fresh():
            with self._lock:
                if self._login is None:
                    self._repeat_refusal()
                if not self._is_fresh():
                    self._read()
        return self._login

    def use(
        self, repository: str, flow: Callable[[Login | None], LoginFlow[ResultT]], probe: Probe
    ) -> LoginFlow[ResultT]:
        """Run a flow with the login, or with None for an anonymous user.

        Args:
            repository: The repository that the flow is for.
            flow: Sends requests with the login. Raises Unauthorized if the login is refused.
            probe: Asks the server about the login itself after a refusal.

        Raises:
            Unauthorized: If the login was refused, now or recently, or cannot be read.
        """
        if self._is_accepted and self._is_fresh() and repository not in self._refused:
            return (yield from self._run(repository, flow, probe))
        with self._lock:
            self._repeat_refusal()
            if not self._is_fresh():
                self._read()
            self._repeat_refusal_of(repository)
            if self._login is not None:
                return (yield from self._run(repository, flow, probe))
        return (yield from flow(None))

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock() - self._read_at < LOGIN_CACHED_FOR

    def _read(self) -> None:
        before = self._login
        try:
            self._login = self._source()
        except ConfigError as error:
            # Store this failure, too: otherwise each repository would wait for a helper that hangs.
            self._refusal = Failure(Unauthorized(str(error)), self._clock())
            raise Unauthorized(str(error)) from error
        self._read_at = self._clock()
        if self._login != before:
            self._refusals, self._refusal = 0, None
            self._refused.clear()

    def _repeat_refusal(self) -> None:
        refusal = self._refusal
        if refusal and abs(self._clock() - refusal.at) < REPEAT_REFUSAL_FOR:
            raise without_traceback(refusal.error)

    def _repeat_refusal_of(self, repository: str) -> None:
        refusal = self._refused.get(repository)
        if refusal is None:
            return
        # If the login itself may be wrong, the other repositories try it first.
        pauses = 2 if self._refusals >= MAX_REFUSALS and len(self._refused) > 1 else 1
        if abs(self._clock() - refusal.at) < pauses * REPEAT_REFUSAL_FOR:
            raise without_traceback(refusal.error)
        self._refused.pop(repository, None)

    def _run(
        self,
        repository: str,
        flow: Callable[[Login | None], LoginFlow[ResultT]],
        probe: Probe,
    ) -> LoginFlow[ResultT]:
        login = self._login
        try:
            result = yield from flow(login)
        except Unauthorized as error:
            failure = Failure(without_traceback(error), self._clock())
            _remember(self._refused, repository, failure)
            if login is not None and self._counts(repository):
                yield from self._count(failure, login, probe)
            raise
        _remember(self._accepted, repository, None)
        self._refused.pop(repository, None)
        self._note_accepted()
        return result

    def _counts(self, repository: str) -> bool:
        """Return whether a refusal for this repository raises doubts about the login itself."""
        was_accepted = repository in self._accepted
        self._accepted.pop(repository, None)
        return was_accepted or not self._is_accepted

    def _count(self, failure: Failure, login: Login, probe: Probe) -> LoginFlow[None]:
        is_accepted: bool | None = None
        if self._refusals == 0:
            # If the connection breaks now, httpx closes this generator, and this refusal counts.
            self._refusals = 1
            self._is_accepted = False
            is_accepted = yield from probe(login)
        if is_accepted:
            self._note_accepted()
            return
        self._refusals = MAX_REFUSALS if is_accepted is False else self._refusals + 1
        if self._refusals >= MAX_REFUSALS:
            self._refusal = failure
        # The next use reads the login again, because a helper may have renewed it meanwhile.
        self._is_accepted, self._read_at = False, None

    def _note_accepted(self) -> None:
        self._is_accepted, self._refusals, self._refusal = True, 0, None


def _remember(repositories: "dict[str, ResultT]", repository: str, value: ResultT) -> None:
    """Set a value, and drop the oldest ones so that memory does not grow."""
    repositories[repository] = value
    while len(repositories) > _MAX_REPOSITORIES:
        repositories.pop(next(iter(repositories)), None)
