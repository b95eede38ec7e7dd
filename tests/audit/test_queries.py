"""What the questions answer, and how sure the answers say that they are."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tagsync.audit.at_moment import HISTORIES_SQL
from tagsync.audit.digest_search import TAGS_OF_DIGEST_SQL
from tagsync.audit.queries import Audit
from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.errors import UnclearQuestion, Unreachable
from tagsync.manifests import fetched_image
from tagsync.models import Image, Listing, Repository, Tag
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY, Scripted

INTERVAL = timedelta(minutes=5)
Row = dict[str, Any]


def at(minutes: float) -> str:
    """The moment so many minutes after the clock of the tests began."""
    return timestamp(FakeClock().now + timedelta(minutes=minutes))


@pytest.fixture
def ask(database: Path) -> Callable[..., list[Row]]:
    """Asks one question of the database."""

    def question(name: str, *arguments: Any, **options: Any) -> list[Row]:
        with Audit.open(database) as audit:
            return list(getattr(audit, name)(*arguments, **options))

    return question


Ask = Callable[..., list[Row]]


@pytest.fixture
def poll_at(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> Callable[..., None]:
    """Polls at a minute, and finds these tags, or fails."""

    def look(minute: float, *tags: Tag | str, fails: bool = False, **options: bool) -> None:
        clock.now = FakeClock().now + timedelta(minutes=minute)
        if fails:
            scripted.script.append(Unreachable("no connection"))
        else:
            scripted.then(*tags)
        poll(job, store, Options(**options), clock)

    return look


PollAt = Callable[..., None]


def told(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [
        tuple(
            row[name]
            for name in ("tag", "digest", "present", "certainty", "unsure_from", "unsure_until")
        )
        for row in rows
    ]


def moved(tag: str, digest: str) -> Tag:
    return Tag(tag, f"sha256:{digest}")


# --- at a moment ---------------------------------------------------------------------------------


def test_before_the_first_listing_nothing_is_known(poll_at: PollAt, ask: Ask) -> None:
    """Before the first complete listing a row says so, and there is no tag in it."""
    poll_at(0, fails=True)
    assert told(ask("tags_at", (), at(1))) == [(None, None, None, "unknown", None, None)]
    poll_at(5, "a")
    assert told(ask("tags_at", (), at(4))) == [(None, None, None, "unknown", None, at(5))]
    assert told(ask("tags_at", (), at(5))) == [("a", "sha256:a", True, "certain", None, None)]


def test_between_two_listings_a_tag_that_moved_is_uncertain(poll_at: PollAt, ask: Ask) -> None:
    """Both digests are shown, with the window in which it moved; the tag that stayed is certain."""
    poll_at(0, "a", "b")
    poll_at(5, moved("a", "x"), "b")
    assert told(ask("tags_at", (), at(3))) == [
        ("a", "sha256:a", True, "uncertain", at(0), at(5)),
        ("a", "sha256:x", True, "uncertain", at(0), at(5)),
        ("b", "sha256:b", True, "certain", None, None),
    ]
    assert told(ask("tags_at", (), at(5)))[0] == ("a", "sha256:x", True, "certain", None, None)
    assert told(ask("tags_at", (), at(0)))[0] == ("a", "sha256:a", True, "certain", None, None)


def test_a_tag_that_may_not_have_been_there_is_shown_so(poll_at: PollAt, ask: Ask) -> None:
    """Within the window of a deletion, and of an addition, absence is one of the possibilities."""
    poll_at(0, "a", "b", "c")
    poll_at(5, "b", "c")
    poll_at(10, "a", "b", "c")
    expected = [("a", True), ("a", False)]
    for minute, rows in ((3, expected), (7, expected[::-1])):
        answer = ask("tags_at", (), at(minute))
        assert [(r["tag"], r["present"]) for r in answer if r["certainty"] == "uncertain"] == rows
    assert [row["tag"] for row in ask("tags_at", (), at(5))] == ["b", "c"]


def test_in_a_hole_nothing_was_observed(poll_at: PollAt, ask: Ask) -> None:
    """In a hole all is what was last known, with since when and until when nobody looked."""
    poll_at(0, "a", "b")
    poll_at(60, moved("a", "x"), "b")
    hole = ("not observed", at(0), at(60))
    assert told(ask("tags_at", (), at(30))) == [
        ("a", "sha256:a", True, *hole),
        ("a", "sha256:x", True, *hole),
        ("b", "sha256:b", True, *hole),
    ]


@pytest.mark.parametrize("held", [False, True])
def test_a_poll_that_showed_nothing_is_no_look(poll_at: PollAt, ask: Ask, held: bool) -> None:
    """Between two listings with a failed or a held poll between them, nothing was observed."""
    poll_at(0, "a")
    poll_at(5, fails=not held)
    poll_at(10, "a")
    hole = ("not observed", at(0), at(10))
    assert told(ask("tags_at", (), at(5))) == [("a", "sha256:a", True, *hole)]
    assert told(ask("tags_at", (), at(10)))[0][3] == "certain"


def test_after_the_last_listing_nothing_is_observed_yet(poll_at: PollAt, ask: Ask) -> None:
    """What is newer than the last listing is what was last known, with no end to the doubt."""
    poll_at(0, "a")
    assert told(ask("tags_at", (), at(1))) == [("a", "sha256:a", True, "not observed", at(0), None)]


def test_an_empty_repository_that_was_not_seen_says_so(poll_at: PollAt, ask: Ask) -> None:
    """No row at all means certainly no tag; where that is not certain, a row says why."""
    poll_at(0)
    poll_at(60)
    assert ask("tags_at", (), at(0)) == []
    assert told(ask("tags_at", (), at(30))) == [(None, None, None, "not observed", at(0), at(60))]


def test_a_listing_that_took_long_leaves_a_longer_doubt(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, ask: Ask
) -> None:
    """A tag may have moved once it had been read, so the doubt begins when the reading began."""
    scripted.then("a", started_at=at(0), finished_at=at(1))
    scripted.then(moved("a", "x"), started_at=at(5), finished_at=at(6))
    scripted.then(moved("a", "y"), started_at=at(10), finished_at=at(11))
    for minute in (1, 6, 11):
        clock.now = FakeClock().now + timedelta(minutes=minute)
        poll(job, store, clock=clock)
    assert told(ask("tags_at", (), at(5.5))) == [
        ("a", f"sha256:{digest}", True, "uncertain", at(0), at(11)) for digest in "axy"
    ]
    assert [row["digest"] for row in ask("tags_at", (), at(3))] == ["sha256:a", "sha256:x"]


def test_every_field_is_as_it_was(poll_at: PollAt, ask: Ask) -> None:
    """What is shown beside the digest is of that moment too, null where it had been taken away."""
    poll_at(0, Tag("a", "sha256:a", image_id="1", size=1, updated="then"))
    poll_at(5, Tag("a", "sha256:a", image_id="2", updated="later"))
    names = ("image_id", "size", "updated", "changed_at")
    (before,), (after,) = (ask("tags_at", (), at(minute)) for minute in (0, 5))
    assert [before[name] for name in names] == ["1", 1, "then", at(0)]
    assert [after[name] for name in names] == ["2", None, "later", at(5)]


def test_now_is_what_tags_says(poll_at: PollAt, ask: Ask) -> None:
    """At the last listing, the answer is that of tags without a moment."""
    poll_at(0, "a", "b", Tag("c", "sha256:c", size=3))
    poll_at(5, "a", moved("b", "x"), Tag("c", "sha256:c", size=4), "d")
    then = ask("tags_at", (), at(5))
    now = ask("tags", ())
    assert [{name: row[name] for name in now[0]} for row in then] == now


# --- between two moments -------------------------------------------------------------------------


def differences(rows: list[Row]) -> list[tuple[Any, ...]]:
    names = ("tag", "kind", "old_digest", "new_digest", "certainty")
    return [tuple(row[name] for name in names) for row in rows]


def test_the_net_difference(poll_at: PollAt, ask: Ask) -> None:
    """What was undone in between is not in it; what changed several times is one row."""
    poll_at(0, "a", "b", "c", "d")
    poll_at(5, moved("a", "x"), moved("b", "x"), "d", "e")
    poll_at(10, moved("a", "y"), "b", "d", "e")
    rows = ask("diff", (), at(0), at(10))
    assert differences(rows) == [
        ("a", "updated", "sha256:a", "sha256:y", "certain"),
        ("c", "deleted", "sha256:c", None, "certain"),
        ("e", "added", None, "sha256:e", "certain"),
    ]
    assert json.loads(rows[0]["fields"]) == {"digest": ["sha256:a", "sha256:y"]}
    assert ask("diff", (), at(0), None) == rows
    assert ask("diff", (), at(10), at(10)) == []


def test_what_is_null_again_is_no_difference(poll_at: PollAt, ask: Ask) -> None:
    """A field that was not sent, then was, and then was not, is what it was."""
    poll_at(0, "a")
    poll_at(5, Tag("a", "sha256:a", size=1))
    poll_at(10, "a")
    assert ask("diff", (), at(0), at(10)) == []


def test_a_difference_is_as_sure_as_its_ends(poll_at: PollAt, ask: Ask) -> None:
    """From or to a moment within a change, the difference is uncertain, and so marked."""
    poll_at(0, "a")
    poll_at(5, moved("a", "x"))
    step = ("a", "updated", "sha256:a", "sha256:x")
    assert differences(ask("diff", (), at(3), at(5))) == [(*step, "uncertain")]
    assert differences(ask("diff", (), at(0), at(3))) == [(*step, "uncertain")]
    assert differences(ask("diff", (), at(2), at(3))) == [(*step, "uncertain")]
    assert differences(ask("diff", (), at(0), at(7))) == [
        (None, None, None, None, "not observed"),
        (*step, "not observed"),
    ]


def test_from_before_the_first_listing_there_is_no_difference(poll_at: PollAt, ask: Ask) -> None:
    """What was before the first listing is unknown, and so is how it differs."""
    poll_at(0, "a")
    assert differences(ask("diff", (), at(-1), at(0))) == [(None, None, None, None, "unknown")]


# --- the changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"since": at(3)}, [3, 4, 5]),
        ({"since": at(5)}, [3, 4, 5]),
        ({"since": at(6)}, [5]),
        ({"until": at(4)}, [1, 2, 3, 4]),
        ({"until": at(-1)}, []),
        ({"since": at(6), "until": at(7)}, [5]),
        ({"kinds": ["deleted", "added"]}, [1, 2, 4, 5]),
        ({"kinds": ["updated"]}, [3]),
        ({"tag": "a"}, [1, 3]),
        ({"tag": "[bc]"}, [2, 4, 5]),
        ({"tag": "nope"}, []),
    ],
    ids=str,
)
def test_what_may_have_happened_is_shown(
    poll_at: PollAt, ask: Ask, options: dict[str, Any], expected: list[int]
) -> None:
    """A change is left out only if it certainly happened outside of what is asked for."""
    poll_at(0, "a", "b")
    poll_at(5, moved("a", "x"))
    poll_at(10, moved("a", "x"), "c")
    rows = ask("log", (), **options)
    assert [row["id"] for row in rows] == expected


def test_a_pattern_chooses_changes(
    store: Store, scripted: Scripted, clock: FakeClock, ask: Ask
) -> None:
    """Among several repositories only the changes of those that match are shown, oldest first."""
    for name in ("team/a", "team/b", "other/c"):
        scripted.then("x", "y")
        poll(Job(Repository("swr", name), scripted, INTERVAL), store, clock=clock)
    assert [row["id"] for row in ask("log", ("swr/team/*",))] == [1, 2, 3, 4]
    assert [row["id"] for row in ask("log", ("*c", "*a"), tag="y")] == [2, 6]


# --- coverage ------------------------------------------------------------------------------------


def covered(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in ("from", "to", "state", "polls")) for row in rows]


def test_when_we_looked(poll_at: PollAt, ask: Ask) -> None:
    """Runs of polls and the holes between them follow each other without a gap."""
    poll_at(0, "a")
    poll_at(5, "a")
    poll_at(10, fails=True)
    poll_at(15, fails=True)
    poll_at(60, "a")
    poll_at(65)
    rows = covered(ask("coverage", ()))
    assert rows == [
        (at(0), at(5), "looking", 2),
        (at(5), at(10), "hole", 0),
        (at(10), at(15), "failed", 2),
        (at(15), at(60), "hole", 0),
        (at(60), at(60), "looking", 1),
        (at(60), at(65), "hole", 0),
        (at(65), at(65), "held", 1),
    ]
    assert covered(ask("coverage", (), since=at(20), until=at(40))) == rows[3:4]
    assert covered(ask("coverage", (), since=at(-5), until=at(5))) == [
        (at(-5), at(0), "hole", 0),
        *rows[:2],
    ]
    assert covered(ask("coverage", (), since=at(65), until=at(90)))[-1] == (
        at(65),
        at(90),
        "hole",
        0,
    )


# --- where a digest is ---------------------------------------------------------------------------


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
    """A tag on an image, and one on an index of it and another; then the first moves away."""
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
        (digest_of("9"), []),
        ("abcdef", []),
    ],
)
def test_a_digest_leads_to_its_tags(ask: Ask, digest: str, expected: list[Any]) -> None:
    """A manifest, configuration or layer is found, through indexes too, by its beginning too."""
    assert found(ask("find", digest)) == expected


def content(text: str) -> Image:
    """An image whose bytes are these."""
    image = fetched_image(f"sha256:{sha256(text.encode()).hexdigest()}", text.encode(), "")
    assert image is not None
    return image


@pytest.fixture
def record(job: Job, store: Store, clock: FakeClock) -> Callable[..., None]:
    """Polls a repository whose tags lead to these images."""

    def list_(*children: Image, **tags: Image) -> None:
        registry = Scripted(clock)
        registry.then(*(Tag(name, image.digest) for name, image in tags.items()))
        listing: Any = registry.script.pop()
        given = {
            "images": {image.digest: image for image in tags.values()},
            "children": {image.digest: image for image in children},
        }
        registry.script.append(msgspec.structs.replace(listing, **given))
        poll(Job(job.repository, registry, INTERVAL), store, clock=clock)

    return list_


def tags_of(rows: list[Row]) -> list[str]:
    return [row["tag"] for row in rows]


def is_whole(rows: list[Row]) -> bool:
    return {row["result"] for row in rows} == {"ok"}


def test_what_an_index_calls_a_manifest_may_be_a_layer_too(
    record: Callable[..., None], ask: Ask
) -> None:
    """Who names a layer as a manifest hides none of the images that have it."""
    layered = content(manifest_of(TOP, config=CONFIG))
    record(layered=layered, index=content(index_of(amd64=TOP)))
    assert tags_of(ask("find", TOP)) == ["index", "layered"]


def test_escapes_of_json_hide_nothing(record: Callable[..., None], ask: Ask) -> None:
    """Digests are found, and true records verify, however JSON spells them."""
    layer = f"sha256:ab{'0' * 62}"
    spelled = {letter: f"\\u{ord(letter):04x}" for letter in "abcdef"}
    child = content(manifest_of(layer, config=CONFIG))
    index, layered = (
        content(text.replace(digest, digest[:7] + "".join(spelled.get(c, c) for c in digest[7:])))
        for text, digest in (
            (index_of(amd64=child.digest), child.digest),
            (manifest_of(layer, config=CONFIG), layer),
        )
    )
    record(child, index=index, layered=layered)
    assert tags_of(ask("find", layer)) == ["index", "layered"]
    assert is_whole(ask("verify"))


def test_a_configuration_keeps_its_algorithm(record: Callable[..., None], ask: Ask) -> None:
    """An image_id with an algorithm is no second digest beside the configuration that it is."""
    config = f"sha512:{'ab' * 64}"
    record(one=content(manifest_of(BASE, config=config)))
    assert tags_of(ask("find", config[7:])) == ["one"]


@pytest.mark.parametrize("name", ["a\0b", "", "latest", "SHA256:" + "A" * 64, "0" * 14])
def test_what_an_index_names_may_be_no_digest(
    record: Callable[..., None], ask: Ask, name: str
) -> None:
    """Whatever a registry writes in the place of a digest, the record of it verifies."""
    record(index=content(index_of(amd64=name, arm64=ONE)))
    assert is_whole(ask("verify"))
    assert tags_of(ask("find", ONE)) == ["index"]


def test_images_are_found_after_a_vacuum(
    record: Callable[..., None], ask: Ask, database: Path
) -> None:
    """Images keep their ids when SQLite rebuilds the file, and are found as before."""
    layers = [f"sha256:{sha256(str(n).encode()).hexdigest()}" for n in range(20)]
    images = [content(manifest_of(layer, BASE, config=CONFIG)) for layer in layers]
    record(**{f"v{n}": image for n, image in enumerate(images[:7])})
    record(**{f"v{n}": image for n, image in enumerate(images)})
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM")
    for n, layer in enumerate(layers):
        assert tags_of(ask("find", layer)) == [f"v{n}"]
    assert len(ask("find", BASE)) == len(images)
    assert is_whole(ask("verify"))


def test_a_key_is_told_from_another_that_begins_so(record: Callable[..., None], ask: Ask) -> None:
    """Of digests with the same first digits each leads to its own tags only."""
    near, far = f"sha256:{'7' * 20}{'8' * 44}", f"sha512:{'7' * 128}"
    other = f"sha256:{'7' * 64}"
    record(
        near=content(manifest_of(near, config=CONFIG)),
        far=content(manifest_of(far, config=CONFIG)),
        other=content(manifest_of(other, config=CONFIG)),
        told=content(json.dumps({"annotations": {"x": near}, "layers": [{"digest": other}]})),
    )
    assert tags_of(ask("find", near)) == ["near"]
    assert tags_of(ask("find", "sha512:" + "7" * 6)) == ["far"]
    assert tags_of(ask("find", other)) == ["other", "told"]


@pytest.mark.usefixtures("images")
def test_a_digest_is_found_with_its_interval(ask: Ask) -> None:
    """A tag that moved away is found still, with both ends of its time as sure as they are."""
    times = ("not_before", "valid_from", "still_at", "valid_to")
    rows = {row["tag"]: [row[name] for name in times] for row in ask("find", ONE)}
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
        ("1' OR 1=1", "invalid digest"),
    ],
)
def test_what_is_no_one_digest_is_refused(ask: Ask, text: str, sentence: str) -> None:
    """An invalid digest, and the beginning of two digests, is refused in a sentence."""
    with pytest.raises(UnclearQuestion, match=sentence):
        ask("find", text)


# --- how the answers are found -------------------------------------------------------------------

NOT_BY_INDEX = ("SCAN changes", "SCAN c", "SCAN n", "SCAN e", "SCAN i", "SCAN p", "SCAN images")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM tag_history WHERE repository = 'swr/team/api' AND tag = 'v1'",
        "SELECT * FROM tag_history WHERE repository_id = 1 AND tag = 'v1'",
        "SELECT * FROM tag_history WHERE digest = 'sha256:1'",
        "SELECT * FROM tag_history WHERE digest IN ('sha256:1', 'sha256:2') AND digest > ''",
        "SELECT * FROM tag_history WHERE digest GLOB 'sha256:1*' AND digest > ''",
        "SELECT * FROM change_log WHERE repository = 'swr/team/api' AND tag = 'v1' ORDER BY id",
        "SELECT * FROM change_log WHERE observed_at >= '2026-05-03'",
        (
            "SELECT * FROM change_log WHERE repository_id IN (SELECT value FROM json_each('[1]'))"
            " ORDER BY id"
        ),
        HISTORIES_SQL,
        TAGS_OF_DIGEST_SQL,
    ],
)
def test_no_question_reads_all_changes(store: Store, database: Path, sql: str) -> None:
    """The history of a tag, a repository at a moment and a digest are all found by an index."""
    del store
    with closing(sqlite3.connect(database)) as connection:
        parameters = ["[]"] * sql.count("?")
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert plan
    assert not [
        line for line in plan if f"{line} ".startswith(tuple(f"{s} " for s in NOT_BY_INDEX))
    ]
    if sql is HISTORIES_SQL:
        assert not [line for line in plan if "TEMP B-TREE" in line]


# --- a model that remembers everything -----------------------------------------------------------


class Killed(BaseException):
    """What ends a process, as far as its objects can tell."""


class Fatal(Mapping[str, Image]):
    """Images that kill whoever reads them, which happens within the transaction."""

    def __getitem__(self, key: str) -> Image:
        raise Killed

    def __iter__(self) -> Iterator[str]:
        raise Killed

    def __len__(self) -> int:
        raise Killed


class Look:
    """A complete listing that was believed: when it was read, and what it had."""

    def __init__(self, started: str, finished: str, tags: dict[str, str]) -> None:
        self.started, self.finished, self.tags = started, finished, dict(tags)


NAMES = st.sampled_from("abcd")


class Rememberer(RuleBasedStateMachine):
    """A registry to which anything happens, a store that polls it, and one who remembers it all."""

    @initialize()
    def begin(self) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
        self.folder = TemporaryDirectory()
        self.database = Path(self.folder.name) / "tagsync.db"
        self.store = Store.open(self.database)
        self.clock = FakeClock()
        self.registry = Scripted(self.clock)
        self.job = Job(REPOSITORY, self.registry, INTERVAL)
        self.tags: dict[str, str] = {}
        self.looks: list[Look] = []
        self.runs: list[tuple[str, str]] = []
        self.seeing = False
        self.moments = {timestamp(self.clock.now - timedelta(days=1))}

    @rule(name=NAMES, digest=st.sampled_from("xyz"))
    def push_or_move(self, name: str, digest: str) -> None:
        self.tags[name] = f"sha256:{digest}"
        self.pass_time(seconds=1)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.tags.pop(name, None)
        self.pass_time(seconds=1)

    @rule(minutes=st.sampled_from([1, 4, 9, 30]))
    def wait(self, minutes: int) -> None:
        self.pass_time(minutes=minutes)

    @rule(seconds=st.sampled_from([0, 20]), accept=st.booleans())
    def poll_at(self, seconds: int, accept: bool) -> None:
        started = self.list_all(seconds)
        poll_at = poll(self.job, self.store, Options(accept_deletions=accept), self.clock)
        if poll_at.outcome == "ok":
            self.remember(started)
        else:
            assert poll_at.outcome == "held"
            self.seeing = False
        self.pass_time(seconds=1)

    @rule()
    def fail(self) -> None:
        self.registry.script.append(Unreachable("no connection"))
        assert poll(self.job, self.store, clock=self.clock).outcome == "failed"
        self.seeing = False
        self.pass_time(seconds=1)

    @rule()
    def kill_before_the_commit(self) -> None:
        self.list_all(0, images=Fatal())
        with pytest.raises(Killed):
            poll(self.job, self.store, Options(accept_deletions=True), self.clock)
        self.restart()

    @rule()
    def kill_after_the_commit(self) -> None:
        started = self.list_all(5)

        def kill(*_: Any) -> Any:
            raise Killed

        # The first line of a poll's log follows its commit.
        structlog.configure(
            processors=[kill],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
            cache_logger_on_first_use=False,
        )
        try:
            with pytest.raises(Killed):
                poll(self.job, self.store, Options(accept_deletions=True), self.clock)
        finally:
            structlog.reset_defaults()
        self.remember(started)
        self.restart()

    def list_all(self, seconds: int, images: Mapping[str, Image] | None = None) -> str:
        """Scripts a listing of everything that takes so long; returns when it began."""
        started = timestamp(self.clock.now)
        self.pass_time(seconds=seconds)
        tags = {name: Tag(name, digest) for name, digest in self.tags.items()}
        had = {digest: Image(digest) for digest in self.tags.values()}
        finished = timestamp(self.clock.now)
        self.registry.script.append(
            Listing(tags, had if images is None else images, started, finished, fingerprint=None)
        )
        return started

    def remember(self, started: str) -> None:
        now = timestamp(self.clock.now)
        self.looks.append(Look(started, now, self.tags))
        last = self.runs[-1] if self.runs and self.seeing else None
        if last and self.clock.now - FakeClock().now.fromisoformat(last[1]) <= 2 * INTERVAL:
            self.runs[-1] = (last[0], now)
        else:
            self.runs.append((now, now))
        self.seeing = True

    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(self.database)
        self.registry.script.clear()
        self.pass_time(seconds=1)

    def pass_time(self, **by: float) -> None:
        before = self.clock.now
        self.clock.advance(**by)
        between = before + (self.clock.now - before) / 2
        self.moments |= {timestamp(moment) for moment in (before, between, self.clock.now)}

    def expected(self, moment: str) -> set[tuple[Any, ...]]:
        """What the one who remembers everything answers."""
        past = [number for number, look in enumerate(self.looks) if look.finished <= moment]
        if not past:
            return {(None, None, None, "unknown")}
        looking = any(first <= moment <= last for first, last in self.runs)
        possible = [self.looks[past[-1]]]
        for before, after in pairwise(self.looks[past[-1] :]):
            if before.started < moment:
                possible.append(after)
        rows: set[tuple[Any, ...]] = set()
        for name in "abcd":
            digests = [look.tags.get(name) for look in possible]
            if any(digests):
                sure = "certain" if len(set(digests)) == 1 else "uncertain"
                certainty = sure if looking else "not observed"
                rows |= {(name, digest, digest is not None, certainty) for digest in digests}
        return rows or (set() if looking else {(None, None, None, "not observed")})

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.check()
        finally:
            self.store.close()
            self.folder.cleanup()
            structlog.reset_defaults()

    def check(self) -> None:
        if self.store.state(REPOSITORY).id is None:
            return
        with Audit.open(self.database) as audit:
            answers: dict[str, set[tuple[Any, ...]]] = {}
            for moment in sorted(self.moments):
                answers[moment] = {row[:4] for row in told(list(audit.tags_at((), moment)))}
                assert answers[moment] == self.expected(moment), moment
            self.check_differences(audit, answers)
            assert {row["result"] for row in audit.verify()} == {"ok"}

    def check_differences(self, audit: Audit, answers: dict[str, set[tuple[Any, ...]]]) -> None:
        """Between moments that are certain, diff says what their answers do."""
        certain = {
            moment: {row[0]: row[1] for row in rows}
            for moment, rows in answers.items()
            if all(row[3] == "certain" for row in rows)
        }
        for start, end in pairwise(sorted(certain)):
            old, new = certain[start], certain[end]
            expected = {
                (name, old.get(name), new.get(name))
                for name in old.keys() | new.keys()
                if old.get(name) != new.get(name)
            }
            rows = list(audit.diff((), start, end))
            assert {(r["tag"], r["old_digest"], r["new_digest"]) for r in rows} == expected
            assert {row["certainty"] for row in rows} <= {"certain"}


TestRememberer = Rememberer.TestCase
TestRememberer.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
