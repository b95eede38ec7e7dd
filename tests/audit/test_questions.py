"""The saved questions: the answers to each, and the page that shows their SQL."""

import json
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.audit.questions import QUESTIONS
from tagsync.clock import parse_timestamp, timestamp, utc_now
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.models import Image, Listing, Repository, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.web.queries import state
from tests.support.clock import FakeClock
from tests.support.documents import read_page
from tests.support.immutable import add_acceptance, add_violation
from tests.support.registries import INTERVAL, Scripted, World

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
Rows = list[dict[str, Any]]
Answer = Callable[..., Rows]


def ask(database: Path, slug: str, **parameters: object) -> Rows:
    """Answer a question through a read-only connection, as any SQLite client would."""
    (question,) = (question for question in QUESTIONS if question.slug == slug)
    bound = {
        parameter.name: parameters.pop(parameter.name, None) for parameter in question.parameters
    }
    assert not parameters
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(question.sql, bound)]


def picked(rows: Rows, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


API, WEB, GONE, NEVER = "team/api", "team/web", "team/gone", "team/never"


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    """The digest of each image, by the content that was pushed."""
    return {}


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory, digests: dict[str, str]) -> Path:
    """A month of polls of a small registry; the last poll was just now."""
    path = tmp_path_factory.mktemp("questions") / "tagsync.db"
    clock = FakeClock()
    clock.now = utc_now() - timedelta(days=30)
    with Emulator(clock=clock) as emulator, Store.open(path) as store:
        world = World(emulator, store, clock)
        try:
            record_month(world, digests)
        finally:
            world.close()
    return path


def record_month(world: World, digests: dict[str, str]) -> None:
    def push(repository: str, tag: str, content: str) -> None:
        digests[content] = world.emulator.push(repository, tag, content)

    push(API, "latest", "A")
    push(API, "v1.0.0", "A")
    push(API, "preview", "P")
    push(WEB, "same-as-api", "A")
    push(WEB, "stable", "W")
    push(WEB, "0abc123", "W")
    push(GONE, "only", "G")
    index = json.dumps({"mediaType": INDEX_TYPE, "manifests": [{"digest": digests["W"]}]})
    digest = f"sha256:{sha256(index.encode()).hexdigest()}"
    world.emulator.push(WEB, "multi", Image(digest, media_type=INDEX_TYPE, manifest=index))
    world.poll(API, WEB, GONE)

    push(API, "latest", "B")
    world.emulator.delete(API, "v1.0.0")
    world.emulator.delete(WEB, "stable")
    world.emulator.set_fields(WEB, "0abc123", is_trusted=True)
    world.emulator.delete_repository(GONE)
    world.poll(API, WEB, GONE)

    push(API, "latest", "A")
    push(API, "v1.0.0", "C")
    push(WEB, "stable", "W")
    world.poll(API, WEB, GONE)

    world.emulator.delete(API, "preview")
    world.poll(API, WEB, after=timedelta(hours=3))
    world.fail(WEB)
    world.fail(WEB)
    world.fail(NEVER)
    world.poll(WEB)

    push(API, "latest", "D")
    world.poll(API, after=timedelta(days=27))
    world.poll(API, after=utc_now() - world.clock.now)


@pytest.fixture
def answer(month: Path) -> Answer:
    return lambda slug, **parameters: ask(month, slug, **parameters)


def test_tags_that_moved_last_week(answer: Answer, digests: dict[str, str]) -> None:
    """Only moves in the given days are listed, newest first, each with its interval."""
    columns = ("repository", "tag", "old_digest", "new_digest")
    newest = ("swr/team/api", "latest", digests["A"], digests["D"])
    (row,) = answer("moved-last-week")
    assert picked([row], *columns) == [newest]
    assert row["not_before"] < row["observed_at"]
    assert picked(answer("moved-last-week", days=60), *columns) == [
        newest,
        ("swr/team/api", "latest", digests["B"], digests["A"]),
        ("swr/team/api", "latest", digests["A"], digests["B"]),
    ]
    assert answer("moved-last-week", days=1) == []


def test_tags_that_moved_more_than_once(answer: Answer) -> None:
    """A tag with one move, or with a change of another field, is not listed."""
    rows = answer("moved-more-than-once", days=60)
    assert picked(rows, "repository", "tag", "moves") == [("swr/team/api", "latest", 3)]
    assert answer("moved-more-than-once", days=0) == answer("moved-more-than-once", days="0")
    assert answer("moved-more-than-once", days="0") == rows
    assert answer("moved-more-than-once") == []
    assert rows[0]["first_observed_at"] < rows[0]["last_observed_at"]


