"""Targets to fuzz: functions that must hold for any bytes."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import httpx
import msgspec
import stamina

from tagsync import manifests
from tagsync.daemon.push_senders import read_push
from tagsync.database.digest_index import search_terms
from tagsync.errors import RegistryError
from tagsync.models import TAG, Listing
from tagsync.registries.client import Client, Limits
from tagsync.registries.pacing import Pacer
from tagsync.registries.responses import Answer, refusal_error
from tagsync.registries.swr.api import REFUSALS, Swr, tags_path
from tagsync.secrets import Secret

_BOUND: Final = 2**20


class _Answering:
    """A real registry client, opened once, that gets one body for every request.

    Opening a client takes a hundred times as long as decoding a body.
    """

    def __init__(self) -> None:
        self._body = b""
        client = Client(
            "http://127.0.0.1",
            None,
            REFUSALS,
            Limits(max_listing_bytes=_BOUND),
            transport=httpx.MockTransport(lambda _: httpx.Response(200, content=self._body)),
            pacer=Pacer(1e9),
        )
        self._registry = Swr(client, _BOUND)

    def with_body(self, body: bytes) -> Swr:
        self._body = body
        return self._registry


_answering: Final = _Answering()


def tags(body: bytes) -> None:
    """A list of tags is a RegistryError, or equal to what Python's own JSON reads."""
    with stamina.set_testing(True, attempts=1):
        try:
            listing = _answering.with_body(body).list_tags("team/api")
        except RegistryError as error:
            assert str(error).isprintable()  # noqa: PT017  any RegistryError is correct
            return
    assert isinstance(listing, Listing)
    rows = [row for row in json.loads(body) or [] if not row.get("deleted")]
    named = {row["Tag"]: row.get("digest") or "" for row in rows if TAG.fullmatch(row["Tag"])}
    assert listing.tags.keys() == named.keys()
    for name, digest in named.items():
        assert listing.tags[name].digest == (digest if manifests.may_be_digest(digest) else None)
        assert (name in listing.failed) == (listing.tags[name].digest is None)


def repositories(body: bytes) -> None:
    """A list of repositories is a RegistryError, or has names that fit into a path."""
    with stamina.set_testing(True, attempts=1), suppress(RegistryError):
        for name in _answering.with_body(body).list_repositories(["team/*"]):
            url = httpx.URL(f"http://127.0.0.1{tags_path(name)}")
            assert url.raw_path.count(b"/") == 7


def refusals(body: bytes) -> None:
    """A refusal is one printable sentence without the secret."""
    answer = Answer("http://127.0.0.1/x", 400 + body[0] if body else 400, _HEADERS, body[1:])
    error = refusal_error(answer, REFUSALS, (Secret("made-up-secret"),))
    assert str(error).isprintable()
    assert "made-up-secret" not in f"{error} {error.code}"


def any_manifest(body: bytes) -> None:
    """Any manifest is checked without an error."""
    text = body.decode(errors="ignore")
    image = manifests.listed_image("sha256:a", text, image_id="a", schema=2, size=1)
    assert image.manifest == text
    assert image.verified is False
    fetched = manifests.fetched_image(manifests.digest_of(body), body, "")
    if fetched is not None:
        assert fetched.manifest == text
        assert all(map(manifests.is_digest, manifests.children(fetched)))
        terms = search_terms(text, fetched.image_id, 1)
        assert all(re.fullmatch(r"[0-9a-f]+", term) for term in terms)


def push(body: bytes) -> None:
    """A notification of a push names repositories within bounds, or is not JSON."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return
    for event_type in (None, "zotregistry.image.updated"):
        names = read_push(content, event_type).repositories
        assert all(0 < len(name) <= 255 for name in names)


_HEADERS: Final = httpx.Headers({"Location": "http://127.0.0.1/?t=made-up-secret"})

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (tags, repositories, refusals, any_manifest, push)
}

SEEDS: Final = (
    b'[{"Tag":"v1","digest":"sha256:a","manifest":"{}","size":1,"is_trusted":false}]',
    b'[{"Tag":"v1","digest":"blake3:%s"},{"Tag":"v2"},{"Tag":"-","digest":"x"}]' % (b"a" * 64),
    b'[{"name":"api","namespace":"team"}]',
    b'x{"errors":[{"errorCode":"SVCSTG.SWR.4001072","errorMessage":"made-up-secret"}]}',
    b'{"config":{"digest":"sha256:a"},"mediaType":"x"}',
    b'[{"Tag":"v1","digest":"sha256:a","manif\x97(t":"{}"}]',  # a finding: not UTF-8, accepted
    b'{"events":[{"action":"push","target":{"repository":"team/api","tag":"v1"}}]}',
    b'{"action":"published","package":{"package_version":{"package_url":"ghcr.io/A/b:v1"}}}',
    b"null",
    b"[]",
)
"""The first inputs of each target, which the default tests run, too."""
