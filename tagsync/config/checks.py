"""Check the decoded tables: names, URLs, and whether their keys are compatible."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from tagsync.config.tables import CredentialTable, RegistryTable, WatchTable
from tagsync.errors import ConfigError
from tagsync.models import OCI_REPOSITORY, is_glob
from tagsync.registries.credentials import (
    AgencyCredential,
    BaseCredential,
    BasicCredential,
    DockerCredential,
    KeyCredential,
    NoCredential,
    PasswordCredential,
    TokenCredential,
)
from tagsync.registries.hosts import DOCKER_HUB, DOCKER_HUB_SITES, is_host, is_loopback

REGISTRY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""The pattern of names of registries."""

TAG_GLOB: Final = re.compile(r"(?:[A-Za-z0-9_.*?-]|\[[^\]]+\])+")
"""The pattern of globs that can match a tag."""

_ACCEPTED: Final[Mapping[str, tuple[type[BaseCredential], ...]]] = {
    "swr": (NoCredential, TokenCredential, KeyCredential, PasswordCredential, AgencyCredential),
    "oci": (NoCredential, BasicCredential, TokenCredential, DockerCredential),
}
"""The credentials that each kind of registry accepts."""

_DOCKER_HUB_URL: Final = f"https://{DOCKER_HUB}"


def correct_endpoints(registries: list[RegistryTable]) -> None:
    """Remove the path of the API from endpoints that end with it, because tagsync appends it."""
    for registry in registries:
        registry.endpoint = re.sub(r"(?<![:/])(?:/+v2(?:/+manage)?)?/*\Z", "", registry.endpoint)


def check_registries(registries: list[RegistryTable]) -> None:
    """Check the keys of all registries, except for their watches.

    Raises:
        ConfigError: If a value is invalid, or two values are not compatible.
    """
    names = Counter(registry.name for registry in registries)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"two registries are named {twice[0]!r}: give each a name of its own")
    for registry in registries:
        _check_registry(registry)
        _check_endpoint(registry)


def _check_registry(registry: RegistryTable) -> None:
    name, auth = registry.name, registry.auth
    if not REGISTRY_NAME.fullmatch(name):
        raise ConfigError(
            f"invalid registry name {name!r}: write letters, digits, '.', '_' and '-', and begin"
            " with a letter or a digit"
        )
    accepted = _ACCEPTED.get(registry.kind)
    if accepted is None:
        raise ConfigError(
            f"invalid kind {registry.kind!r} of the registry {name!r}: write 'swr' or 'oci'"
        )
    if not isinstance(auth, accepted):
        kinds = ", ".join(repr(kind.__struct_config__.tag) for kind in accepted)
        raise ConfigError(
            f"the registry {name!r} of kind {registry.kind!r} does not accept auth of kind"
            f" {auth.__struct_config__.tag!r}; write one of {kinds}"
        )
    list_token = getattr(auth, "list_token", None)
    if registry.kind == "swr" and (registry.list != "auto" or list_token is not None):
        raise ConfigError(
            "list and list_token are for registries of kind 'oci', because SWR's list contains"
            f" every digest: remove them from {name!r}"
        )
    for key in ("ca_file", "client_cert_file", "client_key_file"):
        value = getattr(registry, key)
        if value is not None and (not value or "\0" in value):
            raise ConfigError(
                f"the {key} of {name!r} is empty or contains a NUL character: name a file, or"
                " remove the key"
            )
    if registry.client_key_file is not None and registry.client_cert_file is None:
        raise ConfigError(
            f"{name!r} has a client_key_file but no client_cert_file: name the certificate of this"
            " key, too"
        )


def _check_endpoint(registry: RegistryTable) -> None:
    name, auth = registry.name, registry.auth
    _check_url(f"the endpoint of {name!r}", registry.endpoint, auth)
    host = urlsplit(registry.endpoint).hostname or ""
    if registry.kind == "oci" and host in DOCKER_HUB_SITES:
        raise ConfigError(
            f"the endpoint of {name!r} is not the host of Docker Hub's registry: write"
            f" {_DOCKER_HUB_URL}"
        )
    if registry.kind == "swr" and host.startswith("swr."):
        raise ConfigError(
            f"the endpoint of {name!r} is the host of the Docker registry: write the host of SWR's"
            f" API, {registry.endpoint.replace('://swr.', '://swr-api.', 1)}"
        )
    if isinstance(auth, PasswordCredential):
        _check_url(f"the iam_endpoint of {name!r}", auth.iam_endpoint, auth)
    if isinstance(auth, AgencyCredential):
        # The metadata service receives no credential, and it has no TLS, so http:// is allowed.
        metadata = f"the metadata_endpoint of {name!r}"
        _check_url(metadata, auth.metadata_endpoint, NoCredential())


