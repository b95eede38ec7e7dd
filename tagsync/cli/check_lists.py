"""The line of the command ``check`` about a registry's own list of tags with digests."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tagsync.cli.check_line import Line
from tagsync.cli.formats import count_text
from tagsync.models import ListUse

_SHOWN: Final = 3
"""Maximum number of repositories that the line names for each list."""

_ADVICE: Final = (
    "let the login read the list if that is the reason, or set list = 'tags' if one request for"
    " each tag is intended"
)


def list_line(registry: str, lines: Iterable[Line]) -> Line | None:
    """Return which list is used for which repositories, and the requests of an idle poll.

    Args:
        registry: The name of the registry.
        lines: The lines of its repositories and globs.

    Returns:
        None if no repository could be listed, or if the registry lists digests anyway.
    """
    uses = {name: use for line in lines for name, use in line.uses.items()}
    if not uses:
        return None
    groups: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for name, use in sorted(uses.items()):
        groups[use.source, use.reason].append(name)
    detail = "; ".join(
        _describe(source, reason, names, uses) for (source, reason), names in groups.items()
    )
    subject = f"list of tags of {registry}"
    if any(use.offered and use.reason for use in uses.values()):
        return Line(subject, "warning", detail, _ADVICE)
    return Line(subject, "ok", detail)


def _describe(
    source: str, reason: str | None, names: Sequence[str], uses: Mapping[str, ListUse]
) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    requests = count_text(sum(uses[name].idle_requests for name in names), "request")
    tags = count_text(sum(uses[name].tags for name in names), "tag")
    how = "HEAD" if source == "head" else f"the list {source}"
    why = f", because {reason}" if reason else ""
    return f"{how} for {shown}{more}: {requests} for an idle poll of {tags}{why}"
