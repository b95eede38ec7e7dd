"""``diff``, ``find``, ``coverage`` and ``verify``: what an auditor asks."""

import re
from itertools import chain

import click

from tagsync.audit.queries import Audit
from tagsync.cli import Settings
from tagsync.cli.moments import parse_span, since_option, until_option
from tagsync.cli.output import format_option, show
from tagsync.cli.setup import configuration_of_questions
from tagsync.cli.status import CERTAINTY_COLUMNS
from tagsync.clock import utc_now
from tagsync.errors import UnclearQuestion

DIFF_COLUMNS = (
    *("repository", "tag", "kind", "old_digest", "new_digest", "fields"),
    *CERTAINTY_COLUMNS,
)
FIND_COLUMNS = (
    *("repository", "tag", "role", "digest", "platform"),
    *("not_before", "valid_from", "still_at", "valid_to"),
)
COVERAGE_COLUMNS = ("repository", "from", "to", "state", "polls", "detail")
VERIFY_COLUMNS = ("check", "rows", "result", "detail")

FAULT = 1
"""Exit status."""


@click.command()
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@click.option("--from", "start", metavar="TIME", required=True, help="The earlier moment.")
@click.option(
    "--to", "end", metavar="TIME", help="The later one; else the last listing of each repository."
)
@format_option
@click.pass_obj
def diff(
    settings: Settings,
    patterns: tuple[str, ...],
    start: str,
    end: str | None,
    output_format: str,
) -> None:
    """Show the net difference between two moments.

    What happened and was undone in between is not in it. PATTERN is a glob over
    registry/namespace/repository, TIME is ISO 8601 (UTC unless it says otherwise) or an age such
    as 2h or 3d. The certainty is that of tagsync tags --at, the worse of the two moments'; a row
    without a tag says that a repository was not seen at one of them.

    \b
    Example:
      tagsync diff 'swr/team-a/*' --from 2026-05-03 --to 2026-05-10
    """
    since, until = parse_span(start, end, utc_now())
    with Audit.open(configuration_of_questions(settings).database) as audit:
        show(audit.diff(patterns, since or "", until), DIFF_COLUMNS, output_format)


@click.command()
@click.argument("digest")
@format_option
@click.pass_obj
def find(settings: Settings, digest: str, output_format: str) -> None:
    """Show every tag that leads to a digest, or ever did.

    DIGEST is that of a manifest, of a configuration (image_id) or of a layer, with or without
    sha256:; its beginning will do, if it is unique. Indexes are looked into: platform tells by
    which of their manifests it was found.

    The tag came to point to digest after not_before and no later than valid_from. It still did at
    still_at, and ceased to no later than valid_to; without valid_to the last listing had it. That
    nothing leads to it is said on standard error.

    \b
    Example:
      tagsync find sha256:8ac8bfaff55a
    """
    with Audit.open(configuration_of_questions(settings).database) as audit:
        found = audit.find(digest)
        first = next(found, None)
        show(() if first is None else chain((first,), found), FIND_COLUMNS, output_format)
        if first is None:
            click.echo(
                f"tagsync: no tag leads to {digest}, or ever did, as far as is recorded: what a"
                " manifest names is known only where the manifest is",
                err=True,
            )


@click.command()
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@since_option
@until_option
@format_option
@click.pass_obj
def coverage(
    settings: Settings,
    patterns: tuple[str, ...],
    since: str | None,
    until: str | None,
    output_format: str,
) -> None:
    """Show when somebody was looking, and the holes.

    The state is "looking" for a run of complete listings, "failed" and "held" for runs of polls
    that showed nothing, and "hole" where there was no poll. Without --until it ends with the last
    poll. PATTERN is a glob over registry/namespace/repository, TIME is ISO 8601 (UTC unless it says
    otherwise) or an age such as 2h or 3d.

    \b
    Example:
      tagsync coverage swr/team-a/api --since 30d
    """
    start, end = parse_span(since, until, utc_now())
    with Audit.open(configuration_of_questions(settings).database) as audit:
        show(audit.coverage(patterns, since=start, until=end), COVERAGE_COLUMNS, output_format)


@click.command()
@click.option(
    "--head",
    "heads",
    metavar="HASH",
    multiple=True,
    help="Also prove that nothing was cut off or rewritten since this was logged as the head.",
)
@format_option
@click.pass_obj
def verify(settings: Settings, heads: tuple[str, ...], output_format: str) -> int:
    """Prove that the record is what was recorded.

    Recomputes the chain of changes, hashes every manifest again, replays all changes and compares
    the result with the mirror, and each with the observations. The exit status is 1 if something
    does not fit, and the first that does not is named.

    \b
    Example:
      tagsync verify --head "$(journalctl -u tagsync -o cat | jq -r 'select(.head).head' | tail -1)"
    """
    for head in heads:
        if not re.fullmatch(r"[0-9a-f]{64}", head):
            raise UnclearQuestion(
                f"{head!r} is no head: write the 64 hexadecimal digits that the log has as head"
            )
    with Audit.open(configuration_of_questions(settings).database) as audit:
        rows = list(audit.verify(heads))
    show(rows, VERIFY_COLUMNS, output_format)
    return FAULT if any(row["result"] == "fault" for row in rows) else 0
