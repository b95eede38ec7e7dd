"""An OCI registry of one repository, in memory."""

import base64
import json
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import httpx

from tagsync.clock import Clock, utc_now
from tagsync.models import EVERYTHING, Listing, Scope, Unchanged
from tagsync.registries.client import Client, Limits
from tagsync.registries.oci.api import REFUSALS, Oci
from tagsync.registries.pacing import Pacer
from tagsync.secrets import Secret
from tests.support.docker_registry import OCI_INDEX, OCI_MANIFEST, digest_of

REPOSITORY: Final = "team/api"
LIST: Final = f"/v2/{REPOSITORY}/tags/list"
SECRET: Final = "secret-that-nobody-may-see"
BOUND: Final = 2**24

Handler = Callable[[httpx.Request], httpx.Response]


class Fake:
    """A handler that serves one repository and records its requests.

    Attributes:
        tags: The manifest of each tag.
        manifests: Further manifests by digest.
        overrides: Responses by method and path, used before everything else.
        headers: Headers of every response with a manifest.
    """

    def __init__(self, tags: dict[str, bytes] | None = None) -> None:
        self.tags = tags or {}
        self.manifests: dict[str, bytes] = {}
        self.overrides: dict[tuple[str, str], httpx.Response] = {}
        self.headers: dict[str, str] = {}
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if answer := self.overrides.get((request.method, path)):
            return answer
        if path == LIST:
            return httpx.Response(200, json={"name": REPOSITORY, "tags": list(self.tags)})
        return self.answer_manifest(request, path.rpartition("/")[2])

    def refuse(self, tag: str, status: int) -> None:
        """Answer each request for the manifest of a tag with this status."""
        for method in ("HEAD", "GET"):
            path = f"/v2/{REPOSITORY}/manifests/{tag}"
            self.overrides[method, path] = httpx.Response(status)

    def answer_manifest(self, request: httpx.Request, reference: str) -> httpx.Response:
        """Respond to a request for a manifest by tag or digest."""
        by_digest = {digest_of(content): content for content in self.tags.values()}
        content = (self.tags | by_digest | self.manifests).get(reference)
        if content is None:
            return httpx.Response(404, json=errors("MANIFEST_UNKNOWN"))
        headers = {
            "Docker-Content-Digest": digest_of(content),
            "Content-Type": OCI_MANIFEST,
            **self.headers,
        }
        body = b"" if request.method == "HEAD" else content
        return httpx.Response(200, content=body, headers=headers)

    def asked(self, method: str) -> list[str]:
        """Return the sorted references requested with a method, without the tag list."""
        paths = [r.url.path for r in self.requests if r.method == method]
        return sorted(path.rpartition("/")[2] for path in paths if path != LIST)


def errors(code: str, message: str = "no") -> dict[str, Any]:
    """Return the body of an OCI error response."""
    return {"errors": [{"code": code, "message": message, "detail": {}}]}


def image(content: str) -> bytes:
    """Return the manifest of an image with one layer."""
    layer = {"digest": digest_of(content.encode()), "size": 100, "mediaType": "x/layer"}
    config = {"digest": digest_of(b"config of " + content.encode()), "size": 11}
    manifests = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
    return json.dumps(manifests).encode()


def index(*manifests: bytes) -> bytes:
    """Return an index of these manifests."""
    entries = [{"mediaType": OCI_MANIFEST, "digest": digest_of(each)} for each in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def signed(content: str, signature: str) -> tuple[bytes, bytes]:
    """Return a manifest of schema 1 without and with a signature."""
    payload = json.dumps({"schemaVersion": 1, "fsLayers": [], "tag": content}, indent=3).encode()
    head, tail = payload[:-2], payload[-2:]

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    part = {"formatLength": len(head), "formatTail": encoded(tail)}
    protected = encoded(json.dumps(part).encode())
    entry = json.dumps([{"signature": signature, "protected": protected}])
    return payload, head + f',\n   "signatures": {entry}'.encode() + tail


def registry_of(
    handler: Handler,
    bound: int = BOUND,
    concurrency: int = 4,
    clock: Clock = utc_now,
    endpoint: str = "http://127.0.0.1",
) -> Oci:
    """Return the OCI registry of a handler."""
    client = Client(
        endpoint,
        None,
        REFUSALS,
        Limits(max_listing_bytes=bound),
        secrets=lambda: (Secret(SECRET),),
        transport=httpx.MockTransport(handler),
        pacer=Pacer(1e9),
    )
    return Oci(client, bound, concurrency, clock)


def ask(
    handler: Handler, known: str | None = None, scope: Scope = EVERYTHING, bound: int = BOUND
) -> Listing | Unchanged:
    """Return the listing of one repository from a handler."""
    with closing(registry_of(handler, bound)) as registry:
        return registry.list_tags(REPOSITORY, known, scope)


def listing(answer: Listing | Unchanged) -> Listing:
    """Return an answer, which must be a listing."""
    assert isinstance(answer, Listing)
    return answer


def sends(body: bytes, status: int = 200, **headers: str) -> Handler:
    """Return a handler that always sends this response."""
    return lambda _: httpx.Response(status, content=body, headers=headers)
