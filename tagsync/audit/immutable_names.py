"""Pure: which names of tags promise that the tag never moves."""

import re
from typing import Final

_VERSION: Final = re.compile(
    r"(?:[A-Za-z]+[-_])*[vV]?\d+\.\d+\.\d+(?![A-Za-z0-9]*[xX*])(?P<rest>.*)"
)
_MOVING_WORDS: Final = re.compile(
    r"(?:^|[-_.])(?:latest|snapshot|nightly|dev|edge|canary|head|main|master)(?:$|[-_.])",
    re.IGNORECASE,
)
_DATE: Final = re.compile(
    r"(?<!\d)20\d\d([-._]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?:\d{4}|\d{6})?(?!\d)"
)
_COMMIT: Final = re.compile(
    r"(?:.*[-_.])?(?:sha[-_]?[0-9a-f]{7,64}|sha(?:256|512)[-_][0-9a-f]{32,128}"
    r"|g?(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,64}|[0-9a-f]{40}|[0-9a-f]{64})"
)


def promises_never_to_move(tag: str) -> bool:
    """Return whether a tag's name is that of one build: full version, date or commit.

    =========================================  ==========================
    it promises                                it does not
    =========================================  ==========================
    ``1.2.3``, ``v1.2.3``, ``app-1.2.3``       ``1``, ``v1``, ``1.2``
    ``v1.2.3-rc.1``, ``1.2.3-alpine``          ``1.2-alpine3.18.4``, ``1.2.x``
    ``1.2.3-dev.20240501``                     ``1.2.3-SNAPSHOT``, ``1.2.3-latest``
    ``2024-05-01``, ``nightly-20240501``       ``2024``, ``2024-05``, ``nightly``
    ``20240501120000``                         ``20241301``, ``1234567``
    ``sha-abcdef1``, ``main-3f2a1bc``          ``sha-abc``, ``main``, ``deadbeef``
    ``v1.2.3-5-g3f2a1bc``, 40 or 64 hex digits ``sha256-3f….sig``, ``latest``
    =========================================  ==========================

    Args:
        tag: The name of the tag.
    """
    if _DATE.search(tag) or _COMMIT.fullmatch(tag):
        return True
    version = _VERSION.fullmatch(tag)
    return version is not None and not _MOVING_WORDS.search(version["rest"])
