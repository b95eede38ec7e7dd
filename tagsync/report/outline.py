"""Pure: arrange a report as a document. The most important things come first."""

from collections.abc import Iterator, Sequence
from typing import Final

from tagsync.audit.rows import ImmutableLogRow, LogRow
from tagsync.clock import parse_timestamp
from tagsync.report.content import ListName, Report, ReportAnswer, ReportImage
from tagsync.report.document import (
    Block,
    Code,
    Column,
    Document,
    Drawing,
    Facts,
    Heading,
    Listing,
    Notice,
    Paragraph,
    Strong,
    Table,
    Text,
    text,
)
from tagsync.report.words import count, duration, moment, sentence, size, states, window

_WHICH: Final[dict[ListName, str]] = {
    "repositories": "the first {} repositories",
    "answers": "the first {} tags",
    "changes": "the newest {} changes",
    "coverage": "the first {} repositories",
    "gaps": "the longest {} gaps",
    "images": "the first {} images",
    "immutable": "the newest {} of these changes",
}
"""Which rows of a list are shown if it is cut, with a place for their number."""

_PERIOD: Final = (Column("Repository"), Column("From"), Column("To"))
"""The first columns of a table with periods of repositories."""


def outline(report: Report, drawings: Sequence[Drawing] = ()) -> Document:
    """Return a report as a document.

    Args:
        report: The report.
        drawings: Its charts.
    """
    return tuple(_blocks(report, drawings))


def _blocks(report: Report, drawings: Sequence[Drawing]) -> Iterator[Block]:
    yield Heading(text("Report on ", Code(report.question.pattern)), 1)
    yield from _verdict(report)
    yield from _question(report)
    yield from _answer(report)
    if drawings:
        yield Heading(text("Charts"))
        yield from drawings
    yield from _tags(report)
    yield from _immutable(report)
    yield from _changes(report)
    yield from _coverage(report)
    yield from _images(report)
    yield from _proof(report)
    yield from _repeat(report)


def title(report: Report) -> str:
    """Return the title of a report, for the window that shows it."""
    return f"{report.question.pattern}: tagsync report"


def _verdict(report: Report) -> Iterator[Block]:
    """Yield the reasons not to trust the answer."""
    if report.proof is not None and report.proof.fault:
        yield Notice(text("Do not rely on this report. ", report.proof.conclusion), "fault")
    elif report.verification is not None and report.verification.result == "fault":
        last = report.verification
        words = f"The last verification, at {moment(last.at)} UTC, found a fault: "
        yield Notice(text(words, Code(last.detail or "")), "fault")
    immutable = report.length_of("immutable").total or 0
    if immutable:
        yield Notice(
            text(
                f"In this time, {count(immutable, 'change')} moved or deleted tags that must not"
                " move. A section below lists them, and who accepted them."
            ),
            "warning",
        )
    gaps = report.length_of("gaps")
    if report.gaps or gaps.is_cut:
        number = "many gaps" if gaps.total is None else count(gaps.total, "gap")
        yield Notice(
            text(
                f"The coverage has {number} in this time, in which changes may have happened that"
                f" left no trace. The section Coverage lists them{_longest(report)}."
            ),
            "warning",
        )


def _longest(report: Report) -> str:
    longest = max((gap.seconds for gap in report.gaps), default=None)
    return "" if longest is None else f"; the longest lasted {duration(longest)}"


def _question(report: Report) -> Iterator[Block]:
    question = report.question
    yield Heading(text("Question"))
    yield Facts(
        (
            ("Repository", text(*_repositories(report))),
            ("Tag", text(Code(question.tag)) if question.tag else text("all")),
            ("From", _time(question.from_, "the first complete listing", report, "from_")),
            ("To", _time(question.to, "the last complete listing", report, "to")),
            ("Made", text(f"{moment(report.made_at)} UTC, by tagsync {report.version}")),
        )
    )


def _repositories(report: Report) -> Iterator[Code | str]:
    if len(report.repositories) == 1:
        yield Code(report.repositories[0].repository)
        return
    total = report.length_of("repositories").total or 0
    yield f"{count(total, 'repository', 'repositories')} that match "
    yield Code(report.question.repository)


def _time(asked: str | None, default: str, report: Report, attribute: str) -> Text:
    if asked is not None:
        return text(f"{moment(asked)} UTC")
    if len(report.repositories) > 1:
        return text(f"{default} of each repository")
    at = moment(getattr(report.repositories[0], attribute))
    return text(f"{at} UTC, {default}" if at else "no listing is recorded")


