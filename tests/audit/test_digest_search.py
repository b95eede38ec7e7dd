"""The search for the tags that lead to a digest."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.audit.digest_search import summarize
from tagsync.audit.queries import Audit
from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.errors import UnclearQuestion
from tagsync.manifests import fetched_image
from tagsync.models import Image, Listing, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.audit import Row, RunQuery, at
from tests.support.clock import FakeClock
from tests.support.registries import INTERVAL, Scripted


def digest_of(character: str) -> str:
    return f"sha256:{character * 64}"


def manifest_of(*layers: str, config: str) -> str:
    return json.dumps(
        {"config": {"digest": config}, "layers": [{"digest": layer} for layer in layers]}
    )


def index_of(**platforms: str) -> str:
    manifests = [
        {"digest": digest, "platform": {"os": "linux", "architecture": name}}
        for name, digest in platforms.items()
    ]
    return json.dumps({"manifests": manifests})


ONE, TWO, INDEX, BASE, TOP, CONFIG = map(digest_of, "12345c")


AMBIGUOUS = f"sha256:{'5' * 20}{'6' * 44}"


@pytest.fixture
def images(job: Job, store: Store, clock: FakeClock) -> None:
    """A tag that moves away from an image, and a tag on an index with that image."""
    recorded = {
        ONE: Image(ONE, image_id=CONFIG[7:], manifest=manifest_of(BASE, TOP, config=CONFIG)),
        TWO: Image(TWO, manifest=manifest_of(BASE, config=digest_of("d"))),
        INDEX: Image(INDEX, manifest=index_of(amd64=ONE, arm64=TWO)),
        digest_of("6"): Image(
            digest_of("6"), manifest=manifest_of(AMBIGUOUS, config=digest_of("e"))
        ),
    }
    recorded = {d: msgspec.structs.replace(i, verified=True) for d, i in recorded.items()}
    for minute, on in ((0, ONE), (5, ONE), (10, digest_of("6"))):
        clock.now = FakeClock().now + timedelta(minutes=minute)
        tags = {"plain": on, "multi": INDEX, "two": TWO}
        listing = Listing(
            {name: Tag(name, digest) for name, digest in tags.items()},
            recorded,
            timestamp(clock.now),
            timestamp(clock.now),
            None,
        )
        registry = Scripted(clock)
        registry.script.append(listing)
        poll(Job(job.repository, registry, INTERVAL), store, clock=clock)


def found(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in ("tag", "role", "digest", "platform")) for row in rows]


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("digest", "expected"),
    [
        (ONE, [("multi", "manifest", INDEX, "linux/amd64"), ("plain", "manifest", ONE, None)]),
        (CONFIG, [("multi", "config", INDEX, "linux/amd64"), ("plain", "config", ONE, None)]),
        (TOP[7:], [("multi", "layer", INDEX, "linux/amd64"), ("plain", "layer", ONE, None)]),
        (
            BASE,
            [
                ("multi", "layer", INDEX, "linux/amd64"),
                ("multi", "layer", INDEX, "linux/arm64"),
                ("plain", "layer", ONE, None),
                ("two", "layer", TWO, None),
            ],
        ),
        (INDEX[:13], [("multi", "manifest", INDEX, None)]),
        (
            TWO[7:].upper()[:30],
            [("multi", "manifest", INDEX, "linux/arm64"), ("two", "manifest", TWO, None)],
        ),
        (digest_of("9"), [(None, "unknown", None, None)]),
        ("abcdef", [(None, "unknown", None, None)]),
    ],
)
def test_digest_leads_to_its_tags(run_query: RunQuery, digest: str, expected: list[Any]) -> None:
    """A manifest, configuration or layer is found by a prefix, and through an index."""
    assert found(run_query("find", digest)) == expected


@pytest.mark.usefixtures("images")
def test_each_digest_has_its_rows(run_query: RunQuery) -> None:
    """Several digests are found in one query, each once and with its whole text."""
    asked = (ONE[:20], digest_of("9")[7:], ONE, TOP[7:].upper())
    rows = run_query("find", *asked)
    assert [row["query"] for row in rows] == [ONE, ONE, digest_of("9"), TOP, TOP]
    assert [row["role"] for row in rows] == [*("manifest",) * 2, "unknown", *("layer",) * 2]


@pytest.mark.usefixtures("images")
def test_only_current_tags_are_found(run_query: RunQuery) -> None:
    """Only the intervals that last are found if the current ones are asked for."""
    assert tags_of(run_query("find", ONE, current=True)) == ["multi"]
    assert run_query("find", digest_of("9"), current=True)[0]["role"] == "unknown"


@pytest.mark.usefixtures("images")
def test_digests_are_counted(run_query: RunQuery) -> None:
    """The tags that lead to a digest now, and ever, are counted once each."""
    rows = list(summarize(run_query("find", ONE, BASE, digest_of("9"))))
    assert [tuple(row.values()) for row in rows] == [
        (ONE, "manifest", 1, 2, 1),
        (BASE, "layer", 2, 3, 1),
        (digest_of("9"), "unknown", 0, 0, 0),
    ]


def image_of(text: str) -> Image:
    """Return the image whose manifest is this text."""
    image = fetched_image(f"sha256:{sha256(text.encode()).hexdigest()}", text.encode(), "")
    assert image is not None
    return image


@pytest.fixture
def record_images(job: Job, store: Store, clock: FakeClock) -> Callable[..., None]:
    """Poll a repository whose tags point to these images."""

    def record(*children: Image, **tags: Image) -> None:
        registry = Scripted(clock)
        registry.then(*(Tag(name, image.digest) for name, image in tags.items()))
        listing: Any = registry.script.pop()
        given = {
            "images": {image.digest: image for image in tags.values()},
            "children": {image.digest: image for image in children},
        }
        registry.script.append(msgspec.structs.replace(listing, **given))
        poll(Job(job.repository, registry, INTERVAL), store, clock=clock)

    return record


def tags_of(rows: list[Row]) -> list[str]:
    return [row["tag"] for row in rows]


def is_without_faults(rows: list[Row]) -> bool:
    return {row["result"] for row in rows} == {"ok"}


def test_layer_that_an_index_calls_a_manifest_is_found(
    record_images: Callable[..., None], run_query: RunQuery
) -> None:
    """A layer is found in its image even if an index references it as a manifest."""
    layered = image_of(manifest_of(TOP, config=CONFIG))
    record_images(layered=layered, index=image_of(index_of(amd64=TOP)))
    assert tags_of(run_query("find", TOP)) == ["index", "layered"]


def test_digests_in_escaped_json_are_found(
    record_images: Callable[..., None], run_query: RunQuery
) -> None:
    """Digests are found and records verify, even if the JSON escapes their letters."""
    layer = f"sha256:ab{'0' * 62}"
    spelled = {letter: f"\\u{ord(letter):04x}" for letter in "abcdef"}
    child = image_of(manifest_of(layer, config=CONFIG))
    index, layered = (
        image_of(text.replace(digest, digest[:7] + "".join(spelled.get(c, c) for c in digest[7:])))
        for text, digest in (
            (index_of(amd64=child.digest), child.digest),
            (manifest_of(layer, config=CONFIG), layer),
        )
    )
    record_images(child, index=index, layered=layered)
    assert tags_of(run_query("find", layer)) == ["index", "layered"]
    assert is_without_faults(run_query("verify"))


def test_configuration_with_another_algorithm_is_not_ambiguous(
    record_images: Callable[..., None], run_query: RunQuery
) -> None:
    """A configuration whose digest names its algorithm is found as one digest."""
    config = f"sha512:{'ab' * 64}"
    record_images(one=image_of(manifest_of(BASE, config=config)))
    assert tags_of(run_query("find", config[7:])) == ["one"]


@pytest.mark.parametrize("name", ["a\0b", "", "latest", "SHA256:" + "A" * 64, "0" * 14])
def test_index_with_an_invalid_digest_verifies(
    record_images: Callable[..., None], run_query: RunQuery, name: str
) -> None:
    """An index that references an invalid digest verifies, and the rest is found."""
    record_images(index=image_of(index_of(amd64=name, arm64=ONE)))
    assert is_without_faults(run_query("verify"))
    assert tags_of(run_query("find", ONE)) == ["index"]


def test_images_are_found_after_a_vacuum(
    record_images: Callable[..., None], run_query: RunQuery, database: Path
) -> None:
    """Images keep their ids in a VACUUM, and are found as before."""
    layers = [f"sha256:{sha256(str(n).encode()).hexdigest()}" for n in range(20)]
    images = [image_of(manifest_of(layer, BASE, config=CONFIG)) for layer in layers]
    record_images(**{f"v{n}": image for n, image in enumerate(images[:7])})
    record_images(**{f"v{n}": image for n, image in enumerate(images)})
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM")
    for n, layer in enumerate(layers):
        assert tags_of(run_query("find", layer)) == [f"v{n}"]
    assert len(run_query("find", BASE)) == len(images)
    assert is_without_faults(run_query("verify"))


def test_digests_with_the_same_prefix_are_distinguished(
    record_images: Callable[..., None], run_query: RunQuery
) -> None:
    """Digests with the same first digits lead to their own tags only."""
    near, far = f"sha256:{'7' * 20}{'8' * 44}", f"sha512:{'7' * 128}"
    other = f"sha256:{'7' * 64}"
    record_images(
        near=image_of(manifest_of(near, config=CONFIG)),
        far=image_of(manifest_of(far, config=CONFIG)),
        other=image_of(manifest_of(other, config=CONFIG)),
        referring=image_of(json.dumps({"annotations": {"x": near}, "layers": [{"digest": other}]})),
    )
    assert tags_of(run_query("find", near)) == ["near"]
    for text in ("sha512:" + "7" * 6, "sha512:" + "7" * 65, "7" * 128):
        assert tags_of(run_query("find", text)) == ["far"]
    assert tags_of(run_query("find", other)) == ["other", "referring"]


@pytest.mark.usefixtures("images")
def test_found_tag_has_its_interval(run_query: RunQuery) -> None:
    """A found tag has the interval in which it led to the digest, even a past one."""
    times = ("not_before", "valid_from", "still_at", "valid_to")
    rows = {row["tag"]: [row[name] for name in times] for row in run_query("find", ONE)}
    assert rows["plain"] == [None, at(0), at(5), at(10)]
    assert rows["multi"] == [None, at(0), at(10), None]


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("5" * 20, f"the beginning of 2 digests, {TOP} and {AMBIGUOUS} among them"),
        ("sha256:12345", "at least 6"),
        ("latest", "invalid digest"),
        ("", "invalid digest"),
        ("sha256:" + "0" * 200, "invalid digest"),
        (f"{ONE}0", "64 at most for sha256"),
        ("7" * 65, "64 at most for sha256"),
        ("7" * 127, "64 at most for sha256"),
        ("1' OR 1=1", "invalid digest"),
    ],
)
def test_ambiguous_digest_prefix_is_rejected(run_query: RunQuery, text: str, sentence: str) -> None:
    """An ambiguous prefix and an invalid digest are rejected with the reason."""
    with pytest.raises(UnclearQuestion, match=sentence):
        run_query("find", text)


@pytest.mark.usefixtures("images")
def test_some_rows_of_a_digest(database: Path) -> None:
    """A bounded search has the rows of `find` in their order, or says that it lacks some."""
    with Audit.open(database) as audit:
        for digest in (ONE, BASE, CONFIG, digest_of("0")):
            assert audit.find_some(digest, 100) == (list(audit.find(digest)), True)
        rows, complete = audit.find_some(BASE, 2)
        assert (len(rows), complete) == (2, False)
        assert [row for row in audit.find(BASE) if row in rows] == rows
        ((newest,), _) = audit.find_some(BASE, 1)
        assert newest["digest"] == TWO


@pytest.mark.usefixtures("images")
def test_digests_that_begin_with_a_text(database: Path) -> None:
    """The beginnings of manifests, configurations and layers are found, whole and sorted."""
    with Audit.open(database) as audit:
        assert audit.digests_beginning("5" * 10) == [TOP, AMBIGUOUS]
        assert audit.digests_beginning("sha256:" + "5" * 30) == [digest_of("5")]
        assert audit.digests_beginning(ONE[:20].upper()) == [ONE]
        assert audit.digests_beginning(CONFIG[7:]) == [CONFIG]
        assert audit.digests_beginning("sha512:" + "1" * 10) == []
        with pytest.raises(UnclearQuestion, match="invalid digest"):
            audit.digests_beginning("12345")
