"""Compare the database and the logs with what the registries really held.

Each check yields one sentence for everything that is wrong. Nothing is wrong if:

* the database is sound, both hash chains verify, and the changes replayed give the mirror;
* the mirror equals what the registries send, in every field: nothing is lost;
* each change starts from the previous state of the tag and changes something, and nothing is
  invented (see below);
* each change is in the log of a process with the same fields, and every logged change is in the
  history, except if a power cut undid it (see below);
* every head of a chain that was ever logged is still in that chain;
* every image hashes to its digest;
* no log reports a clock problem, has a line that is not an event, or contains a secret.

**Nothing is invented.** A change is invented if it leads to a state that the registry neither had
nor served between ``not_before`` and ``observed_at``, or starts from one. So:

* A tag *had* a version if the journal says so. The changes of a tag follow its versions in order,
  and no two changes use the same version. No tag is recorded as deleted while it was there, and
  nothing is recorded twice.
* A registry *served* a state if a stale replica sent it. Without times, tagsync cannot tell a stale
  listing from the current one. It may record what the replica sent, within the window of that
  answer and no later, and then return to the version from which it came.
* If a registry holds stale listings back (`Evidence.holds_stale`), no change may take a tag back to
  an older time of the registry's own.
* A lie that is not stale (`Evidence.lies`) excuses only that a tag is recorded too late.
* A request for a single tag of `Evidence.failing` may fail. Then the tag may be recorded without
  its digest while it is there.

A front server's answer is neither a version nor served, so it excuses nothing.

**A power cut** (`Cut`) may undo changes that were committed and logged but not yet synced. The next
poll records them again, with other ids and times. So the log may tell of a change that is not in
the history only if its process began before that cut and after the one before, the id is above the
newest that survived, and the tag really had, or was served with, the new digest. A head that was
logged was synced first: it is never undone, and no cut undoes what survived an earlier one.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from tagsync.database.hash_chain import GENESIS
from tagsync.emulator.faults import RecordedLie
from tests.support.record import assert_history_is_whole
from tests.torture.truth import (
    ALWAYS,
    RESOLUTION,
    UNRESOLVED,
    Journal,
    Key,
    Served,
    State,
    Window,
)

Row = Mapping[str, Any]

CHANGES = """
    SELECT c.id, registry || '/' || name AS repository, tag, kind, old_digest, new_digest, fields,
           c.not_before, observed_at, c.hash
    FROM changes AS c JOIN repositories AS r ON r.id = repository_id ORDER BY c.id