def _answer(report: Report) -> Iterator[Block]:
    yield Heading(text("Answer"))
    if not report.answers:
        yield from _cut(report, "answers") or [
            Paragraph(text("No tag is recorded for either time."), "lead")
        ]
        return
    counts = report.counts
    between = (
        f"Recorded in between: {count(counts.moved, 'move')}, {counts.added:,} added,"
        f" {counts.deleted:,} deleted and {counts.updated:,} otherwise updated."
    )
    if len(report.answers) > 1:
        yield Paragraph(text(f"{_summary(report)} {between}"), "lead")
        return
    (answer,) = report.answers
    for attribute, rows in (("from_", answer.at_from), ("to", answer.at_to)):
        words = sentence(answer.tag, _at(report, answer, attribute), rows)
        yield Paragraph(words, "lead")
    yield Paragraph(text(between))


def _summary(report: Report) -> str:
    unsure = sum(
        any(row.certainty != "certain" for row in (*answer.at_from, *answer.at_to))
        for answer in report.answers
    )
    moved = sum(answer.moves > 0 for answer in report.answers)
    shown = len(report.answers)
    tags = f"the first {shown:,} tags" if report.length_of("answers").is_cut else f"{shown:,} tags"
    certain = (
        f"{unsure:,} of the answers are not certain." if unsure else "All answers are certain."
    )
    return f"Of {tags}, {moved:,} moved. {certain}"


def _at(report: Report, answer: ReportAnswer, attribute: str) -> str:
    part = next(each for each in report.repositories if each.repository == answer.repository)
    at = moment(getattr(part, attribute))
    return f"At {at} UTC" if at else "Without any listing"


def _answers_table(report: Report) -> Table:
    several = len(report.repositories) > 1
    rows = tuple(
        (
            *([text(Code(answer.repository))] if several else []),
            text(Code(answer.tag)) if answer.tag is not None else text("the whole repository"),
            states(answer.at_from),
            _later_states(answer),
            text(f"{answer.moves:,}"),
        )
        for answer in report.answers
    )
    columns = (
        *([Column("Repository")] if several else []),
        Column("Tag"),
        Column(_at_column(report.question.from_, "first")),
        Column(_at_column(report.question.to, "last")),
        Column("Moves", "number"),
    )
    return Table(text("What each tag pointed to, and how certain that is"), columns, rows)


def _tags(report: Report) -> Iterator[Block]:
    """Yield the answer for each tag, if there are several."""
    if len(report.answers) > 1:
        yield Heading(text("Tags"))
        yield from _cut(report, "answers")
        yield _answers_table(report)


def _at_column(asked: str | None, which: str) -> str:
    return f"At {moment(asked)} UTC" if asked else f"At the {which} listing"


def _later_states(answer: ReportAnswer) -> Text:
    """Return the states at the second time. A digest is not repeated if it is the same."""
    first, second = states(answer.at_from), states(answer.at_to)
    return text("the same") if first == second else second


def _immutable(report: Report) -> Iterator[Block]:
    """Yield the changes of tags that must not move, if there are any."""
    if not report.length_of("immutable").total:
        return
    yield Heading(text("Tags that must not move"))
    yield Paragraph(
        text(
            "The configuration called these tags immutable when the changes were recorded. A person"
            " who accepts a change gives a reason. The acceptance is recorded beside the history,"
            " and no hash chain covers it."
        ),
        "note",
    )
    yield from _cut(report, "immutable")
    columns = (
        Column("Change", "number"),
        Column("When"),
        Column("Tag"),
        Column("What", "word"),
        Column("Digest"),
        Column("Accepted"),
    )
    rows = tuple(map(_immutable_row, report.immutable))
    yield Table(text("The changes of these tags, oldest first (UTC)"), columns, rows)


def _immutable_row(change: ImmutableLogRow) -> tuple[Text, ...]:
    before, after = (
        text("not resolved") if digest is None else text(Code(digest))
        for digest in (change.previous_digest, change.new_digest)
    )
    deleted = change.violation == "immutable_deleted"
    accepted = text(Strong("not accepted"))
    if change.accepted_at is not None:
        who, reason = Code(change.accepted_by or ""), Code(change.reason or "")
        accepted = text(f"{moment(change.accepted_at)} by ", who, ": ", reason)
    return (
        text(f"{change.id:,}"),
        text(window(change.not_before, change.observed_at)),
        text(Code(f"{change.repository}:{change.tag}")),
        text("deleted" if deleted else "moved"),
        before if deleted else text("from ", *before, " to ", *after),
        accepted,
    )


