"""Checks of the decoded configuration."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from tagsync.config.tables import (
    AgencyTable,
    AuthTable,
    BasicTable,
    DockerTable,
    KeyTable,
    NoneTable,
    PasswordTable,
    RegistryTable,
    TokenTable,
    WatchTable,
    _Table,
)
from tagsync.errors import ConfigError
from tagsync.models import OCI_REPOSITORY, is_glob
from tagsync.registries.hosts import is_loopback

_AUTHS: Final[Mapping[str, tuple[type[_Table], ...]]] = {
    "swr": (NoneTable, TokenTable, KeyTable, PasswordTable, AgencyTable),
    "oci": (NoneTable, BasicTable, DockerTable),
}
"""For each kind of registry, what it can be asked with."""


def _check_registries(registries: list[RegistryTable]) -> None:
    names = Counter(registry.name for registry in registries)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"two registries are named {twice[0]!r}: give each a name of its own")
    for registry in registries:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", registry.name):
            raise ConfigError(
                f"the registry's name {registry.name!r} may have letters, digits, '.', '_' and '-'"
            )
        if registry.kind not in _AUTHS:
            raise ConfigError(
                f"the registry {registry.name!r} has kind {registry.kind!r}; it is 'swr' or 'oci'"
            )
        if not isinstance(registry.auth, _AUTHS[registry.kind]):
            kinds = [table.__struct_config__.tag for table in _AUTHS[registry.kind]]
            raise ConfigError(
                f"the registry {registry.name!r} of kind {registry.kind!r} cannot be asked with"
                f" auth of kind {registry.auth.__struct_config__.tag!r}; it is one of"
                f" {', '.join(map(repr, kinds))}"
            )
        if registry.ca_file is not None and (not registry.ca_file or "\0" in registry.ca_file):
            raise ConfigError(f"the ca_file of {registry.name!r} names no file")
        _check_endpoint(registry)


_HUB: Final = "https://registry-1.docker.io"

_HUB_SITES: Final = frozenset({"docker.io", "www.docker.com", "hub.docker.com", "index.docker.io"})


def _check_endpoint(registry: RegistryTable) -> None:
    _check_url(f"the endpoint of {registry.name!r}", registry.endpoint, registry.auth)
    host = urlsplit(registry.endpoint).hostname or ""
    if registry.kind == "oci" and host in _HUB_SITES:
        raise ConfigError(
            f"the endpoint of {registry.name!r} is Docker Hub's site; the registry is {_HUB}"
        )
    if registry.kind == "swr" and host.startswith("swr."):
        raise ConfigError(
            f"the endpoint of {registry.name!r} is the Docker registry's host; SWR's API is"
            f" {registry.endpoint.replace('://swr.', '://swr-api.', 1)}"
        )
    if isinstance(registry.auth, PasswordTable):
        _check_url(
            f"the iam_endpoint of {registry.name!r}", registry.auth.iam_endpoint, registry.auth
        )
    if isinstance(registry.auth, AgencyTable):
        what = f"the metadata_endpoint of {registry.name!r}"
        _check_url(what, registry.auth.metadata_endpoint, NoneTable())


def _check_url(what: str, endpoint: str, auth: AuthTable) -> None:
    try:
        url = urlsplit(endpoint)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise ConfigError(f"{what} is no URL: {error}") from error
    plain = endpoint.isprintable() and " " not in endpoint and "@" not in url.netloc
    if not plain or url.scheme not in {"http", "https"} or not host or url.query or url.fragment:
        raise ConfigError(f"{what} has to be a URL like https://registry.example.com")
    if url.scheme == "http" and not is_loopback(host) and not isinstance(auth, NoneTable):
        raise ConfigError(
            f"{what} is http://, which would send credentials in the clear: use https://"
        )


def _check_scope(registry: RegistryTable, watch: WatchTable) -> None:
    if registry.kind == "swr" and (watch.tags != ("*",) or watch.manifests):
        raise ConfigError(
            f"tags and manifests limit what is asked of registries of kind 'oci'; the list of"
            f" {registry.name!r} has every digest and manifest in it: remove them"
        )
    if registry.kind == "oci" and watch.shared:
        raise ConfigError(
            f"shared is for registries of kind 'swr'; {registry.name!r} has one list for all"
        )
    for glob in watch.tags:
        if not re.fullmatch(r"(?:[A-Za-z0-9_.*?-]|\[[^\]]+\])+", glob):
            raise ConfigError(
                f"tags: {glob!r}, for {registry.name!r}, matches no tag that there can be: a tag"
                " has letters and digits, with '_', '.' or '-' between"
            )


def _check_repository(registry: RegistryTable, name: str) -> None:
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
            f"the repository {name!r} of {registry.name!r} is no name of one: it has lower-case"
            " letters and digits, with '.', '_' or '-' within, and slashes between; its tags are"
            " chosen by the key tags"
        )
    if "/" not in name and registry.endpoint.rstrip("/") == _HUB:
        raise ConfigError(
            f"the repository {name!r} of {registry.name!r} lacks its namespace; Docker Hub's own"
            f" images are in library: write 'library/{name}'"
        )
