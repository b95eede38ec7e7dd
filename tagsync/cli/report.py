"""The command ``report``, which writes one file for a ticket or an auditor."""

from pathlib import Path
from time import monotonic

import click

from tagsync.audit.queries import Audit
from tagsync.audit.rows import VerifyRow, as_rows
from tagsync.cli import Settings
from tagsync.cli.exit_status import FAILED
from tagsync.cli.lines import make_view
from tagsync.cli.options import StrictCommand
from tagsync.cli.progress import progress_line, shows_progress
from tagsync.cli.setup import display_path, open_audit
from tagsync.cli.suggestions import complete_pattern
from tagsync.cli.verify_result import Progress, conclusion
from tagsync.clock import utc_now
from tagsync.config.moments import parse_period
from tagsync.report.build import build, format_of, write
from tagsync.report.collect import ask, collect
from tagsync.report.content import ReportProof
from tagsync.report.drawings import draw


@click.command(cls=StrictCommand)
@click.argument("pattern", metavar="PATTERN[:TAG]", shell_complete=complete_pattern)
@click.option("--from", "start", metavar="TIME", help="The first time; default: the first listing.")
@click.option("--to", "end", metavar="TIME", help="The second time; default: the last listing.")
@click.option("--verify", is_flag=True, help="Verify the record, and include the result.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="The file, .html, .md or .json. An existing file is replaced.",
)
@click.pass_obj
def report(
    settings: Settings,
    pattern: str,
    start: str | None,
    end: str | None,
    verify: bool,
    output: Path,
) -> int:
    """Write one file with an answer and its evidence.

    The report says what each tag pointed to at two times and how certain that is. It has the
    changes in between, charts, coverage, the images, the last verification, the heads of both hash
    chains, and how to repeat all this without tagsync. It needs no other file, contains no script,
    and has at most 5 MB: longer lists are cut, and name the command that gives all.

    PATTERN is a glob over registry/namespace/repository; PATTERN:TAG narrows it to tags. TIME is
    ISO 8601 (UTC unless it says otherwise) or an age such as 2h or 3d. If --verify finds a fault,
    the report says so, and the exit status is 1.

    \b
    Example:
      tagsync report swr/team-a/api:latest --from 2026-05-03 -o incident.html
    """
    output_format = format_of(output)
    now = utc_now()
    question = ask(pattern, *parse_period(start, end, now))
    with open_audit(settings) as audit:
        audit.check_tags([pattern])
        proof = _verify(settings, audit) if verify else None
        made = collect(audit, question, now, proof)
        drawings = draw(audit, made) if output_format == "html" else ()
    write(output, build(made, output_format, drawings))
    click.echo(f"wrote {display_path(output)}")
    return FAILED if proof is not None and proof.fault else 0


def _verify(settings: Settings, audit: Audit) -> ReportProof:
    """Verify the record, and show the progress as ``verify`` does."""
    wanted = not settings.quiet and shows_progress()
    with progress_line(wanted=wanted) as show_progress:
        progress = Progress(audit.rows_to_verify() if wanted else 0, monotonic())

        def on_rows(check: str, read: int) -> None:
            show_progress(progress.text(check, read, monotonic()))

        rows = list(audit.verify((), on_rows))
    fault = any(row["result"] == "fault" for row in rows)
    proof = None if fault else audit.proof()
    words = conclusion(rows, proof, (), make_view(settings))
    return ReportProof(list(as_rows(rows, VerifyRow)), fault, words)
