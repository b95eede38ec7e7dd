"""Verify the hash chain of observations, the checksums of repositories, and given heads."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from tagsync.audit.faults import VerificationFault
from tagsync.database.connection import Connection
from tagsync.database.hash_chain import (
    GENESIS,
    OBSERVATION_COLUMNS,
    REPOSITORY_COLUMNS,
    checksum,
    link_observation,
)

_ROWS_SQL: Final = f"""
    SELECT o.id, o.ended, r.full_name, o.change_id, c.hash, o.hash,
           {", ".join(f"o.{name}" for name in OBSERVATION_COLUMNS)}
    FROM observations AS o
    LEFT JOIN repositories AS r ON r.id = o.repository_id
    LEFT JOIN changes AS c ON c.id = o.change_id
"""  # noqa: S608  constants
_CHECKSUMS_SQL: Final = f"""
    SELECT {", ".join(REPOSITORY_COLUMNS)}, hash FROM repositories ORDER BY id
"""  # noqa: S608  constants
_FOUND_HEADS_SQL: Final = """
    WITH given(hash) AS (SELECT value FROM json_each(?))
    SELECT hash FROM changes WHERE hash IN given
    UNION SELECT hash FROM observations WHERE hash IN given
"""
"""No index finds a hash, so one query reads each table once for all heads."""


class _Observation(msgspec.Struct, frozen=True):
    """A row of ``observations``, with its repository's name and the hash of its change."""

    id: int
    ended: int | None
    repository: str | None
    change_id: int | None
    change_hash: str | None
    hash: str | None
    columns: tuple[Any, ...]

    @property
    def repository_id(self) -> int:
        return int(self.columns[0])

    def __str__(self) -> str:
        name = self.repository or "a missing repository"
        first, last = (self.columns[OBSERVATION_COLUMNS.index(c)] for c in ("first_at", "last_at"))
        number = "still growing" if self.ended is None else f"number {self.ended}"
        return f"observation {self.id} ({number}, {name}, from {first} to {last})"


def check_observation_chain(db: Connection, read: Counter[str]) -> str:
    """Recompute the hash of each observation that has ended, and check those that grow.

    Args:
        db: The connection.
        read: Receives the number of observations.

    Returns:
        The head of the chain, in words.

    Raises:
        VerificationFault: If an observation is not as it was when it ended.
    """
    head, change_id = GENESIS, 0
    newest: dict[int, int] = {}
    rows = db.execute(f"{_ROWS_SQL} WHERE o.ended IS NOT NULL ORDER BY o.ended")
    for number, row in enumerate(rows, 1):
        observation = _observation(row)
        read[""] += 1
        if observation.ended != number:
            raise VerificationFault(f"observation number {number} is missing before {observation}")
        _check_change(observation, change_id)
        head, change_id = _hash_after(head, observation), observation.change_id or 0
        if head != observation.hash:
            raise VerificationFault(
                f"{observation} does not have the hash that its content and the observation that"
                " ended before it give"
            )
        _check_is_newest(observation, newest)
    growing: set[int] = set()
    for row in db.execute(f"{_ROWS_SQL} WHERE o.ended IS NULL ORDER BY o.id"):
        read[""] += 1
        _check_growing(_observation(row), newest, growing)
    return f"head {head}"


def check_checksums(db: Connection, read: Counter[str]) -> None:
    """Check that each repository's row has its checksum.

    Raises:
        VerificationFault: If a row does not have it.
    """
    for *columns, recorded in db.execute(_CHECKSUMS_SQL):
        read[""] += 1
        if checksum(columns) != recorded:
            raise VerificationFault(
                f"the row of {columns[1]}/{columns[2]} in repositories does not have the hash that"
                " its columns give"
            )


def check_heads(db: Connection, heads: Collection[str], read: Counter[str]) -> None:
    """Check that each head that a witness has kept is a hash of one of the chains.

    Raises:
        VerificationFault: If neither chain has a head.
    """
    wanted = set(heads)
    read[""] += len(wanted)
    given = msgspec.json.encode(sorted(wanted)).decode()
    found = {head for (head,) in db.execute(_FOUND_HEADS_SQL, (given,))}
    if missing := sorted(wanted - found - {GENESIS}):
        raise VerificationFault(
            f"no change and no observation has the hash {missing[0]}: what was recorded up to that"
            " head was cut off or rewritten"
        )


def _observation(row: Sequence[Any]) -> _Observation:
    number, ended, repository, change_id, change_hash, digest, *columns = row
    return _Observation(number, ended, repository, change_id, change_hash, digest, tuple(columns))


def _check_change(observation: _Observation, least: int) -> None:
    """Check that the newest change when an observation ended exists, and is in order."""
    if (observation.change_id is None) != (observation.change_hash is None):
        raise VerificationFault(
            f"change {observation.change_id}, the newest when {observation} ended, is missing"
        )
    if (observation.change_id or 0) < least:
        raise VerificationFault(
            f"{observation} ended after change {least}, but says that change"
            f" {observation.change_id} was the newest"
        )


def _hash_after(head: str, observation: _Observation) -> str:
    if observation.repository is None:
        raise VerificationFault(f"the repository of {observation} is missing")
    return link_observation(
        head,
        observation.ended or 0,
        observation.repository,
        observation.columns,
        observation.change_id,
        observation.change_hash or GENESIS,
    )


def _check_is_newest(observation: _Observation, newest: dict[int, int]) -> None:
    """Check that an observation comes after the earlier ones of its repository, and note it.

    Args:
        observation: The observation.
        newest: The newest observation so far by repository, as ids. It is updated.
    """
    if observation.id < newest.get(observation.repository_id, observation.id):
        raise VerificationFault(f"{observation} is not in the order of its repository's polls")
    newest[observation.repository_id] = observation.id


def _check_growing(observation: _Observation, newest: dict[int, int], growing: set[int]) -> None:
    """Check an observation that has not ended: it is the newest of its repository.

    Args:
        observation: The observation.
        newest: As in `_check_is_newest`.
        growing: The repositories that have such an observation so far. It is updated.
    """
    if observation.repository is None:
        raise VerificationFault(f"the repository of {observation} is missing")
    if observation.change_id is not None or observation.hash is not None:
        raise VerificationFault(f"{observation} has a hash, so it had ended")
    if observation.repository_id in growing:
        raise VerificationFault(f"{observation} is not the only one of its repository that grows")
    growing.add(observation.repository_id)
    _check_is_newest(observation, newest)
