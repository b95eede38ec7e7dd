"""Authentication for lists whose API does not take the registry's own tokens."""

import httpx

from tagsync.registries.oci.shared_login import Login, basic_credentials
from tagsync.registries.renewal import FixedAuth
from tagsync.secrets import Secret


class BasicLogin(FixedAuth):
    """A user and a password that are sent with every request (RFC 7617)."""

    def __init__(self, login: Login) -> None:
        """Take a login that has a user's name."""
        self._login = login

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The password, and its encoded form."""
        return self._login.secret, Secret(basic_credentials(self._login))

    def authenticate(self, request: httpx.Request) -> None:
        """Add the user and the password to a request."""
        request.headers["Authorization"] = f"Basic {basic_credentials(self._login)}"


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
