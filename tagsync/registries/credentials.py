"""Credentials: one struct for each way to log in to a registry.

A struct is also the table ``[registries.auth]`` of its kind: its attributes are the keys that
people write. In the table a secret is the name of a place, in a credential it is the `Secret`
itself, so the type of secrets is a parameter.
"""

from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from tagsync.secrets import Secret

METADATA_ENDPOINT: Final = "http://169.254.169.254"
"""The metadata service of a cloud host, reachable only from the host itself."""

SecretT = TypeVar("SecretT")
"""`Secret`, or in a table of the configuration the name of its place."""


class BaseCredential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """The base class; each subclass has its ``kind`` as its tag."""


class NoCredential(BaseCredential, frozen=True, tag="none"):
    """No authentication: requests are sent anonymously."""


class TokenCredential(BaseCredential, Generic[SecretT], frozen=True, tag="token"):
    """A token of the vendor's identity service (IAM) that another program renews."""

    token: SecretT


class KeyCredential(BaseCredential, Generic[SecretT], frozen=True, tag="aksk"):
    """An access key (AK/SK); a temporary one has a security token.

    Attributes:
        project_id: Sent as ``X-Project-Id``.
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
    """The agency of the cloud host (ECS) that tagsync runs on."""

    metadata_endpoint: str = METADATA_ENDPOINT


class BasicCredential(BaseCredential, Generic[SecretT], frozen=True, tag="basic"):
    """A user of an OCI registry, or of the token server that the registry names."""

    username: str
    password: SecretT


class DockerCredential(BaseCredential, frozen=True, tag="docker"):
    """Docker's own logins, from its ``config.json`` and from credential helpers.

    Attributes:
        path: The ``config.json``. None for the one that Docker itself uses.
    """

    path: Path | None = None


Credential = (
    NoCredential
    | TokenCredential[Secret]
    | KeyCredential[Secret]
    | PasswordCredential[Secret]
    | AgencyCredential
    | BasicCredential[Secret]
    | DockerCredential
)
"""Any of these, with its secrets."""

CREDENTIALS: Final[tuple[type[BaseCredential], ...]] = (
    NoCredential,
    TokenCredential,
    KeyCredential,
    PasswordCredential,
    AgencyCredential,
    BasicCredential,
    DockerCredential,
)
"""The struct of each kind."""