"""
ENDED = "SELECT ended, hash FROM observations WHERE ended IS NOT NULL"
LOGGED = ("repository", "tag", "old_digest", "new_digest", "not_before", "observed_at")
CHANGED = {"tag.added", "tag.updated", "tag.deleted"}
HEADS = {"pass.finished", "history.extended"}
RENAMED = {"Tag": "tag", "id": "registry_id", "repo_id": "registry_repo_id"}
LEFT_OUT = {"manifest", "deleted"}


class Log(NamedTuple):
    """The standard error of one process.

    Attributes:
        name: The name of its file.
        text: All of it.
        killed: Whether the process was killed, so that its last line may be cut off.
        cuts: The number of power cuts before the process started.
    """

    name: str
    text: str
    killed: bool
    cuts: int = 0


class Cut(NamedTuple):
    """A power cut: the heads of both chains that survived it."""

    change_id: int
    head: str
    ended: int = 0
    observations_head: str = GENESIS


class Evidence(NamedTuple):
    """Everything that the judge needs.

    Attributes:
        database: The database, closed by all processes.
        journal: The true contents of the registries.
        answers: The final rows of each repository, as its registry sends them.
        lies: The lies that each registry told, without the stale ones.
        logs: The logs of all processes.
        secrets: Texts that must appear nowhere.
        served: The stale states that each repository's registry served.
        cuts: The power cuts, in order.
        fetched: The registries whose manifests are fetched one by one. Their digests may be
            recorded without the manifest, because it may be gone before it is fetched.
        failing: The registries at which a request for a single tag may fail.
        holds_stale: The registries whose stale listings tagsync must hold.
    """

    database: Path
    journal: Journal
    answers: Mapping[str, Sequence[Row]]
    lies: Mapping[str, Sequence[RecordedLie]]
    logs: Sequence[Log]
    secrets: Sequence[str]
    served: Mapping[str, Sequence[Served]] = {}
    cuts: Sequence[Cut] = ()
    fetched: Collection[str] = ()
    failing: Collection[str] = ()
    holds_stale: Collection[str] = ()


def judge(evidence: Evidence) -> list[str]:
    """Return one sentence for everything that is wrong, or an empty list."""
    try:
        with closing(sqlite3.connect(evidence.database)) as connection:
            connection.row_factory = sqlite3.Row
            changes = [dict(row) for row in connection.execute(CHANGES)]
            observations = dict(connection.execute(ENDED).fetchall())
            found = [
                *_unsound(connection),
                *_unlike_the_registries(connection, evidence.answers),
                *_unlike_the_history(connection, changes),
                *_bad_images(connection, changes, evidence),
            ]
        assert_history_is_whole(evidence.database)
    except (sqlite3.Error, AssertionError) as error:
        return [f"the history cannot be read, or is not whole: {error!r}"]
    found += _untrue(changes, evidence)
    found += _taken_back(changes, evidence)
    found += _out_of_order(changes)
    found += _badly_logged(changes, evidence)
    found += _rewritten(changes, observations, evidence)
    found += _clocks_blamed(evidence)
    found += _secrets_shown(evidence)
    return found


def _unsound(connection: sqlite3.Connection) -> Iterator[str]:
    for pragma in ("integrity_check", "foreign_key_check"):
        rows = [tuple(row) for row in connection.execute(f"PRAGMA {pragma}")]
        if rows not in ([], [("ok",)]):
            yield f"{pragma} says {rows}"
    for row in connection.execute("SELECT * FROM observations WHERE first_at > last_at"):
        yield f"an observation ends before it begins: {dict(row)}"
    for row in connection.execute("SELECT * FROM observations WHERE detail LIKE '%clock%'"):
        yield f"an observation blames the clock, which is good: {dict(row)}"


def _unlike_the_registries(
    connection: sqlite3.Connection, answers: Mapping[str, Sequence[Row]]
) -> Iterator[str]:
    mirror: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in connection.execute("SELECT * FROM current_tags"):
        mirror[row["repository"]][row["tag"]] = dict(row)
    for repository in mirror.keys() | answers.keys():
        held = {row["Tag"]: _as_mirrored(row) for row in answers.get(repository, ())}
        mirrored = mirror[repository]
        if held.keys() != mirrored.keys():
            yield f"{repository} has {sorted(held)} and the mirror {sorted(mirrored)}"
        for tag in held.keys() & mirrored.keys():
            wrong = {
                name: (value, mirrored[tag][name])
                for name, value in held[tag].items()
                if mirrored[tag][name] != value
            }
            if wrong:
                yield f"{repository}:{tag} differs from the mirror: {wrong}"


def _as_mirrored(row: Row) -> Row:
    return {RENAMED.get(name, name): value for name, value in row.items() if name not in LEFT_OUT}


def _unlike_the_history(connection: sqlite3.Connection, changes: Sequence[Row]) -> Iterator[str]:
    """Check that each change continues the previous one, and the times of the mirror."""
    fields: dict[tuple[str, str], dict[str, Any]] = {}
    times: dict[tuple[str, str], tuple[str, str]] = {}
    for change in changes:
        key = change["repository"], change["tag"]
        before = fields.get(key)
        if (before is None) != (change["kind"] == "added"):
            yield f"change {change['id']} of {key} is {change['kind']} where the tag was {before}"
        differing = json.loads(change["fields"])
        state = dict(before or {})
        for name, (old, new) in differing.items():
            if old == new or state.get(name) != old:
                was = state.get(name)
                yield f"change {change['id']} of {key} says {name} was {old!r} where it was {was!r}"
            state[name] = new
        # A tag that an OCI registry lists without having its manifest consists of its name.
        digests = change["old_digest"] or change["new_digest"]
        if not differing and (change["kind"] == "updated" or digests):
            yield f"change {change['id']} of {key} changes nothing"
        at = change["observed_at"]
        if change["kind"] == "deleted":
            fields.pop(key, None)
            times.pop(key, None)
        else:
            fields[key] = state
            times[key] = (times.get(key, (at,))[0], at)
    query = "SELECT repository, tag, first_observed_at, changed_at FROM current_tags"
    mirrored = {(row[0], row[1]): (row[2], row[3]) for row in connection.execute(query)}
    if differing := set(mirrored.items()) ^ set(times.items()):
        yield f"the mirror's times are not the history's: {differing}"


def _bad_images(
    connection: sqlite3.Connection, changes: Sequence[Row], evidence: Evidence
) -> Iterator[str]:
    fetched = {
        change["new_digest"]
        for change in changes
        if change["repository"].partition("/")[0] in evidence.fetched
    }
    for row in connection.execute("SELECT digest, manifest, verified FROM images"):
        if row["manifest"] is None:
            if row["digest"] not in fetched:
                yield f"{row['digest']} has no manifest"
            continue
        if f"sha256:{sha256(row['manifest'].encode()).hexdigest()}" != row["digest"]:
            yield f"the manifest of {row['digest']} is another's"
        if row["verified"] != 1:
            yield f"{row['digest']} is not verified"
    query = "SELECT new_digest FROM changes EXCEPT SELECT digest FROM images EXCEPT SELECT NULL"
    for (digest,) in connection.execute(query):
        yield f"{digest} is recorded without its image"


class _Place(NamedTuple):
    """Where the record of a tag may stand.

    Attributes:
        version: The number of the last true version that was recorded.
        aside: Whether the recorded state is not that version, but one that was served beside it.
    """

    version: int = 0
    aside: bool = False


def _untrue(changes: Sequence[Row], evidence: Evidence) -> Iterator[str]:
    """Follow each tag's true versions; every change must lead to a later one, or a served one."""
    places: dict[Key, set[_Place]] = defaultdict(lambda: {_Place()})
    states: dict[Key, State | None] = defaultdict(lambda: None)
    for change in changes:
        key = change["repository"], change["tag"]
        old, new = states[key], _state_after(states[key], change)
        window = _window(change)
        before = {
            origin
            for place in places[key]
            for origin in _origins(key, place, old, window, evidence)
        }
        after = {
            reached for origin in before for reached in _reached(key, origin, new, window, evidence)
        }
        if not after:
            what = "never became that" if before else "was not what it is said to have been"
            versions = evidence.journal.versions(key)
            yield f"{key} {what}: {dict(change)}, its versions are {versions}"
        states[key] = new
        places[key] = after or places[key]


