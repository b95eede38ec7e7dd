"""What an OCI registry is asked with: nothing at first, and then whatever it challenges for.

::

    ChallengedAuth          one for a registry
    ├── _BasicAuth          one for a registry that challenges for a user and a password
    └── _BearerAuth         one for each repository: a token, of whoever the challenge names

Sources: RFC 9110, 11 (challenges); RFC 7617 (Basic); RFC 6750 (Bearer); the Distribution project's
"Token authentication specification" and "Oauth2 token authentication" (identity tokens).

The rules of `tagsync.registries.auth` hold here, but for one: Docker's credential helpers are run
within a flow, by whoever needs them first.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.request import parse_http_list

import httpx

from tagsync.errors import MalformedResponse
from tagsync.escaping import truncate
from tagsync.registries.hosts import is_loopback


class _Wanted(NamedTuple):
    """What a challenge for a token names: where it is given, and what for."""

    realm: httpx.URL
    service: str | None
    scope: str | None


def challenges_of(headers: list[str]) -> dict[str, dict[str, str]]:
    """The challenges of ``WWW-Authenticate``: parameters by lower-case scheme; the first counts.

    Args:
        headers: each may hold several challenges.
    """
    found: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for item in (item for header in headers for item in parse_http_list(header)):
        # A scheme stands before its first parameter: Bearer realm="…",service="…"
        begins = re.fullmatch(r"([A-Za-z][\w-]*)(?: +(.*))?", item, re.DOTALL)
        if begins:
            parameters = {}
            found.setdefault(begins[1].lower(), parameters)
        name, equals, value = ((begins[2] or "") if begins else item).partition("=")
        if equals:
            parameters.setdefault(name.strip().lower(), _unquoted(value.strip()))
    return found


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _wanted(challenge: Mapping[str, str], endpoint: httpx.URL) -> _Wanted:
    """Reads a challenge for a token.

    A token is given at another host than the registry's more often than not. What goes there are
    credentials, so nothing but TLS will do, or this machine's own loopback if the registry is on
    it.

    Raises:
        MalformedResponse: it names no such place.
    """
    named = challenge.get("realm", "")
    try:
        realm = httpx.URL(named)
    except httpx.InvalidURL:
        realm = httpx.URL()
    local = is_loopback(realm.host) and is_loopback(endpoint.host)
    if not realm.host or realm.userinfo or realm.scheme not in {"https", "http"}:
        raise MalformedResponse(
            f"{endpoint.host} names {truncate(named)!r} as the place where it wants a token from,"
            " which is no URL to ask"
        )
    if realm.scheme == "http" and not local:
        raise MalformedResponse(
            f"{endpoint.host} wants a token from {truncate(named)!r}, where credentials would go in"
            " the clear: they are only sent to https://"
        )
    return _Wanted(realm, challenge.get("service"), challenge.get("scope"))
