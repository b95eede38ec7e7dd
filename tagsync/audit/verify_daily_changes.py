"""Verify the counts of changes by day."""

from collections import Counter
from typing import Final

from tagsync.audit.faults import VerificationFault
from tagsync.database.connection import Connection
from tagsync.database.daily_changes import COUNTS

_IS_MOVE: Final = "kind = 'updated' AND coalesce(old_digest <> new_digest, 0)"
_CONDITIONS: Final = {
    "baseline": "kind = 'added' AND not_before IS NULL",
    "added": "kind = 'added' AND not_before IS NOT NULL",
    "moved": _IS_MOVE,
    "updated": f"kind = 'updated' AND NOT ({_IS_MOVE})",
    "deleted": "kind = 'deleted'",
}
"""For each column of ``daily_changes``, the condition of the changes that it counts."""

_PAIRS: Final = ", ".join(
    f"sum(iif(recorded, {name}, 0)), sum(iif(recorded, 0, {name}))" for name in COUNTS
)
"""Each count as recorded, and as the changes give it."""

_DIFFERS: Final = " OR ".join(f"sum(iif(recorded, {name}, -{name}))" for name in COUNTS)
_WRONG_DAY_SQL: Final = f"""
    SELECT day, repository_id, sum(recorded), {_PAIRS}
    FROM (
        SELECT day, repository_id, 1 AS recorded, {", ".join(COUNTS)} FROM daily_changes
        UNION ALL
        SELECT substr(observed_at, 1, 10), repository_id, 0,
               {", ".join(_CONDITIONS[name] for name in COUNTS)} FROM changes
    )
    GROUP BY day, repository_id
    HAVING sum(recorded) IN (0, count(*)) OR {_DIFFERS}
    ORDER BY day, repository_id LIMIT 1
"""  # noqa: S608  constants


def check_days(db: Connection, read: Counter[str]) -> None:
    """Check that the counts of each repository and day are those of the changes.

    Args:
        db: The connection.
        read: Receives the number of days of all repositories.

    Raises:
        VerificationFault: If a count is wrong, a row is missing, or a row counts no change.
    """
    (read[""],) = db.execute("SELECT count(*) FROM daily_changes").fetchone()
    row = db.execute(_WRONG_DAY_SQL).fetchone()
    if row is None:
        return
    day, repository_id, recorded, *counts = row
    where = f"the changes of {_name_of(db, repository_id)} on {day}"
    if not recorded:
        raise VerificationFault(f"{where} are not counted in daily_changes")
    pairs = zip(COUNTS, counts[::2], counts[1::2], strict=True)
    wrong = [
        f"{stored} {name} instead of {found}" for name, stored, found in pairs if stored != found
    ]
    detail = ", ".join(wrong) or "a row without a change"
    raise VerificationFault(f"{where} are not those that daily_changes counts: {detail}")


def _name_of(db: Connection, repository_id: int) -> str:
    row = db.execute("SELECT full_name FROM repositories WHERE id = ?", (repository_id,)).fetchone()
    return str(row[0]) if row else "a missing repository"