class _Origin(NamedTuple):
    """What a change started from: the last true version, and the first one that may follow."""

    version: int
    following: int


def _origins(
    key: Key, place: _Place, old: State | None, window: Window, evidence: Evidence
) -> Iterator[_Origin]:
    """Yield what a change may have started from."""
    version = evidence.journal.seen(key, old, place.version, window)
    if version is not None:
        yield _Origin(version, version + 1)
    if _was_served(key, old, window, evidence):
        # The state that was served may be that of the recorded version, which is over.
        yield _Origin(place.version, place.version if place.aside else place.version + 1)
    if old is None and _was_lied_about(key[0], window, evidence):
        # The registry said that the tag was absent, so a process may have seen it only later.
        yield _Origin(place.version, place.version + 1)


def _reached(
    key: Key, origin: _Origin, new: State | None, window: Window, evidence: Evidence
) -> Iterator[_Place]:
    """Yield where a change may have led."""
    version = evidence.journal.seen(key, new, origin.following, window)
    if version is not None:
        yield _Place(version)
    if _was_served(key, new, window, evidence):
        yield _Place(origin.version, aside=True)


def _state_after(before: State | None, change: Row) -> State | None:
    if change["kind"] == "deleted":
        return None
    fields = {name: new for name, (_, new) in json.loads(change["fields"]).items()}
    trusted = fields.get("is_trusted", before.is_trusted if before else False)
    return State(change["new_digest"] or "", is_trusted=trusted)


def _window(change: Row) -> Window:
    begins = change["not_before"]
    ends = datetime.fromisoformat(change["observed_at"]) + RESOLUTION
    return Window(datetime.fromisoformat(begins) if begins else ALWAYS, ends)


def _was_served(key: Key, state: State | None, window: Window, evidence: Evidence) -> bool:
    """Return whether a stale answer in the window had this state of a tag.

    If the request for a single tag may fail, the tag's digest may be missing while it is there.
    """
    repository, tag = key
    stale = {
        served.tags.get(tag)
        for served in evidence.served.get(repository, ())
        if window.begins <= served.at <= window.ends
    }
    if state == UNRESOLVED and repository.partition("/")[0] in evidence.failing:
        return bool((stale | evidence.journal.states(key, window)) - {None})
    return state in stale


def _was_lied_about(repository: str, window: Window, evidence: Evidence) -> bool:
    registry, _, name = repository.partition("/")
    return any(
        told.repository == name and window.begins <= told.at <= window.ends
        for told in evidence.lies[registry]
    )


def _taken_back(changes: Sequence[Row], evidence: Evidence) -> Iterator[str]:
    """Check that no stale listing was recorded where the registry's own time shows it."""
    for change in changes:
        was, became = json.loads(change["fields"]).get("updated", (None, None))
        held = change["repository"].partition("/")[0] in evidence.holds_stale
        if held and change["kind"] == "updated" and was and became and became < was:
            yield f"a stale listing was recorded: {change}"


