import json
from hashlib import sha256

import pytest

from tagsync import manifests
from tagsync.emulator import REFERENCE_REPOSITORY, Emulator
from tagsync.models import Image, Listing
from tagsync.registries.client import Client, Limits
from tagsync.registries.swr.api import REFUSALS, Swr
from tests.support.oci import signed

CONFIG = "741f24a795d6d93d7c6edd11780d63c13e16c39615dd9d223378a57a836f2ee6"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
LIST_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
TEXT = json.dumps(
    {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": {"digest": f"sha256:{CONFIG}"}}
)


def digest_of(text: str) -> str:
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def image(
    text: str | None, *, digest: str | None = None, image_id: str | None = CONFIG, schema: int = 2
) -> Image:
    return manifests.listed_image(
        digest or digest_of(text or ""), text, image_id=image_id, schema=schema, size=7
    )


def test_the_references_example_verifies() -> None:
    """The busybox row of the vendor's reference holds bytes that are what its digest says."""
    with Emulator() as emulator:
        digest = emulator.push_reference_example()
        client = Client(emulator.url, None, REFUSALS, Limits())
        registry = Swr(client, 2**20)
        listing = registry.list_tags(REFERENCE_REPOSITORY)
        registry.close()
    assert isinstance(listing, Listing)
    found = listing.images[digest]
    assert found.verified is True
    assert digest == "sha256:57b605845a6367c34bfb6ea6477f16852f59aa1861a2b51d10ab77ae0a1dc9c3"
    assert (found.image_id, found.media_type, found.size) == (CONFIG, MANIFEST_TYPE, 1304902)


def test_every_field_is_kept() -> None:
    """An image carries what the registry sent of it, and the manifest to the letter."""
    assert image(TEXT) == Image(
        digest_of(TEXT), CONFIG, MANIFEST_TYPE, schema=2, size=7, manifest=TEXT, verified=True
    )


def test_a_wrong_digest_is_not_verified() -> None:
    """Bytes that hash to something else than the digest are kept, and marked."""
    found = image(TEXT, digest=digest_of("other"))
    assert found.verified is False
    assert found.manifest == TEXT


def test_one_changed_byte_is_not_verified() -> None:
    """A manifest that means the same and has one more space is not what the digest names."""
    assert image(TEXT + " ", digest=digest_of(TEXT)).verified is False


@pytest.mark.parametrize(
    ("image_id", "expected"),
    [
        (CONFIG, CONFIG),
        (f"sha256:{CONFIG}", f"sha256:{CONFIG}"),
        ("0" * 64, f"sha256:{CONFIG}"),
        (f"sha256:{'0' * 64}", f"sha256:{CONFIG}"),
        (None, f"sha256:{CONFIG}"),
        ("", f"sha256:{CONFIG}"),
    ],
)
def test_verified_manifest_decides_the_image_id(image_id: str | None, expected: str) -> None:
    """The image's id is the configuration that the manifest references, whatever the list says."""
    found = image(TEXT, image_id=image_id)
    assert (found.verified, found.image_id) == (True, expected)
    unverified = image(TEXT, image_id=image_id, digest=digest_of("other"))
    assert (unverified.verified, unverified.image_id) == (False, image_id)


def test_verified_manifest_decides_schema_and_size() -> None:
    """Schema and size are those of the manifest's bytes; the list fills in what they lack."""
    sized = {"schemaVersion": 1, "config": {"digest": "x", "size": 3}, "layers": [{"size": 4}]}
    text = json.dumps(sized)
    assert (image(text).schema, image(text).size) == (1, 7)
    other = json.dumps({"schemaVersion": 1, "config": {"size": 3}, "layers": []})
    assert (image(other, schema=2).schema, image(other).size) == (1, 3)
    assert (image("{}").schema, image("{}").size, image("{}").image_id) == (2, 7, CONFIG)


@pytest.mark.parametrize(
    "content",
    [
        {"schemaVersion": 2, "mediaType": LIST_TYPE, "manifests": [{"digest": "sha256:1"}]},
        {"schemaVersion": 1, "name": "library/busybox", "tag": "latest", "fsLayers": []},
        {"config": None},
        {"config": {}},
    ],
    ids=["list", "schema 1", "null", "no digest"],
)
def test_without_a_config_the_hash_decides(content: dict[str, object]) -> None:
    """A manifest that names no configuration is judged by its hash, whatever the image's id."""
    text = json.dumps(content)
    assert image(text).verified is True
    assert image(text, digest=digest_of("other")).verified is False
    assert image(text).media_type == content.get("mediaType")


def test_listed_schema_1_manifest_is_verified_without_its_signature() -> None:
    """The signature is not part of what the digest names, in a list as in an answer."""
    payload, body = signed("v1", "any")
    digest = digest_of(payload.decode())
    found = image(body.decode(), digest=digest)
    assert (found.verified, found.manifest) == (True, payload.decode())
    assert (found.image_id, found.schema, found.size) == (CONFIG, 1, 7)


def test_no_manifest_is_neither_verified_nor_refuted() -> None:
    """Without bytes nothing is claimed of them."""
    found = image(None, digest="sha256:1")
    assert found.verified is None
    assert found.manifest is None
    assert (found.image_id, found.schema, found.size) == (CONFIG, 2, 7)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "",
        "{",
        "[]",
        "null",
        '{"config": 5}',
        '{"config": {"digest": 5}}',
        '{"mediaType": 5}',
        "[" * 200_000,
        '{"x": ' + "[" * 200_000,
        '{"config": ' * 200_000,
    ],
    ids=range(11),
)
def test_what_is_no_manifest_is_judged_by_its_hash(text: str) -> None:
    """Text that cannot be read as a manifest still does or does not hash to the digest."""
    assert image(text).verified is True
    assert image(text, digest=digest_of("other")).verified is False
    assert image(text).media_type is None
