"""Logins, shared by all threads."""

import base64
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from threading import Lock
from typing import Final, TypeVar

import httpx

from tagsync.clock import Clock
from tagsync.errors import ConfigError, Unauthorized
from tagsync.registries.oci.docker_login import Login, Logins
from tagsync.registries.renewal import (
    REFUSAL_STANDS,
    Failure,
    copy_of,
)
from tagsync.secrets import Secret

LOGIN_KEPT_FOR: Final = timedelta(minutes=10)
"""For how long Docker's configuration and its helpers are not asked again."""

_AnswerT = TypeVar("_AnswerT")

_Asking = Generator[httpx.Request, httpx.Response, _AnswerT]


class _SharedLogin:
    """A registry's login, and whether it was accepted when it was last used.

    Registries and those who give tokens for them lock an account after a few wrong passwords, and
    a pass over a thousand repositories would try a thousand times. So a login that is not known to
    be good is used by one thread at a time, and a refusal stands for `REFUSAL_STANDS`, as does that
    there is none to be had. One that was
    good just before may have met a repository that is closed to it: only a second refusal in a row
    stands.
    """

    def __init__(self, logins: Logins, clock: Clock) -> None:
        self._logins = logins
        self._clock = clock
        self._lock = Lock()
        self._login: Login | None = None
        self._read_at: datetime | None = None
        self._accepted = False
        self._refusal: Failure | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secret, and the form in which it is sent."""
        login = self._login
        if login is None:
            return ()
        return (login.secret, *(() if login.username is None else (Secret(basic_of(login)),)))

    def using(self, ask: Callable[[Login | None], _Asking[_AnswerT]]) -> _Asking[_AnswerT]:
        """Asks with the login.

        Raises:
            Unauthorized: it was refused, now or before, or cannot be had.
        """
        if self._accepted and self._is_fresh():
            return (yield from self._ask(ask, self._login))
        with self._lock:
            self._repeat_refusal()
            if not self._is_fresh():
                self._read()
            if self._login is not None:
                return (yield from self._ask(ask, self._login))
        return (yield from ask(None))

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock() - self._read_at < LOGIN_KEPT_FOR

    def _read(self) -> None:
        try:
            self._login = self._logins()
        except ConfigError as error:
            # A helper that hangs would let every repository wait for it, one after the other.
            self._refusal = Failure(Unauthorized(str(error)), self._clock())
            raise Unauthorized(str(error)) from error
        self._read_at = self._clock()

    def _repeat_refusal(self) -> None:
        if (refusal := self._refusal) and abs(self._clock() - refusal.at) < REFUSAL_STANDS:
            raise copy_of(refusal.error)

    def _ask(
        self, ask: Callable[[Login | None], _Asking[_AnswerT]], login: Login | None
    ) -> _Asking[_AnswerT]:
        try:
            answer = yield from ask(login)
        except Unauthorized as error:
            if not self._accepted:
                self._refusal = Failure(copy_of(error), self._clock())
            # What a helper gives may have been renewed since it was asked.
            self._accepted, self._read_at = False, None
            raise
        self._accepted, self._refusal = True, None
        return answer


def basic_of(login: Login) -> str:
    """A user and a password as they are sent (RFC 7617, in UTF-8)."""
    return base64.b64encode(f"{login.username}:{login.secret.reveal()}".encode()).decode()