def test_tags_that_were_rolled_back(answer: Answer, digests: dict[str, str]) -> None:
    """A move back to an earlier digest is a rollback; restoring a deleted tag is not."""
    (row,) = answer("rollbacks", days=60)
    assert picked([row], "repository", "tag", "digest", "instead_of") == [
        ("swr/team/api", "latest", digests["A"], digests["B"])
    ]
    assert row["came_before_at"] < row["not_before"] < row["observed_at"]
    assert answer("rollbacks", days=0) == answer("rollbacks", days="0") == [row]
    assert answer("rollbacks") == []


def test_rollbacks_of_the_newest_moves(answer: Answer, month: Path) -> None:
    """Only as many moves as wanted are examined, and the page learns since when."""
    (question,) = (each for each in QUESTIONS if each.slug == "rollbacks")
    assert question.examined
    newest_first = [row["observed_at"] for row in answer("moved-last-week", days=60)]
    with closing(sqlite3.connect(month)) as connection:
        every = [at for (at,) in connection.execute("SELECT observed_at FROM tag_moves")]
        for moves, number in ((1, 1), (2, 2), (0, len(every)), ("", len(every))):
            found = connection.execute(question.examined, {"days": 0, "moves": moves}).fetchone()
            assert found == (number, sorted(every)[-number])
        assert connection.execute(question.examined, {"days": 1, "moves": ""}).fetchone() == (
            0,
            None,
        )
    # The newest move led to a new image, and a tag that was deleted came back with another one.
    assert len(newest_first) == 3
    assert len(every) == 4
    assert answer("rollbacks", days=0, moves=1) == []
    assert answer("rollbacks", **dict(question.all_of_it)) == answer("rollbacks", days=0)
    assert len(answer("rollbacks", days=0, moves=3)) == 1


def test_tags_with_a_layer(answer: Answer, month: Path) -> None:
    """A layer leads to the tags of its images and their indexes; no layer to none."""
    with closing(sqlite3.connect(month)) as connection:
        own = "SELECT layer_digest FROM image_layers WHERE digest = ? AND position = 1"
        stable = "SELECT digest FROM tags WHERE tag = 'stable'"
        (digest,) = connection.execute(stable).fetchone()
        (layer,) = connection.execute(own, (digest,)).fetchone()
        (base,) = connection.execute(own.replace("1", "0"), (digest,)).fetchone()
    assert picked(answer("tags-with-layer", layer=layer), "repository", "tag") == [
        ("swr/team/web", "0abc123"),
        ("swr/team/web", "multi"),
        ("swr/team/web", "stable"),
    ]
    assert len(answer("tags-with-layer", layer=base)) == 6
    assert answer("tags-with-layer", layer=base, images=0) == answer("tags-with-layer", layer=base)
    assert len(answer("tags-with-layer", layer=base, images=1)) == 1
    for missing in ("sha256:" + "0" * 64, base[:-1], base[7:], '"', "", None):
        assert answer("tags-with-layer", layer=missing) == []


def test_former_tags_elsewhere_do_not_count(answer: Answer, month: Path) -> None:
    """An image counts only while tags of two repositories point to it."""
    with closing(sqlite3.connect(month)) as connection:
        once = connection.execute(
            "SELECT count(DISTINCT repository) FROM tag_history GROUP BY digest ORDER BY 1 DESC"
        ).fetchone()
    assert once == (2,)
    assert answer("same-image-elsewhere", repository="*") == []


def test_deleted_tags(answer: Answer, digests: dict[str, str]) -> None:
    """Deletions are listed newest first, with the last digest and the uncertain hours."""
    columns = ("repository", "tag", "old_digest", "hours_uncertain")
    assert picked(answer("deleted"), *columns) == [
        ("swr/team/api", "preview", digests["P"], 3.0),
        ("swr/team/gone", "only", digests["G"], 0.17),
        ("swr/team/web", "stable", digests["W"], 0.08),
        ("swr/team/api", "v1.0.0", digests["A"], 0.08),
    ]


def test_immutable_looking_tags_that_moved(answer: Answer, digests: dict[str, str]) -> None:
    """A full version that was deleted and pushed anew is listed; `latest` is not."""
    columns = ("repository", "tag", "old_digest", "new_digest")
    assert picked(answer("immutable-tags-that-moved"), *columns) == [
        ("swr/team/api", "v1.0.0", digests["A"], digests["C"])
    ]


