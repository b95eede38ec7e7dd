"""The namespaces whose repositories a glob can match."""

import re
from collections.abc import Sequence
from typing import Final

_WILDCARD: Final = re.compile(r"[*?\[]")


def namespaces_of(globs: Sequence[str]) -> list[str] | None:
    """Return the first part of each glob, sorted and without repetitions.

    Returns:
        None if a glob may match repositories of several namespaces, or of none.
    """
    split = [glob.partition("/") for glob in globs]
    if any(not slash or _WILDCARD.search(namespace) for namespace, slash, _ in split):
        return None
    return sorted({namespace for namespace, _, _ in split})
