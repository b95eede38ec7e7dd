"""What an answer says, whatever shape it has: the list that was asked for, or why there is none."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from tagsync.errors import InconsistentListing, MalformedResponse
from tagsync.registries import client as http

READS: Final = 3
"""How often a listing whose pages contradict each other is read before it is given up."""

ReadT = TypeVar("ReadT")


def read_consistently(read: Callable[[], ReadT], what: str) -> ReadT:
    """Reads until the pages agree, at most `READS` times.

    Args:
        read: makes one attempt.
        what: is read, for the sentence.

    Raises:
        InconsistentListing: the pages contradicted each other in every read.
    """
    for _ in range(READS - 1):
        try:
            return read()
        except InconsistentListing:
            continue
    try:
        return read()
    except InconsistentListing as error:
        raise InconsistentListing(
            f"{what} was read {READS} times and contradicted itself: {error}"
        ) from error


def decoded(decode: Callable[[bytes], ReadT], answer: http.Answer, interface: str) -> ReadT:
    """The body, decoded.

    Args:
        decode: the decoder of what was asked for.
        answer: whose status was 200.
        interface: how people call what should have answered, such as ``SWR's API``.

    Raises:
        MalformedResponse: it is something else.
    """
    try:
        answer.body.decode()  # what msgspec skips, such as unknown keys, it does not check
        return decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = f"something that is not the list asked for: {error}"
    except RecursionError:
        what = "a body that is nested too deeply"
    if not answer.body:
        what = "an empty body"
    elif answer.body.lstrip()[:1] == b"<":
        what = (
            f"an HTML page: check that the endpoint is {interface}, and the proxy if there is one"
        )
    raise MalformedResponse(f"{answer.url} sent {what}")


def errors_of(body: bytes) -> dict[Any, Any]:
    """The first error that a refusal's body tells of, in any shape that is known; else nothing.

    OCI registries, SWR and its gateway send a list of errors under ``errors``, the list by itself,
    or one error.
    """
    try:
        content: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(content, dict) and isinstance(content.get("errors"), list):
        content = content["errors"]
    if isinstance(content, list):
        content = content[0] if content else {}
    return content if isinstance(content, dict) else {}
