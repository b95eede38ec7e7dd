"""What SWR is asked with, each kind an `httpx.Auth` that does no IO of its own."""

from collections.abc import Callable, Generator

import httpx

from tagsync.models import Credential, Secret, TokenCredential


class TokenAuth(httpx.Auth):
    """A token of the identity service (IAM), sent as ``X-Auth-Token``."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Marks the request."""
        request.headers["X-Auth-Token"] = self._token.reveal()
        yield request


def of(credential: Credential) -> tuple[httpx.Auth | None, Callable[[], tuple[Secret, ...]]]:
    """The signer of requests for a credential, and the secrets that it uses at the moment."""
    if isinstance(credential, TokenCredential):
        return TokenAuth(credential.token), lambda: (credential.token,)
    return None, tuple
