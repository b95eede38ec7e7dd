"""Credentials: one struct for each way to log in to a registry.

Each struct is used twice. As a table ``[registries.auth]`` of the configuration file, its
attributes are the keys, and a secret is a `SecretName`: the place where the secret is stored. As a
credential, it holds the `Secret` itself. The type of secrets is therefore a type parameter.
"""

from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from tagsync.secrets import Secret

METADATA_ENDPOINT: Final = "http://169.254.169.254"
"""The metadata service of a cloud host, reachable only from the host itself."""

SecretT = TypeVar("SecretT")
"""`Secret` in a credential, `SecretName` in a table of the configuration file."""


class BaseCredential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """The base class. The tag of a subclass is its value of the key ``kind``."""


class NoCredential(BaseCredential, Generic[SecretT], frozen=True, tag="none"):
    """No authentication: requests are sent anonymously.

    Attributes:
        list_token: A token for the registry's own lists, which its API wants instead of the login
            (Quay, GitLab). All kinds for OCI registries have it. None sends the login, or nothing.
    """

    list_token: SecretT | None = None


class TokenCredential(BaseCredential, Generic[SecretT], frozen=True, tag="token"):
    """A token that another program renews.

    For SWR it is a token of the vendor's identity service (IAM). For an OCI registry it is a bearer
    token that the registry itself accepts.
    """

    token: SecretT
    list_token: SecretT | None = None


class KeyCredential(BaseCredential, Generic[SecretT], frozen=True, tag="aksk"):
    """An access key (AK/SK); a temporary one has a security token.

    Attributes:
        security_token: None for a permanent access key.
        project_id: The project's id, sent as ``X-Project-Id``. None sends no such header.
    """

    access_key: SecretT
    secret_key: SecretT
    security_token: SecretT | None = None
    project_id: str | None = None


class PasswordCredential(BaseCredential, Generic[SecretT], frozen=True, tag="password"):
    """A user of the vendor's identity service (IAM).

    Attributes:
        iam_endpoint: URL of the identity service, without a path.
        domain: Name of the account that the user belongs to.
        project: Name of the project to sign in to, usually the region's.
    """

    iam_endpoint: str
    username: str
    password: SecretT
    domain: str
    project: str


class AgencyCredential(BaseCredential, frozen=True, tag="ecs"):
    """The agency of the cloud host that runs tagsync: a role with temporary keys.

    Attributes:
        metadata_endpoint: URL of the host's metadata service, without a path.
    """

    metadata_endpoint: str = METADATA_ENDPOINT


class BasicCredential(BaseCredential, Generic[SecretT], frozen=True, tag="basic"):
    """A user of an OCI registry, or of the token server that the registry names."""

    username: str
    password: SecretT
    list_token: SecretT | None = None


class DockerCredential(BaseCredential, Generic[SecretT], frozen=True, tag="docker"):
    """Docker's own logins, from its ``config.json`` and from credential helpers.

    Attributes:
        path: The path of ``config.json``. None for the file that Docker itself uses.
    """

    path: Path | None = None
    list_token: SecretT | None = None


Credential = (
    NoCredential[Secret]
    | TokenCredential[Secret]
    | KeyCredential[Secret]
    | PasswordCredential[Secret]
    | AgencyCredential
    | BasicCredential[Secret]
    | DockerCredential[Secret]
)
"""Any credential, with its secrets."""

CREDENTIALS: Final[tuple[type[BaseCredential], ...]] = (
    NoCredential,
    TokenCredential,
    KeyCredential,
    PasswordCredential,
    AgencyCredential,
    BasicCredential,
    DockerCredential,
)
"""The structs of all kinds of credentials."""
