"""One image or layer: its parts, the tags that lead to it, and the images that share layers."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tagsync.audit import images as module
from tagsync.audit.images import ImageDetails, LayerUse
from tagsync.audit.queries import Audit
from tagsync.clock import timestamp
from tagsync.database.connection import reading
from tagsync.database.store import Store
from tagsync.manifests import fetched_image
from tagsync.models import Image, Listing, Repository, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.audit import at
from tests.support.clock import FakeClock
from tests.support.registries import INTERVAL, Scripted

Record = Callable[..., None]


def digest_of(character: str) -> str:
    return f"sha256:{character * 64}"


BASE, TOP, OTHER, CONFIG = map(digest_of, "123c")


def image_of(content: dict[str, Any]) -> Image:
    text = json.dumps({"schemaVersion": 2, **content})
    image = fetched_image(f"sha256:{sha256(text.encode()).hexdigest()}", text.encode(), "")
    assert image is not None
    return image


def layered(*layers: tuple[str, object]) -> Image:
    parts = [{"digest": digest, "size": size} for digest, size in layers]
    return image_of({"config": {"digest": CONFIG, "size": 7}, "layers": parts})


ONE = layered((BASE, 100), (TOP, 10))
TWO = layered((BASE, 100), (TOP, 10), (OTHER, 1))
THREE = layered((BASE, "many"))
INDEX = image_of(
    {
        "manifests": [
            {"digest": ONE.digest, "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": digest_of("9")},
        ]
    }
)


@pytest.fixture
def record(store: Store, clock: FakeClock) -> Record:
    """Record a listing of a repository: each tag with its image."""

    def run(name: str, **tags: Image) -> None:
        registry = Scripted(clock)
        images = {each.digest: each for each in (ONE, *tags.values())}
        listed = {tag: Tag(tag, image.digest) for tag, image in tags.items()}
        now = timestamp(clock.now)
        registry.script.append(Listing(listed, images, now, now, None))
        poll(Job(Repository("swr", name), registry, INTERVAL), store, clock=clock)

    return run


def details(database: Path, digest: str) -> ImageDetails:
    with Audit.open(database) as audit:
        found = audit.charts.image(digest)
    assert found is not None
    return found


def layer_use(database: Path, digest: str) -> LayerUse:
    with Audit.open(database) as audit:
        return audit.charts.layer(digest)


@pytest.fixture
def images(record: Record, clock: FakeClock) -> None:
    """Two repositories with images that share layers; one tag moves away."""
    record("a/one", plain=ONE, multi=INDEX, two=TWO)
    record("b/two", three=THREE, copy=ONE)
    clock.advance(minutes=5)
    record("a/one", plain=TWO, multi=INDEX, two=TWO)


@pytest.mark.usefixtures("images")
def test_image_has_its_layers_and_those_that_share_them(database: Path) -> None:
    """An image has its layers with sizes, and the other images by the layers in common."""
    found = details(database, ONE.digest)
    assert [(each.position, each.digest, each.size, each.images) for each in found.layers] == [
        (0, BASE, 100, 3),
        (1, TOP, 10, 2),
    ]
    assert [(each.digest, each.layers) for each in found.shared_with] == [
        (TWO.digest, 2),
        (THREE.digest, 1),
    ]
    assert (found.shared, found.size, found.image_id) == (2, 117, CONFIG)
    assert (found.verified, found.first_observed_at, found.schema) == (True, at(0), 2)
    assert [each.size for each in details(database, THREE.digest).layers] == [None]


@pytest.mark.usefixtures("images")
def test_image_has_the_tags_that_lead_to_it(database: Path) -> None:
    """Tags count now and ever, through an index too; those that last come first."""
    tags = details(database, ONE.digest).tags
    assert (tags.now, tags.ever, tags.repositories, tags.complete) == (2, 3, 2, True)
    assert [(each.repository, each.tag, each.valid_to) for each in tags.rows] == [
        ("swr/a/one", "multi", None),
        ("swr/b/two", "copy", None),
        ("swr/a/one", "plain", at(5)),
    ]
    assert details(database, ONE.digest).indexes == (INDEX.digest,)
    assert details(database, TWO.digest).indexes == ()


@pytest.mark.usefixtures("images")
def test_index_has_its_platforms(database: Path) -> None:
    """An index has the manifests that it references, and says which of them are recorded."""
    found = details(database, INDEX.digest)
    assert [(each.platform, each.digest, each.recorded, each.size) for each in found.platforms] == [
        ("linux/amd64", ONE.digest, True, 117),
        ("", digest_of("9"), False, None),
    ]
    assert (found.layers, found.shared_with) == ((), ())


@pytest.mark.usefixtures("images")
def test_layer_has_its_images(database: Path) -> None:
    """A layer has its size, its images and their tags; a configuration is no layer."""
    found = layer_use(database, TOP)
    assert (found.size, found.images, found.complete) == (10, 2, True)
    assert {each.digest for each in found.rows} == {ONE.digest, TWO.digest}
    assert (found.tags.now, found.tags.ever) == (4, 4)
    for unknown in (CONFIG, digest_of("8"), "md5:1", '" OR "'):
        assert layer_use(database, unknown).images == 0


@pytest.mark.usefixtures("images")
def test_unknown_image_is_none(database: Path) -> None:
    """A digest that is not recorded has no image."""
    with Audit.open(database) as audit:
        assert audit.charts.image(digest_of("8")) is None


def test_manifest_that_is_not_verified_says_nothing(record: Record, database: Path) -> None:
    """The layers of a manifest that does not hash to its digest are not shown."""
    wrong = Image(digest_of("7"), manifest=ONE.manifest, verified=False)
    bare = Image(digest_of("6"))
    record("a/one", wrong=wrong, bare=bare)
    assert (details(database, wrong.digest).layers, details(database, bare.digest).layers) == (
        (),
        (),
    )
    assert details(database, wrong.digest).verified is False
    assert details(database, bare.digest).verified is None


def test_old_manifest_lists_its_layers_from_the_top(record: Record, database: Path) -> None:
    """The lowest layer comes first, although a manifest of schema 1 lists it last."""
    old = image_of({"fsLayers": [{"blobSum": TOP}, {"blobSum": BASE}]})
    record("a/one", old=old)
    assert [(each.digest, each.size) for each in details(database, old.digest).layers] == [
        (BASE, None),
        (TOP, None),
    ]


def test_tags_of_an_image_are_read_up_to_a_limit(record: Record, database: Path) -> None:
    """Of an image with many tags the counts say that they are not complete."""
    record("a/one", **{f"t{number}": ONE for number in range(5)})
    with reading(database) as db:
        found = module.tags_leading_to(db, [ONE.digest], most=3)
    assert (found.now, found.complete, len(found.rows)) == (3, False, 3)
