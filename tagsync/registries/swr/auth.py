"""Choose how requests to SWR are authenticated."""

from tagsync.clock import Clock, utc_now
from tagsync.errors import ConfigError
from tagsync.registries.credentials import (
    AgencyCredential,
    Credential,
    KeyCredential,
    NoCredential,
    PasswordCredential,
    TokenCredential,
)
from tagsync.registries.renewal import RegistryAuth
from tagsync.registries.swr.ecs import AgencyAuth
from tagsync.registries.swr.iam import PasswordAuth, TokenAuth
from tagsync.registries.swr.signing import SigningAuth


def auth_for(credential: Credential, clock: Clock = utc_now) -> RegistryAuth | None:
    """Return the authentication for a credential, or None for anonymous requests.

    Raises:
        ConfigError: If SWR does not accept this kind of credential, or a value in it is invalid.
    """
    match credential:
        case NoCredential():
            return None
        case TokenCredential(token=token):
            return TokenAuth(token)
        case KeyCredential() as keys:
            return SigningAuth(keys, clock)
        case PasswordCredential() as user:
            return PasswordAuth(user, clock)
        case AgencyCredential() as agency:
            return AgencyAuth(agency, clock)
        case _:
            raise ConfigError(
                "SWR's API does not accept the login of a Docker registry: set kind to 'aksk',"
                " 'password', 'token', 'ecs' or 'none' under [registries.auth]"
            )
