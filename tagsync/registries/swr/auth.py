"""The authentication of SWR requests."""

from tagsync.clock import Clock, utc_now
from tagsync.errors import (
    ConfigError,
)
from tagsync.registries.credentials import (
    AgencyCredential,
    BasicCredential,
    Credential,
    DockerCredential,
    KeyCredential,
    NoCredential,
    PasswordCredential,
    TokenCredential,
)
from tagsync.registries.renewal import RegistryAuth
from tagsync.registries.swr.ecs import AgencyAuth
from tagsync.registries.swr.iam import PasswordAuth, TokenAuth
from tagsync.registries.swr.signing import SigningAuth


def of(credential: Credential, clock: Clock = utc_now) -> RegistryAuth | None:
    """What signs or marks the requests for a credential; null where nobody is asked.

    Raises:
        ConfigError: the credential is for another kind of registry, or cannot be sent.
    """
    match credential:
        case NoCredential():
            return None
        case TokenCredential(token=token):
            return TokenAuth(token)
        case KeyCredential(access_key, secret_key, security_token, project_id):
            return SigningAuth(
                access_key.reveal(),
                secret_key,
                security_token=security_token,
                project_id=project_id,
                clock=clock,
            )
        case PasswordCredential(endpoint, username, password, domain, project):
            return PasswordAuth(endpoint, username, password, domain, project, clock=clock)
        case AgencyCredential(endpoint):
            return AgencyAuth(metadata_endpoint=endpoint, clock=clock)
        case BasicCredential() | DockerCredential():
            raise ConfigError("SWR's API takes no user and password of a Docker registry")
