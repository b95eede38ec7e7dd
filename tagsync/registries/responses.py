"""Decode responses, repeat inconsistent reads, and turn refusals into errors.

Shared by the clients of all kinds of registries.
"""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import httpx
import msgspec

from tagsync.errors import (
    BadRequest,
    Busy,
    InconsistentListing,
    MalformedResponse,
    RegistryError,
    Throttled,
)
from tagsync.escaping import truncate
from tagsync.registries.pacing import retry_after
from tagsync.secrets import Secret, redact

READS: Final = 3
"""Maximum number of times that a list is read if its pages contradict each other."""

ReadT = TypeVar("ReadT")


class Answer(msgspec.Struct, frozen=True):
    """A complete response: its body is read to the end and decompressed.

    Attributes:
        url: The URL that answered. If the request was redirected, this is the last target, without
            its query.
        requests: Number of requests that this response took, redirects and retries included.
        redirected: Whether a redirect led to this response.
    """

    url: str
    status: int
    headers: httpx.Headers
    body: bytes
    requests: int = 1
    redirected: bool = False

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server asks for a retry, or None if it names no time."""
        return retry_after(self.headers)


def read_consistently(read: Callable[[], ReadT], name: str) -> ReadT:
    """Read a list, at most `READS` times, until its pages are consistent.

    Args:
        read: Reads the list once. Raises InconsistentListing if the pages contradict each other.
        name: The name of the list, for an error.

    Raises:
        InconsistentListing: If the pages contradicted each other in every attempt.
    """
    try:
        return repeat_if_inconsistent(read, READS)
    except InconsistentListing as error:
        raise InconsistentListing(
            f"{name} was read {READS} times, and each time its pages contradicted each other:"
            f" {error}"
        ) from error


def repeat_if_inconsistent(read: Callable[[], ReadT], reads: int) -> ReadT:
    """Return the result of the first read whose pages do not contradict each other.

    Args:
        read: As in `read_consistently`.
        reads: Maximum number of reads.

    Raises:
        InconsistentListing: The error of the last read.
    """
    for _ in range(reads - 1):
        try:
            return read()
        except InconsistentListing:
            continue
    return read()


class ListPage(msgspec.Struct, kw_only=True):
    """The body of a page of a list, which may come together with an error."""

    errors: Any = None
    error: Any = None

    def check_whole(self, answer: Answer) -> None:
        """Check that the page reports no error, because it may otherwise lack names.

        Raises:
            MalformedResponse: If it does.
        """
        if self.errors or self.error:
            raise MalformedResponse(f"{answer.url} sent a list together with an error")


def decode_body(decode: Callable[[bytes], ReadT], answer: Answer, interface: str) -> ReadT:
    """Decode the body of an answer whose status is 200.

    Args:
        decode: The decoder of the requested list.
        answer: The answer.
        interface: The name of the expected API, for an error: ``SWR's API``.

    Raises:
        MalformedResponse: If the body is not the requested list.
    """
    try:
        answer.body.decode()  # msgspec does not check the encoding of keys that it skips
        return decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        found = f"a body that is not the requested list: {truncate(str(error))}"
    except RecursionError:
        found = "a body that is nested too deeply"
    if not answer.body:
        found = "an empty body"
    elif answer.body.lstrip()[:1] == b"<":
        found = (
            f"an HTML page: check that the endpoint is {interface}, and check the proxy if there"
            " is one"
        )
    raise MalformedResponse(f"{answer.url} sent {found}")


class Refusal(msgspec.Struct, frozen=True):
    """A row of `Refusals.rows`: some answers, and the error that they mean.

    Attributes:
        error: The error to raise.
        status: The status that an answer must have. None matches every status.
        code: A regular expression that the whole error code must match. An answer without an error
            code is matched as if its code were empty.
        header: The name of a header that an answer must have. None requires no header.
        advice: The end of the error's sentence, with the punctuation before it:
            ``: check the endpoint``.
    """

    error: type[RegistryError]
    status: int | None = None
    code: str = ".*"
    header: str | None = None
    advice: str = ""

    def matches(self, answer: Answer, code: str) -> bool:
        """Return whether this row describes an answer with this error code."""
        return (
            self.status in {None, answer.status}
            and re.fullmatch(self.code, code, re.DOTALL) is not None
            and (self.header is None or self.header in answer.headers)
        )


def _no_hint(_: Answer, __: type[RegistryError]) -> str | None:
    return None


class Refusals(msgspec.Struct, frozen=True):
    """How one kind of registry reports errors, and which error each answer means.

    Attributes:
        code_keys: The keys of an error object that may hold its code.
        message_keys: The keys of an error object that may hold its message.
        rows: The first row that matches an answer decides its error. Statuses 429, 409, 5xx and
            redirects need no row, because they mean the same for every registry.
        hint: Returns advice that replaces the advice of the row, or None to keep it.
    """

    code_keys: tuple[str, ...]
    message_keys: tuple[str, ...]
    rows: tuple[Refusal, ...]
    hint: Callable[[Answer, type[RegistryError]], str | None] = _no_hint


def refusal_error(
    answer: Answer, refusals: Refusals, secrets: tuple[Secret, ...] = ()
) -> RegistryError:
    """Return an error, with one sentence as its text, for an answer that is not a 200.

    Args:
        answer: The answer. Its body may have any form.
        refusals: The table for this kind of registry.
        secrets: Values to remove from the error's text, because a server may repeat them.
    """
    content = first_error(answer.body)
    code = redact(_text_of(content, refusals.code_keys), secrets)
    message = redact(_text_of(content, refusals.message_keys), secrets)
    said = ": ".join(filter(None, (truncate(code), truncate(message)))) or "no readable message"
    row = next((row for row in refusals.rows if row.matches(answer, code)), None)
    row = row or _common_refusal(answer)
    advice = refusals.hint(answer, row.error) or row.advice
    advice = truncate(redact(advice, secrets))
    return row.error(
        f"{redact(answer.url, secrets)} answered {answer.status} ({said}){advice}",
        retry_after=answer.retry_after,
        status=answer.status,
        code=truncate(code) or None,
    )


def transient_error(status: int) -> type[Throttled] | type[Busy] | None:
    """Return the transient error that a status means, or None for other statuses.

    These statuses mean the same for every registry and every issuer of credentials.
    """
    if status == 429:  # noqa: PLR2004  status codes are best known as numbers
        return Throttled
    if status == 409 or status >= 500:  # noqa: PLR2004  as above
        return Busy
    return None


def first_error(body: bytes) -> dict[Any, Any]:
    """Return the first error object of a response body, or an empty dict.

    Registries differ: a body is one error object, a list of them, or an object that holds this list
    under ``errors``.
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


def _text_of(content: dict[Any, Any], keys: tuple[str, ...]) -> str:
    return str(next((content[key] for key in keys if content.get(key)), ""))


def _common_refusal(answer: Answer) -> Refusal:
    if transient := transient_error(answer.status):
        return Refusal(transient)
    if answer.status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        advice = ": the proxy requires a login; write it as http://USER:PASSWORD@HOST:PORT"
        return Refusal(BadRequest, advice=advice)
    if 300 <= answer.status < 400:  # noqa: PLR2004  status codes are best known as numbers
        # Leave out the query: in a signed URL it contains a key.
        target = redact(answer.headers.get("Location", "nowhere")).partition("?")[0]
        advice = f"; it redirects to {target}, and tagsync does not follow this kind of redirect"
        return Refusal(BadRequest, advice=advice)
    return Refusal(BadRequest)