def _out_of_order(changes: Sequence[Row]) -> Iterator[str]:
    ends: dict[str, str] = {}
    starts: dict[tuple[str, str], str] = {}
    for number, change in enumerate(changes, 1):
        repository, tag = change["repository"], change["tag"]
        start, end = change["not_before"] or "", change["observed_at"]
        first_look = ends.get(repository, end) == end
        if change["id"] != number or start > end:
            yield f"change {change['id']} is number {number}, from {start} to {end}"
        # The window of a tag that was not resolved begins earlier than that of other tags.
        if end < ends.get(repository, "") or start < starts.get((repository, tag), ""):
            yield f"change {change['id']} of {repository}:{tag} is older than the one before"
        if change["not_before"] is None and not first_look:
            yield f"change {change['id']} of {repository} has no beginning and is no baseline"
        ends[repository], starts[repository, tag] = end, start


def _badly_logged(changes: Sequence[Row], evidence: Evidence) -> Iterator[str]:
    recorded = {change["id"]: change for change in changes}
    logged: set[int] = set()
    baselined: set[str] = set()
    for log in evidence.logs:
        for event in _events(log):
            if isinstance(event, str):
                yield event
            elif event["event"] == "repository.baselined":
                baselined.add(event["repository"])
            elif event["event"] in CHANGED:
                undone = _was_undone(event, log, evidence)
                change = {} if undone else recorded.get(event["change_id"], {})
                if not (_may_be_undone(event, evidence) if undone else _is_about(event, change)):
                    yield f"{log.name} tells of {event}, and the history of {change}"
                logged |= {change["id"]} if change else set()
    for change in changes:
        told = change["id"] in logged if change["not_before"] else change["repository"] in baselined
        if not told:
            yield f"no log tells of {change}"


def _was_undone(event: Row, log: Log, evidence: Evidence) -> bool:
    """Return whether a logged change is above what survived the next power cut."""
    return any(event["change_id"] > cut.change_id for cut in evidence.cuts[log.cuts :][:1])


def _is_about(event: Row, change: Row) -> bool:
    same_kind = event["event"] == f"tag.{change.get('kind')}"
    return same_kind and all(event[name] == change[name] for name in LOGGED)


def _may_be_undone(event: Row, evidence: Evidence) -> bool:
    """Return whether a logged change that a power cut undid was true."""
    key, window = (event["repository"], event["tag"]), _window(event)
    digest = None if event["event"] == "tag.deleted" else event["new_digest"] or ""
    states = evidence.journal.states(key, window)
    digests = {state.digest if state else None for state in states}
    fitting = [State(digest, is_trusted=trusted) for trusted in (False, True)] if digest else [None]
    served = any(_was_served(key, state, window, evidence) for state in fitting)
    failed = digest == "" and _was_served(key, UNRESOLVED, window, evidence)
    return digest in digests or served or failed


def _rewritten(
    changes: Sequence[Row], observations: Mapping[int, str], evidence: Evidence
) -> Iterator[str]:
    """Check that every head that was logged, or survived a power cut, is still in its chain."""
    heads = {0: GENESIS} | {change["id"]: change["hash"] for change in changes}
    ended = {0: GENESIS, **observations}
    for log in evidence.logs:
        for event in _events(log):
            if isinstance(event, str) or event["event"] not in HEADS:
                continue
            if heads.get(event["change_id"]) != event["head"]:
                yield f"{log.name} tells of another history: {event}"
            if ended.get(event["ended"]) != event["observations_head"]:
                yield f"{log.name} tells of other observations: {event}"
    last = Cut(0, GENESIS)
    for cut in evidence.cuts:
        found = heads.get(cut.change_id), ended.get(cut.ended)
        grown = cut.change_id >= last.change_id and cut.ended >= last.ended
        if found != (cut.head, cut.observations_head) or not grown:
            yield f"what survived a power cut is not in the record: {cut}, after {last}"
        last = cut


def _clocks_blamed(evidence: Evidence) -> Iterator[str]:
    """Check that no process reported a clock problem: the clock never goes back."""
    for log in evidence.logs:
        for event in _events(log):
            if not isinstance(event, str) and event["event"].startswith("clock."):
                yield f"{log.name} blames the clock: {event}"


def _events(log: Log) -> Iterator[dict[str, Any] | str]:
    """Yield the events of a log, or a sentence for each line that is not an event."""
    *lines, rest = log.text.split("\n")
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            yield f"{log.name} has a line that is no event: {line}"
    if rest and not log.killed:
        yield f"{log.name} ends within a line: {rest}"


def _secrets_shown(evidence: Evidence) -> Iterator[str]:
    files = {path.name: path.read_bytes() for path in evidence.database.parent.glob("*.db*")}
    files |= {log.name: log.text.encode() for log in evidence.logs}
    for name, content in files.items():
        for secret in evidence.secrets:
            if secret.encode() in content:
                yield f"{name} holds a secret"