def _changes(report: Report) -> Iterator[Block]:
    yield Heading(text("Changes in between"))
    if not report.changes:
        yield from _cut(report, "changes") or [Paragraph(text("None is recorded."))]
        return
    yield Paragraph(
        text(
            "Each happened after the last listing without it, and no later than the first listing"
            " with it. A tag list does not name a person: search the audit trail of the registry"
            " for pushes in this window. All times are in UTC."
        ),
        "note",
    )
    yield from _cut(report, "changes")
    several = len(report.repositories) > 1
    columns = (
        Column("Change", "number"),
        Column("When"),
        *([Column("Repository")] if several else []),
        Column("Tag"),
        Column("What", "word"),
        Column("Digest"),
    )
    rows = tuple(_change_row(change, several=several) for change in report.changes)
    yield Table(text("The changes, oldest first"), columns, rows)


def _change_row(change: LogRow, *, several: bool) -> tuple[Text, ...]:
    old, new = (
        text("not resolved") if digest is None else text(Code(digest))
        for digest in (change.old_digest, change.new_digest)
    )
    digests = {
        "added": new,
        "deleted": old,
        "updated": text("from ", *old, " to ", *new) if change.moved else new,
    }[change.kind]
    _, pushed = change.fields.get("updated", (None, None))
    claim = ("; pushed, as the registry says, ", Code(str(pushed))) if pushed else ()
    return (
        text(f"{change.id:,}"),
        text(window(change.not_before, change.observed_at)),
        *([text(Code(change.repository))] if several else []),
        text(Code(change.tag)),
        text("moved" if change.moved else change.kind),
        text(*digests, *claim),
    )


def _coverage(report: Report) -> Iterator[Block]:
    yield Heading(text("Coverage"))
    if not report.coverage:
        yield from _cut(report, "coverage") or [
            Paragraph(text("No poll is recorded in this time."))
        ]
        return
    yield from _cut(report, "coverage")
    yield _coverage_table(report)
    if not report.gaps:
        yield from _cut(report, "gaps") or [Paragraph(text("There is no gap in coverage."))]
        return
    yield from _cut(report, "gaps")
    yield _gaps_table(report)


def _coverage_table(report: Report) -> Table:
    columns = (*_PERIOD, Column("Covered", "number"), Column("Longest gap", "number"))
    rows = tuple(
        (
            text(Code(row.repository)),
            text(moment(row.from_)),
            text(moment(row.to)),
            text(f"{row.percent:.2f} %"),
            text("none" if row.longest_gap_seconds is None else duration(row.longest_gap_seconds)),
        )
        for row in report.coverage
    )
    return Table(text("How much of the time complete listings cover (UTC)"), columns, rows)


def _gaps_table(report: Report) -> Table:
    columns = (*_PERIOD, Column("Duration", "number"), Column("Why"))
    rows = tuple(
        (
            text(Code(gap.repository)),
            text(moment(gap.from_)),
            text(moment(gap.to)),
            text(duration(gap.seconds)),
            text("polls failed or were held: ", Code(gap.detail))
            if gap.detail
            else text("no poll"),
        )
        for gap in report.gaps
    )
    return Table(text("The gaps in coverage, the longest first (UTC)"), columns, rows)


def _images(report: Report) -> Iterator[Block]:
    yield Heading(text("Images"))
    if not report.images:
        yield from _cut(report, "images") or [
            Paragraph(text("No image of the answer is recorded."))
        ]
        return
    yield from _cut(report, "images")
    for image in report.images:
        yield from _image(image)


def _image(image: ReportImage) -> Iterator[Block]:
    yield Heading(text(Code(image.digest)), 3)
    yield _image_facts(image)
    if image.platforms:
        yield Table(
            text("The platforms of this index"),
            (Column("Platform"), Column("Digest")),
            tuple(
                (text(Code(each.platform or "not stated")), text(Code(each.digest)))
                for each in image.platforms
            ),
        )
    if image.layers:
        yield Table(
            text("The layers, the lowest first"),
            (Column("Layer"), Column("Size", "number")),
            tuple((text(Code(each.digest)), text(size(each.size))) for each in image.layers),
        )
    if image.tags:
        yield _image_tags(image)