def _check_url(subject: str, endpoint: str, auth: CredentialTable) -> None:
    try:
        url = urlsplit(endpoint)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise ConfigError(f"{subject} is not a valid URL: {error}") from error
    if re.fullmatch(r"(?://)?(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[\w./-]*)?", endpoint):
        address = endpoint.removeprefix("//")
        raise ConfigError(f"{subject} has no scheme: write {_advised_url(address)}")
    plain = endpoint.isprintable() and " " not in endpoint and "@" not in url.netloc
    is_named = plain and host and is_host(host)
    if not is_named or url.scheme not in {"http", "https"} or url.query or url.fragment:
        raise ConfigError(
            f"{subject} must be a URL like https://registry.example.com, without a user, a query or"
            " a fragment"
        )
    sends_secrets = not isinstance(auth, NoCredential) or auth.list_token is not None
    if url.scheme == "http" and not is_loopback(host or "") and sends_secrets:
        raise ConfigError(
            f"{subject} is http://, which would send credentials in the clear: use https://"
        )


def _advised_url(address: str) -> str:
    """Return the URL to write for an address without a scheme."""
    host = urlsplit(f"//{address}").hostname or ""
    if is_loopback(host):
        return f"http://{address}, or https://{address} if the registry uses TLS"
    return f"https://{address}"


def check_scope(registry: RegistryTable, watch: WatchTable) -> None:
    """Check the tag globs of a watch, and that its registry's kind allows its keys.

    Raises:
        ConfigError: If a key is for another kind of registry, or a glob matches no possible tag.
    """
    if registry.kind == "swr" and (watch.tags != ("*",) or watch.exclude_tags or watch.manifests):
        raise ConfigError(
            "tags, exclude_tags and manifests are for registries of kind 'oci', because SWR's list"
            " contains every digest and manifest: remove them from the watches of"
            f" {registry.name!r}"
        )
    if registry.kind == "oci" and watch.shared:
        raise ConfigError(
            "shared is for registries of kind 'swr', because a registry of kind 'oci' has one list"
            f" for all accounts: remove it from the watches of {registry.name!r}"
        )
    globs = [("tags", glob) for glob in watch.tags]
    globs += [("exclude_tags", glob) for glob in watch.exclude_tags]
    globs += [("immutable", glob) for glob in watch.immutable]
    for key, glob in globs:
        if not TAG_GLOB.fullmatch(glob):
            raise ConfigError(
                f"{key}: {glob!r}, for {registry.name!r}, matches no tag that can exist: a tag has"
                " letters and digits, with '_', '.' or '-' between them"
            )


def check_repository(registry: RegistryTable, name: str) -> None:
    """Check the name of a repository. A glob is always valid.

    Raises:
        ConfigError: If a registry of this kind cannot have a repository with this name.
    """
    if is_glob(name):
        return
    if registry.kind == "oci":
        _check_oci_repository(registry, name)
        return
    segment = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*)"
    if not re.fullmatch(rf"{segment}(?:/{segment})+", name):
        raise ConfigError(
            f"the repository {name!r} of {registry.name!r} is not of the form namespace/name"
        )


def _check_oci_repository(registry: RegistryTable, name: str) -> None:
    if not OCI_REPOSITORY.fullmatch(name):
        raise ConfigError(
            f"invalid repository {name!r} of {registry.name!r}: a name has lower-case letters and"
            " digits, with '.', '_' or '-' between them, and slashes; to choose tags, use the key"
            " tags"
        )
    if "/" not in name and registry.endpoint.rstrip("/") == _DOCKER_HUB_URL:
        raise ConfigError(
            f"the repository {name!r} of {registry.name!r} lacks its namespace; Docker Hub's own"
            f" images are in library: write 'library/{name}'"
        )
