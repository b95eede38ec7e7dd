"""Pure: the question in SQL, and a script that checks the record without tagsync."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from tagsync.database.hash_chain import Head
from tagsync.models import is_glob
from tagsync.report.content import ReportQuery, ReportQuestion

_POSSIBLE: Final = """\
SELECT DISTINCT repository, tag, digest
FROM tag_history
WHERE {conditions}
ORDER BY repository, tag, digest;
"""
_CHANGES: Final = """\
SELECT id, observed_at, not_before, repository, tag, kind, moved, old_digest, new_digest, hash
FROM change_log
WHERE {conditions}
ORDER BY id;
"""
_CHECK: Final = '''\
import hashlib, json, sqlite3, sys
head, db = "0" * 64, sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
for *link, recorded in db.execute("""SELECT c.id, registry || '/' || name, tag, kind, old_digest,
        new_digest, fields, c.not_before, observed_at, c.hash FROM changes AS c
        JOIN repositories AS r ON r.id = repository_id ORDER BY c.id LIMIT %(number)d"""):
    text = json.dumps([head, *link], ensure_ascii=False, separators=(",", ":"))
    head = hashlib.sha256(text.encode()).hexdigest()
    if head != recorded: sys.exit(f"change {link[0]} does not fit: the record was altered")
if head != "%(hash)s": sys.exit("another record")
print("changes 1 to %(number)d are those of the report")
'''


def check_script(head: Head) -> str:
    """Return a script of ten lines that recomputes the chain of changes up to a head.

    It needs only Python. Its argument is the path of the database, which may have newer changes.
    """
    return _CHECK % {"number": head.change_id, "hash": head.hash}


def in_sql(
    question: ReportQuestion, repositories: Iterable[str], tags: Iterable[str]
) -> Iterator[ReportQuery]:
    """Yield the queries that answer a question on the database.

    Args:
        question: The question.
        repositories: The full names of all repositories that match.
        tags: All tags that match. They are used only if SQL has no pattern with the same meaning.
    """
    selected = [
        *_matching("repository", question.repository, repositories),
        *_matching("tag", question.tag or "*", tags),
    ]
    yield ReportQuery(
        "the digests to which each tag may have pointed at the first time",
        _POSSIBLE.format(conditions=_all([*selected, _possible_from(question.from_)])),
    )
    yield ReportQuery(
        "the digests to which each tag may have pointed at the second time",
        _POSSIBLE.format(conditions=_all([*selected, _possible_to(question.to)])),
    )
    period = ["not_before IS NOT NULL"]
    if question.from_ is not None:
        period.append(f"observed_at >= {literal(question.from_)}")
    if question.to is not None:
        period.append(f"not_before <= {literal(question.to)}")
    yield ReportQuery(
        "the changes that may have happened in between, without the baseline",
        _CHANGES.format(conditions=_all([*selected, *period])),
    )


def literal(text: str) -> str:
    """Return a text as an expression of SQL.

    Characters that a terminal or an editor does not show are written by their numbers.
    """
    parts = []
    for printable, characters in groupby(text, str.isprintable):
        run = "".join(characters)
        if printable:
            parts.append("'{}'".format(run.replace("'", "''")))
        else:
            parts.append(f"char({', '.join(str(ord(character)) for character in run)})")
    return " || ".join(parts) or "''"


def _possible_from(moment: str | None) -> str:
    """Return the condition for the intervals that may contain the first time."""
    return "not_before IS NULL" if moment is None else _possible_at(moment)


def _possible_to(moment: str | None) -> str:
    """Return the condition for the intervals that may contain the second time."""
    return "valid_to IS NULL" if moment is None else _possible_at(moment)


def _possible_at(moment: str) -> str:
    at = literal(moment)
    # The baseline has no not_before: it counts from the first listing on.
    return (
        f"(not_before < {at} OR not_before IS NULL AND valid_from <= {at})\n"
        f"  AND (valid_to > {at} OR valid_to IS NULL)"
    )


def _matching(column: str, pattern: str, names: Iterable[str]) -> list[str]:
    """Return the condition that a column matches a pattern, or nothing if everything does."""
    if pattern == "*":
        return []
    if not is_glob(pattern):
        return [f"{column} = {literal(pattern)}"]
    if "[" in pattern:
        # SQLite negates a set of characters by another sign.
        return [f"{column} IN ({', '.join(map(literal, sorted(set(names))))})"]
    return [f"{column} GLOB {literal(pattern)}"]


def _all(conditions: list[str]) -> str:
    return "\n  AND ".join(conditions)
