"""Authentication for lists whose API does not take the registry's own tokens."""

from collections.abc import Callable

import httpx

from tagsync.registries.oci.shared_login import Login, basic_credentials
from tagsync.registries.renewal import FixedAuth
from tagsync.secrets import Secret


class BasicLogin(FixedAuth):
    """A user and a password that are sent with every request (RFC 7617).

    Without a login, or if it is a token, requests are anonymous.
    """

    def __init__(self, login: Callable[[], Login | None]) -> None:
        """Take the function that returns the current login."""
        self._login = login
        self._used: Login | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is a user and a password.

        Raises:
            Unauthorized: If the login cannot be read.
        """
        return self._current() is not None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The password that was sent last, and its encoded form. None before the first request."""
        if (login := self._used) is None:
            return ()
        return login.secret, Secret(basic_credentials(login))

    def authenticate(self, request: httpx.Request) -> None:
        """Add the user and the password to a request."""
        if (login := self._current()) is not None:
            self._used = login
            request.headers["Authorization"] = f"Basic {basic_credentials(login)}"

    def _current(self) -> Login | None:
        login = self._login()
        return None if login is None or login.username is None else login


class TokenLogin(FixedAuth):
    """A token that is sent with every request (RFC 6750)."""

    def __init__(self, token: Secret) -> None:
        """Take the token."""
        self._token = token

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The token."""
        return (self._token,)

    def authenticate(self, request: httpx.Request) -> None:
        """Add the token to a request."""
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
