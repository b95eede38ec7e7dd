"""Credentials: one struct for each way to log in to a registry."""

from pathlib import Path

import msgspec

from tagsync.secrets import Secret


class NoCredential(msgspec.Struct, frozen=True):
    """No authentication: requests are sent anonymously."""


class TokenCredential(msgspec.Struct, frozen=True):
    """A token of the vendor's identity service (IAM) that another program renews."""

    token: Secret


class KeyCredential(msgspec.Struct, frozen=True):
    """An access key (AK/SK), permanent, or temporary and with its security token."""

    access_key: Secret
    secret_key: Secret
    security_token: Secret | None = None
    project_id: str | None = None


class PasswordCredential(msgspec.Struct, frozen=True):
    """A user of the vendor's identity service (IAM), and the project to sign in to."""

    iam_endpoint: str
    username: str
    password: Secret
    domain: str
    project: str


class AgencyCredential(msgspec.Struct, frozen=True):
    """The agency of the cloud host that tagsync runs on, known to its metadata service."""

    metadata_endpoint: str


class BasicCredential(msgspec.Struct, frozen=True):
    """A user of an OCI registry, or of the token server that the registry names."""

    username: str
    password: Secret


class DockerCredential(msgspec.Struct, frozen=True):
    """Docker's own logins: its ``config.json``, and the credential helpers that it names."""

    path: Path


Credential = (
    NoCredential
    | TokenCredential
    | KeyCredential
    | PasswordCredential
    | AgencyCredential
    | BasicCredential
    | DockerCredential
)
"""Any of these."""