def _image_facts(image: ReportImage) -> Facts:
    verified = {
        True: "yes, the recorded manifest hashes to the digest",
        False: "no, the recorded manifest does not hash to the digest",
        None: "no manifest is recorded",
    }[image.verified]
    return Facts(
        (
            ("Media type", text(Code(image.media_type)) if image.media_type else text("unknown")),
            ("Size", text(size(image.size))),
            ("Verified", text(verified)),
            ("First listed", text(f"{moment(image.first_observed_at)} UTC")),
            ("Tags", text(f"{image.tags_now:,} now, {image.tags_ever:,} ever")),
        )
    )


def _image_tags(image: ReportImage) -> Table:
    rows = tuple(
        (
            text(Code(f"{each.repository}:{each.tag}")),
            text(window(each.not_before, each.valid_from)),
            text(
                window(each.still_at, each.valid_to)
                if each.valid_to
                else "still in the last listing"
            ),
        )
        for each in image.tags
    )
    columns = (Column("Tag"), Column("From"), Column("Until"))
    return Table(text("Tags that lead, or led, to it (UTC)"), columns, rows)


def _proof(report: Report) -> Iterator[Block]:
    yield Heading(text("Could the record have been altered"))
    if report.proof is not None:
        kind = "fault" if report.proof.fault else "good"
        yield Notice(text(report.proof.conclusion), kind)  # type: ignore[arg-type]
        yield Table(
            text("The checks that were run for this report"),
            (Column("Check"), Column("Rows", "number"), Column("Result"), Column("Detail")),
            tuple(
                (
                    text(Code(row.check)),
                    text(f"{row.rows:,}"),
                    text(Strong("fault") if row.result == "fault" else "ok"),
                    text(Code(row.detail)) if row.detail else text("none"),
                )
                for row in report.proof.checks
            ),
        )
    yield Paragraph(_last_verification(report))
    yield Table(
        text("The heads of both hash chains when this report was made"),
        (Column("Chain"), Column("Number", "number"), Column("Hash")),
        tuple(
            (text(head.chain), text(f"{head.id:,}"), text(Code(head.hash))) for head in report.heads
        ),
    )
    yield Paragraph(
        text(
            "The hash of a change covers all changes before it. Whoever can write to the database"
            " can compute new hashes: only a head that was kept elsewhere, such as in a log on"
            " another host, rules that out."
        ),
        "note",
    )


def _last_verification(report: Report) -> Text:
    last = report.verification
    if last is None:
        return text("The daemon has not recorded a verification of this database.")
    made, at = parse_timestamp(report.made_at), parse_timestamp(last.at)
    age = duration(max((made - at).total_seconds(), 0))
    words = {"ok": "found no fault", "fault": "found a fault", "failed": "could not be finished"}
    checked = next((head for head in last.heads if head.chain == "changes"), None)
    return text(
        f"The daemon last verified the record at {moment(last.at)} UTC, {age} before this report."
        f" It {words[last.result]}",
        *((": ", Code(last.detail)) if last.detail else ()),
        *(
            (f". It covers change {checked.id:,} with the hash ", Code(checked.hash))
            if checked
            else ()
        ),
        ".",
    )


def _repeat(report: Report) -> Iterator[Block]:
    yield Heading(text("Repeat this without tagsync"))
    yield Paragraph(
        text(
            "Ask for a copy of the database. tagsync makes one by this command, also while its"
            " daemon runs:",
        )
    )
    yield Listing("tagsync backup copy.db\n", "sh", "How to copy the database")
    yield Paragraph(
        text(
            "Save this as ",
            Code("check.py"),
            " and run ",
            Code("python3 check.py copy.db"),
            ". It recomputes the chain of changes, and compares it with the head above. It needs"
            " only Python.",
        )
    )
    yield Listing(report.check, "python", "A script that checks the chain of changes")
    yield Paragraph(
        text("These queries answer the question. Run them with ", Code("sqlite3 copy.db"), ".")
    )
    for query in report.queries:
        yield Paragraph(text(f"{query.answers[0].upper()}{query.answers[1:]}:"))
        yield Listing(query.sql, "sql", f"A query for {query.answers}")


def _cut(report: Report, name: ListName) -> list[Block]:
    """Return the sentence that a list is cut, with the command that gives all, if it is."""
    length = report.length_of(name)
    if not length.is_cut:
        return []
    of = "" if length.total is None else f" of {length.total:,}"
    which = _WHICH[name].format(f"{length.shown:,}{of}")
    words = f"This list is cut: it has {which}. This gives all: "
    return [Notice(text(words, Code(length.command)), "warning")]