def test_immutable_tags_that_changed(
    scripted: Scripted, store: Store, database: Path, clock: FakeClock
) -> None:
    """The open changes of immutable tags come first, then those that were accepted, with why."""
    for digest in ("sha256:1", "sha256:2", "sha256:3"):
        scripted.then(Tag("v1", digest))
        poll(Job(Repository("swr", "team/api"), scripted, INTERVAL), store, clock=clock)
        clock.advance(minutes=5)
    assert ask(database, "immutable-tags-that-changed") == []
    add_violation(database, 2, previous="sha256:1")
    add_violation(database, 3, previous="sha256:2")
    add_acceptance(database, 3)
    columns = ("change_id", "tag", "previous_digest", "new_digest", "reason")
    assert picked(ask(database, "immutable-tags-that-changed"), *columns) == [
        (2, "v1", "sha256:1", "sha256:2", None),
        (3, "v1", "sha256:2", "sha256:3", "a rebuild"),
    ]
    assert ask(database, "immutable-tags-that-changed", repository="swr/team/web") == []


def test_biggest_images(answer: Answer, month: Path) -> None:
    """Images that are tagged now are listed once each, the biggest first."""
    rows = answer("biggest-images")
    sizes = [row["size"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert len({row["digest"] for row in rows}) == len(rows)
    with closing(sqlite3.connect(month)) as connection:
        tagged = connection.execute("SELECT count(*) FROM tags WHERE size IS NOT NULL").fetchone()
    assert sum(row["tags"] for row in rows) == tagged[0]
    assert answer("biggest-images", count=1) == rows[:1]


def test_stale_repositories(answer: Answer) -> None:
    """A repository that was not listed lately is stale, unless it is known to be gone."""
    rows = answer("stale-repositories")
    assert picked(rows, "repository", "failures") == [("swr/team/never", 1), ("swr/team/web", 0)]
    assert rows[0]["last_complete_at"] is None
    assert "4030170" in rows[0]["last_error"]
    assert rows[1]["hours_ago"] > 24 * 26
    assert picked(answer("stale-repositories", hours=24 * 365), "repository") == [
        ("swr/team/never",)
    ]


def test_gone_repository_is_not_stale_after_the_clock_was_set_back(
    month: Path, tmp_path: Path
) -> None:
    """A repository stays gone, not stale, after a poll by a clock that was behind."""
    database = tmp_path / "tagsync.db"
    with closing(sqlite3.connect(month)) as connection:
        connection.execute("VACUUM INTO ?", (str(database),))
    clock = FakeClock()
    clock.now = utc_now() - timedelta(days=60)
    with Emulator(clock=clock) as emulator, Store.open(database) as store:
        world = World(emulator, store, clock)
        world.poll(GONE)
        world.close()
    with closing(sqlite3.connect(database)) as connection:
        (clock_said,) = connection.execute(
            "SELECT clock_said FROM observations ORDER BY id DESC"
        ).fetchone()
    assert clock_said == timestamp(clock.now)
    assert "swr/team/gone" not in {row["repository"] for row in ask(database, "stale-repositories")}
    row = {"outcome": "ok", "reasons": "gone"}
    assert state(row) == "gone"


def test_gaps_in_coverage(answer: Answer) -> None:
    """Gaps in coverage are listed with their failed polls; the current one has no end."""
    columns = ("repository", "hours", "polls_in_vain")
    rows = answer("holes", days=0)
    gaps_of_web = [row for row in rows if row["repository"] == "swr/team/web"]
    assert [row["unseen_until"] is None for row in gaps_of_web] == [True, False, False]
    assert picked(gaps_of_web[1:], *columns) == [
        ("swr/team/web", 0.33, 2),
        ("swr/team/web", 3.0, 0),
    ]
    assert answer("holes", repository="swr/team/web", days=0) == gaps_of_web
    gaps_of_api = answer("holes", repository="swr/team/api", minutes=60 * 24 * 10)
    (longest,) = picked(gaps_of_api, "hours", "polls_in_vain")
    assert longest == (pytest.approx(27 * 24 + 0.33, abs=0.1), 0)
    assert all(parse_timestamp(row["unseen_from"]) for row in rows)
    assert "swr/team/never" not in {row["repository"] for row in rows}
    assert answer("holes", repository="swr/team/nowhere", days=0) == []


def test_gaps_in_the_last_days(answer: Answer) -> None:
    """A gap counts with its true start if it lasted into the days, and only then."""
    everything = answer("holes", days=0)
    for days in (1, 7, 29, 60):
        since = timestamp(utc_now() - timedelta(days=days))
        expected = [row for row in everything if (row["unseen_until"] or "9") > since]
        assert picked(answer("holes", days=days), "repository", "unseen_from") == picked(
            expected, "repository", "unseen_from"
        )
    assert len(answer("holes", days=7)) < len(everything) == len(answer("holes", days=60))
    assert len(picked(answer("holes"), "unseen_from")) == len(answer("holes", days=7))


def test_unresolved_digest_is_not_a_move(
    scripted: Scripted, store: Store, database: Path, clock: FakeClock
) -> None:
    """An unresolved digest between two listings is neither a move nor a rollback."""
    for digest in ("sha256:a", None, "sha256:a"):
        scripted.then(Tag("v1.2.3", digest))
        poll(Job(Repository("swr", "team/api"), scripted, INTERVAL), store, clock=clock)
        clock.advance(minutes=5)
    assert ask(database, "rollbacks", days=0) == []
    assert ask(database, "immutable-tags-that-moved") == []
    assert ask(database, "moved-more-than-once", days=0) == []

    for digest in (None, "sha256:b", "sha256:a"):
        scripted.then(Tag("v1.2.3", digest))
        poll(Job(Repository("swr", "team/api"), scripted, INTERVAL), store, clock=clock)
        clock.advance(minutes=5)
    columns = ("old_digest", "new_digest")
    assert picked(ask(database, "immutable-tags-that-moved"), *columns) == [
        ("sha256:b", "sha256:a"),
        ("sha256:a", "sha256:b"),
    ]
    assert picked(ask(database, "rollbacks", days=0), "instead_of", "digest") == [
        ("sha256:b", "sha256:a")
    ]
    assert picked(ask(database, "moved-more-than-once", days=0), "moves") == [(2,)]


@pytest.mark.parametrize(
    ("tag", "looks_immutable"),
    [
        ("1.2.3", True),
        ("v1.2.3-alpine", True),
        ("20260503", True),
        ("nightly-2026-05-03", True),
        ("0abc123", True),
        ("sha-0abc1234", True),
        ("latest", False),
        ("v1.2", False),
        ("3.12", False),
        ("feedbag", False),
        ("release-7", False),
        ("sha256-0abc123.sig", False),
    ],
)
def test_immutable_looking_names(
    tag: str,
    looks_immutable: bool,
    scripted: Scripted,
    store: Store,
    database: Path,
    clock: FakeClock,
) -> None:
    """Full versions, dates and commits look immutable; floating names do not."""
    for digest in ("sha256:a", "sha256:b"):
        scripted.then(Tag(tag, digest))
        poll(Job(Repository("swr", "team/api"), scripted, INTERVAL), store, clock=clock)
        clock.advance(minutes=5)
    found = picked(ask(database, "immutable-tags-that-moved"), "tag")
    assert found == ([(tag,)] if looks_immutable else [])


def test_images_tagged_elsewhere(
    scripted: Scripted, store: Store, database: Path, clock: FakeClock
) -> None:
    """An image tagged in two repositories is one row; unresolved tags do not count."""
    for name in ("team/api", "team/web"):
        scripted.then(Tag("one", "sha256:same"), Tag("own", f"sha256:{name}"), Tag("unknown", None))
        poll(Job(Repository("swr", name), scripted, INTERVAL), store, clock=clock)
    (row,) = ask(database, "same-image-elsewhere", repository="*")
    assert (row["digest"], row["repositories"], row["tags"]) == ("sha256:same", 2, 2)
    assert sorted(row["tagged_as"].split(", ")) == ["swr/team/api:one", "swr/team/web:one"]
    for name in ("swr/team/api", "swr/team/web"):
        assert ask(database, "same-image-elsewhere", repository=name) == [row]
    for unknown in ("swr/team/nowhere", "swr/team/*", "", None):
        assert ask(database, "same-image-elsewhere", repository=unknown) == []


def test_most_tagged_images_come_first(
    scripted: Scripted, store: Store, database: Path, clock: FakeClock
) -> None:
    """The answer has as many images as wanted, those with the most tags, however it is asked."""
    for name in ("team/api", "team/web"):
        tags = [Tag(f"{digest}{n}", f"sha256:{digest}") for digest in "abc" for n in range(2)]
        tags += [Tag("one more", "sha256:b")] * (name == "team/web")
        scripted.then(*tags)
        poll(Job(Repository("swr", name), scripted, INTERVAL), store, clock=clock)
    for name in ("*", "swr/team/api"):
        rows = ask(database, "same-image-elsewhere", repository=name, count=2)
        assert picked(rows, "digest", "tags") == [("sha256:b", 5), ("sha256:a", 4)]
        assert len(ask(database, "same-image-elsewhere", repository=name)) == 3


@pytest.mark.usefixtures("store")
def test_empty_database_gives_no_rows(database: Path) -> None:
    """Each question gives no rows and no error if nothing was recorded."""
    for question in QUESTIONS:
        assert ask(database, question.slug) == []


def test_empty_parameter_means_the_default(answer: Answer) -> None:
    """An empty parameter, as a form sends it, means the default."""
    for question in QUESTIONS:
        empty = {parameter.name: "" for parameter in question.parameters}
        default = {
            parameter.name: str(parameter.default)
            for parameter in question.parameters
            if parameter.default is not None
        }
        ages = {"hours", "hours_ago"}
        answers = [
            [{key: row[key] for key in row.keys() - ages} for row in rows]
            for rows in (
                answer(question.slug),
                answer(question.slug, **empty),
                answer(question.slug, **default),
            )
        ]
        assert answers[0] == answers[1] == answers[2]
        for name, value in default.items():
            assert f"`:{name}`" in question.explanation
            assert f"{int(value):,} if left empty" in question.explanation


def test_page_shows_each_question_with_its_sql() -> None:
    """The page shows the eleven questions in order, with their exact SQL."""
    assert len(QUESTIONS) == 11
    assert len({question.slug for question in QUESTIONS}) == 11
    text = read_page("docs/questions.md")
    shown = re.findall(
        r"^## (.+)\n\n((?:.+\n)+)\n```sql\n((?:.+\n)+?.+);\n```$", text, re.MULTILINE
    )
    assert [(title, " ".join(text.split()), sql) for title, text, sql in shown] == [
        (question.title, question.explanation, question.sql) for question in QUESTIONS
    ]
    assert text.count("## ") == text.count("```sql") == len(QUESTIONS)


def test_sqlite3_shell_answers_each_question(month: Path) -> None:
    """SQLite's shell answers each question without setting its parameters."""
    script = ";\n".join(question.sql for question in QUESTIONS) + ";\n"
    shell = subprocess.run(
        ["sqlite3", "-readonly", "-bail", str(month)],
        input=script,
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    assert shell.stderr == ""
    assert "swr/team/api|v1.0.0|" in shell.stdout


def test_each_question_only_reads() -> None:
    """Each question is one statement that only reads."""
    for question in QUESTIONS:
        assert question.sql.startswith(("SELECT ", "WITH ")), question.slug
        assert ";" not in question.sql
        assert not re.search(r"\b(INSERT|UPDATE|DELETE|REPLACE INTO|ATTACH|PRAGMA)\b", question.sql)


def test_big_tables_are_read_by_an_index(month: Path) -> None:
    """The biggest images come from an index in their order, and platforms from one of indexes."""
    (biggest,) = (question.sql for question in QUESTIONS if question.slug == "biggest-images")
    platforms = "SELECT * FROM image_platforms"
    with closing(sqlite3.connect(month)) as connection:
        for sql, index in ((biggest, "images_by_size"), (platforms, "images_with_platforms")):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", {"count": ""}).fetchall()
            assert f"USING INDEX {index}" in plan[0][3]
            assert not any("TEMP B-TREE" in step[3] for step in plan)


def test_an_unverified_manifest_says_nothing_about_layers(
    scripted: Scripted, store: Store, database: Path, clock: FakeClock
) -> None:
    """A layer is found by a manifest that hashes to its digest, and not by another one."""
    layer = f"sha256:{'4e07' * 16}"
    text = json.dumps({"layers": [{"digest": layer}]})
    right, wrong = f"sha256:{sha256(text.encode()).hexdigest()}", f"sha256:{'0' * 64}"
    scripted.then(Tag("right", right), Tag("wrong", wrong))
    images = {
        digest: Image(digest, manifest=text, verified=digest == right) for digest in (right, wrong)
    }
    (listing,) = scripted.script
    assert isinstance(listing, Listing)
    scripted.script = [msgspec.structs.replace(listing, images=images)]
    poll(Job(Repository("swr", "team/api"), scripted, INTERVAL), store, clock=clock)
    assert picked(ask(database, "tags-with-layer", layer=layer), "tag") == [("right",)]
