"""The recorded past of a repository, for decisions: runs of observations, flips of tags."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, check_timestamp, decode
from tagsync.models import Change, Kind, Repository

_OBSERVATIONS: Final = """
    SELECT outcome, reason_key, reasons, detail, polls, first_at, clock_said FROM observations
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
          AND outcome <> 'failed' ORDER BY id DESC
"""
_IS_FLIP: Final = "not_before IS NOT NULL AND (kind <> 'updated' OR old_digest <> new_digest)"
_REPOSITORY: Final = "(SELECT id FROM repositories WHERE registry = ? AND name = ?)"
_FLIPS: Final = f"""
    SELECT kind, old_digest, new_digest, observed_at FROM changes
    WHERE repository_id = {_REPOSITORY} AND tag = ? AND observed_at >= ? AND {_IS_FLIP}
    ORDER BY id DESC LIMIT 2
"""  # noqa: S608  constants
# The plus in both makes SQLite use the index of times: few changes are so recent.
_COUNT_FLIPS: Final = f"""
    SELECT count(*) FROM changes
    WHERE +repository_id = {_REPOSITORY} AND observed_at >= ? AND {_IS_FLIP}
"""  # noqa: S608  constants
_NEWEST_FLIP: Final = f"""
    SELECT max(observed_at) FROM changes
    WHERE +repository_id = {_REPOSITORY} AND observed_at >= ? AND {_IS_FLIP}
"""  # noqa: S608  constants


class Run(NamedTuple):
    """Consecutive listings of a repository with the same outcome and the same ``reason_key``.

    Failed polls between them do not end the run, because they have no listing. Neither do gaps in
    coverage, nor the end of a day.

    Attributes:
        held: Whether the listings were held.
        reason_key: The fingerprint that the listings share.
        alternating: Whether the newest of them is part of an alternation.
        detail: Why the listings are unusual, in a sentence. None if they are not.
        polls: Number of listings.
        first_at: The recorded time of the first listing.
        counted_from: From when on the clock can tell how old the run is: the clock's own time at
            the first listing since which the clock was always, or never, behind the record.
        clock_behind: Whether the clock was behind the record at the newest listing.
    """

    held: bool
    reason_key: str | None
    alternating: bool
    detail: str | None
    polls: int
    first_at: str
    counted_from: str
    clock_behind: bool


class Flip(NamedTuple):
    """A recorded addition, deletion or move of a tag. The attributes are columns of ``changes``."""

    kind: Kind
    old_digest: str | None
    new_digest: str | None
    observed_at: str


class Past(NamedTuple):
    """The recorded past of a repository, as far as the decision about a listing needs it.

    Attributes:
        runs: The newest runs, the newest first.
        flips: The last two flips of each tag that the listing flips, the newest first. Empty if
            these are not all flips of the repository since then.
        flipped_at: When the newest flip of the repository was observed. None if it is too old, or
            if no runs are needed.
    """

    runs: Sequence[Run] = ()
    flips: Sequence[tuple[Flip, Flip]] = ()
    flipped_at: str | None = None


def read_runs(db: Connection, repository: Repository, count: int) -> list[Run]:
    """Return the newest runs of a repository, the newest first.

    Args:
        db: The database.
        repository: The repository.
        count: Maximum number of runs. If there are so many, the last one may not be complete.
    """
    what = f"the observations of {repository.full_name}"
    runs: list[Run] = []
    mixed_clocks = False
    for row in db.execute(_OBSERVATIONS, (repository.registry, repository.name)):
        outcome, key, reasons, detail, polls, first_at, said = decode(row, _Observation, what)
        check_timestamp(first_at, what)
        check_timestamp(said, what)
        held, behind, counted_from = outcome == "held", said is not None, said or first_at
        if not runs or (runs[-1].held, runs[-1].reason_key) != (held, key):
            alternating = "alternating" in (reasons or "").split(",")
            runs.append(Run(held, key, alternating, detail, polls, first_at, counted_from, behind))
            mixed_clocks = False
        else:
            run = runs[-1]._replace(polls=runs[-1].polls + polls, first_at=first_at)
            mixed_clocks = mixed_clocks or run.clock_behind != behind
            runs[-1] = run if mixed_clocks else run._replace(counted_from=counted_from)
        if len(runs) == count:
            break
    return runs


def read_flips(
    db: Connection, repository: Repository, flips: Sequence[Change], since: str
) -> list[tuple[Flip, Flip]]:
    """Return the last two flips of each of these tags, the newest first.

    The changes of a repository's first listing do not count as flips.

    Args:
        db: The database.
        repository: The repository.
        flips: The changes of a listing that add, delete or move a tag.
        since: Older flips are left out.

    Returns:
        An empty list if a tag has fewer than two flips, or if another tag was flipped since: the
        repository has had more than two states then.
    """
    what = f"the changes of {repository.full_name}"
    name = (repository.registry, repository.name)
    recorded = []
    for change in flips:
        rows = db.execute(_FLIPS, (*name, change.tag, since)).fetchall()
        if len(rows) < 2:  # noqa: PLR2004  explained above
            return []
        newest, older = (Flip(*decode(row, _Flip, what)) for row in rows)
        check_timestamp(newest.observed_at, what)
        check_timestamp(older.observed_at, what)
        recorded.append((newest, older))
    oldest = min(older.observed_at for _, older in recorded)
    (count,) = db.execute(_COUNT_FLIPS, (*name, oldest)).fetchone()
    return recorded if count == 2 * len(flips) else []


def read_newest_flip(db: Connection, repository: Repository, since: str) -> str | None:
    """Return when the newest flip of a repository was observed. None if it is older."""
    name = (repository.registry, repository.name)
    (at,) = db.execute(_NEWEST_FLIP, (*name, since)).fetchone()
    return check_timestamp(at, f"the changes of {repository.full_name}")


_Observation = tuple[str, str | None, str | None, str | None, Count, str, str | None]
"""The columns of `_OBSERVATIONS`."""

_Flip = tuple[Kind, str | None, str | None, str]
"""The columns of `_FLIPS`."""
