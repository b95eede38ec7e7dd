"""Parse challenges: the parts of a response that name the login that a server accepts.

Sources: RFC 9110, 11 (challenges); RFC 6750 (Bearer).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.request import parse_http_list

import httpx

from tagsync.errors import MalformedResponse
from tagsync.escaping import truncate
from tagsync.registries.hosts import is_loopback


class TokenChallenge(NamedTuple):
    """A challenge for a bearer token.

    Attributes:
        realm: The URL of the token server.
        service: The registry's name for itself, to be sent to the token server.
        scope: The repository and the permissions, to be sent to the token server.
    """

    realm: httpx.URL
    service: str | None
    scope: str


def challenges_of(response: httpx.Response) -> dict[str, dict[str, str]]:
    """Return the challenges of a response, in the form of `parse_challenges`."""
    return parse_challenges(response.headers.get_list("WWW-Authenticate"))


def parse_challenges(headers: list[str]) -> dict[str, dict[str, str]]:
    """Return the challenges in ``WWW-Authenticate``.

    If a scheme or a parameter is repeated, the first one counts. A challenge without parameters
    counts only if its scheme is not repeated with some.

    Args:
        headers: The values of the header. Each value may contain several challenges.

    Returns:
        The parameters of each challenge, by its scheme in lower case.
    """
    found: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for item in (item for header in headers for item in parse_http_list(header)):
        # The scheme stands before the first parameter: Bearer realm="…",service="…"
        begins = re.fullmatch(r"([A-Za-z][\w-]*)(?:[ \t]+(?!=)(.*))?", item, re.DOTALL)
        if begins:
            parameters = {}
            if not found.get(begins[1].lower()):
                found[begins[1].lower()] = parameters
        name, equals, value = ((begins[2] or "") if begins else item).partition("=")
        if equals:
            parameters.setdefault(name.strip().lower(), _unquoted(value.strip()))
    return found


def token_challenge(
    parameters: Mapping[str, str], endpoint: httpx.URL, repository: str
) -> TokenChallenge:
    """Return a challenge for a token, and check the URL of its token server.

    The token server is often another host than the registry. It must use TLS, unless it and the
    registry are both on this machine's loopback interface.

    Args:
        parameters: The parameters of the scheme ``bearer``.
        endpoint: The URL of the registry.
        repository: The repository whose tags are read. If the challenge names no scope, a token
            for reading it is requested. An empty string means the catalogue.

    Raises:
        MalformedResponse: If the URL of the token server is invalid, or does not use TLS.
    """
    text = parameters.get("realm", "").strip()
    realm = _realm_url(text, endpoint)
    local = is_loopback(realm.host) and is_loopback(endpoint.host)
    if not realm.host or realm.userinfo or realm.scheme not in {"https", "http"}:
        raise MalformedResponse(
            f"{endpoint.host} names {truncate(text)!r} as its token server, which is not a valid"
            " URL"
        )
    if realm.scheme == "http" and not local:
        raise MalformedResponse(
            f"{endpoint.host} names {truncate(text)!r} as its token server, to which credentials"
            " would be sent in the clear: tagsync sends them to https:// only"
        )
    default = f"repository:{repository}:pull" if repository else "registry:catalog:*"
    scope = parameters.get("scope", "").strip() or default
    return TokenChallenge(realm, parameters.get("service"), scope)


def joined_scope(scope: str, other: str) -> str:
    """Return a scope with the actions of both, or ``other`` if they are of different resources.

    Some registries want another action for a list than for a manifest. With one token for both,
    the requests do not replace each other's token.

    Args:
        scope: The scope of the current token, such as ``repository:team/api:pull``.
        other: The scope that a refusal names.
    """
    (resource, _, actions), (wanted, _, more) = scope.rpartition(":"), other.rpartition(":")
    if not resource or resource != wanted:
        return other
    return f"{resource}:{','.join(dict.fromkeys([*actions.split(','), *more.split(',')]))}"


def _realm_url(text: str, endpoint: httpx.URL) -> httpx.URL:
    """Return the URL of a token server. It has no host if the text is not a URL.

    Args:
        text: An absolute URL, or one relative to the endpoint.
        endpoint: The URL of the registry.
    """
    try:
        realm = httpx.URL(text)
        if text and not realm.scheme:
            realm = endpoint.join(realm)
        _ = realm.host  # raises an error if it is not a valid name
    except (httpx.InvalidURL, UnicodeError):
        return httpx.URL()
    # Behind a proxy that ends TLS, a registry believes that it is reached through http://.
    is_same = realm.host == endpoint.host and realm.port in {None, endpoint.port}
    if is_same and (realm.scheme, endpoint.scheme) == ("http", "https"):
        realm = realm.copy_with(scheme="https", port=endpoint.port)
    return realm


def _unquoted(value: str) -> str:
    """Return a parameter without its quotes. Some servers write single ones."""
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if is_quoted else value
