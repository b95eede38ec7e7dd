"""Pure: times, durations, sizes and the answer of a report in words. All times are in UTC."""

from collections.abc import Iterator, Sequence
from typing import Final

from tagsync.audit.rows import TagsAtRow
from tagsync.report.document import Code, Inline, Text, text

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def moment(recorded: str | None) -> str:
    """Return a recorded time to the second. None is an empty text."""
    return recorded[:19].replace("T", " ") if recorded else ""


def window(not_before: str | None, observed_at: str) -> str:
    """Return the window of uncertainty of a change, in words."""
    if not_before is None:
        return f"before or at the first listing, {moment(observed_at)}"
    # Whole seconds would show both ends of a short window as the same time.
    length = 19 if not_before[:19] != observed_at[:19] else 23
    start, end = (each[:length].replace("T", " ") for each in (not_before, observed_at))
    if start[:10] == end[:10]:
        end = end[11:]
    return f"after {start}, no later than {end}"


def duration(seconds: float) -> str:
    """Return a duration with its two longest units, such as ``2 h 5 min``."""
    rest, parts = int(seconds), []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        parts.append(f"{count} {unit}" if count else "")
    first = next((index for index, part in enumerate(parts) if part), None)
    return "< 1 s" if first is None else " ".join(filter(None, parts[first : first + 2]))


def size(number: int | None) -> str:
    """Return a number of bytes, exactly and with a unit. None is ``unknown``."""
    if number is None:
        return "unknown"
    scaled, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if scaled < 1000:  # noqa: PLR2004  the next unit
            break
        scaled, unit = scaled / 1000, larger
    return f"{number:,} B" + (f" ({scaled:.1f} {unit})" if unit != "B" else "")


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as ``1 tag`` or ``1,234 tags``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def digest_of(row: TagsAtRow) -> Inline:
    """Return what a tag pointed to in one of its possible states."""
    if row.present is False:
        return "no tag"
    return "a digest that was not resolved" if row.digest is None else Code(row.digest)


def states(rows: Sequence[TagsAtRow]) -> Text:
    """Return what a tag may have pointed to, for the cell of a table."""
    if not rows:
        return text("did not exist (certain)")
    if rows[0].tag is None:
        return text(f"{rows[0].certainty}: {_why(rows[0])}")
    return text(*_alternatives(rows), f" ({rows[0].certainty}{_unsure(rows[0])})")


def sentence(tag: str | None, at: str, rows: Sequence[TagsAtRow]) -> Text:
    """Return what a tag pointed to at a time, as a sentence.

    Args:
        tag: The name of the tag. None means each tag of the question.
        at: The time, in words.
        rows: The states in which it may have been. Without any, it certainly did not exist.
    """
    if tag is None and not rows:
        return text(f"{at}, no tag that matches existed. This is certain.")
    if not rows:
        return text(f"{at}, the tag ", Code(tag or ""), " did not exist. This is certain.")
    first = rows[0]
    if tag is None or first.tag is None:
        return text(f"{at}, the answer is {first.certainty}: {_why(first)}.")
    if first.certainty == "certain":
        return text(f"{at}, the tag ", Code(tag), *_verb(first), ". This is certain.")
    answer = (*_alternatives(rows), f". This is {first.certainty}: {_why(first)}.")
    return text(f"{at}, the tag ", Code(tag), " may have pointed to ", *answer)


def _verb(row: TagsAtRow) -> tuple[Inline, ...]:
    return (" did not exist",) if row.present is False else (" pointed to ", digest_of(row))


def _alternatives(rows: Sequence[TagsAtRow]) -> Iterator[Inline]:
    """Yield the digests, each once, with ``or`` between them."""
    for number, digest in enumerate(dict.fromkeys(map(digest_of, rows))):
        yield " or " if number else ""
        yield digest


def _unsure(row: TagsAtRow) -> str:
    """Return the interval in which an answer is not certain. Empty if it has no ends."""
    start, end = moment(row.unsure_from), moment(row.unsure_until)
    if start and end:
        return f" between {start} and {end}"
    return f" from {start} on" if start else f" until {end}" if end else ""


def _why(row: TagsAtRow) -> str:
    if row.certainty == "unknown":
        first = moment(row.unsure_until)
        return f"the first complete listing was at {first}" if first else "it was never listed"
    if row.certainty == "uncertain":
        return f"it changed{_unsure(row)}"
    what = "shows the tag" if row.tag is not None else "covers this time"
    return f"no complete listing {what}{_unsure(row)}"
