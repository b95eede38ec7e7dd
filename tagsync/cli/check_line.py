"""One line of the command ``check``."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from tagsync.errors import RegistryError
from tagsync.models import ListUse

Result = Literal["ok", "warning", "failed"]


class Line(msgspec.Struct, frozen=True):
    """One line of the output: the result for one thing that was checked.

    Attributes:
        subject: The checked thing, such as ``glob swr/team/*``.
        result: ``failed`` also makes the command fail.
        detail: The reason for the result, in a phrase.
        advice: The remedy. None if ``result`` is ``ok``.
        error: The error of the registry, if there was one.
        refused: Whether the configuration or a secret is wrong.
        uses: How polls would resolve the tags of checked repositories, by full name.
    """

    subject: str
    result: Result
    detail: str
    advice: str | None = None
    error: RegistryError | None = None
    refused: bool = False
    uses: Mapping[str, ListUse] = {}
