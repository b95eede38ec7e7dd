"""The paths below which a glob can match repositories."""

import re
from collections.abc import Sequence
from typing import Final

_WILDCARD: Final = re.compile(r"[*?\[]")


def directories_of(globs: Sequence[str]) -> list[str] | None:
    """Return the parts of each glob before that of its first wildcard, sorted, each once.

    For instance, ``team/sub/app*`` gives ``team/sub``.

    Returns:
        None if a glob may match repositories below several first parts, or below none.
    """
    literals = [_WILDCARD.split(glob, maxsplit=1)[0] for glob in globs]
    found = {literal.rpartition("/")[0] for literal in literals}
    return None if "" in found else sorted(found)


def namespaces_of(globs: Sequence[str]) -> list[str] | None:
    """Return the first part of each glob, sorted, each once.

    Returns:
        None if a glob may match repositories of several namespaces, or of none.
    """
    directories = directories_of(globs)
    if directories is None:
        return None
    return sorted({directory.partition("/")[0] for directory in directories})
