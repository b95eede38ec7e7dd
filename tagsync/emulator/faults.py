"""Faults of the emulated registry, on request or at random with a fixed seed.

::

    faults = Faults({"latency": 0.2, "drop": 0.05}, seed=7)
    with Emulator(faults=faults) as swr:
        faults.next("half_sent")   # the next answer ends in the middle
        faults.on = False          # the registry behaves correctly again
    print(faults.counts)
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from random import Random
from threading import Lock
from typing import Any, Final, NamedTuple, Self

from tagsync.clock import Clock, utc_now
from tagsync.emulator.answers import gateway_error, registry_error
from tagsync.emulator.http import COMPLETE, Answer, Delivery


class Fault(StrEnum):
    """The kinds of faults: mishaps and lies.

    Mishaps can happen to any request:

    =====================  =========================================================================
    ``latency``            the server computes the answer at once and sends it after a delay
    ``stall``              the server reads the request and never answers
    ``stall_midway``       the server stops in the middle of the answer, the connection stays open
    ``drop``               the server closes the connection without an answer
    ``half_sent``          the server closes the connection in the middle of the answer
    ``truncated``          the answer is complete for HTTP, but the end of its body is missing
    ``wrong_body``         200 with a proxy's page, an error, other JSON, invalid text or no body
    ``throttled``          429 of the gateway (``APIG.0308``) without ``Retry-After``
    ``throttled_seconds``  like ``throttled``, with ``Retry-After`` in seconds
    ``throttled_date``     like ``throttled``, with ``Retry-After`` as a date
    ``throttled_403``      403 with one of the two codes that SWR itself uses for throttling
    ``server_error``       a 5xx of the registry, or of a proxy in front of it
    ``busy``               409, which asks the client to retry
    ``expired``            401, and every token of the identity service becomes invalid
    ``skewed``             the server's clock is 16 min to 10 h off, also in the answer's ``Date``
    ``no_total``           a page of a list has no ``Content-Range``, as if a proxy had removed it
    =====================  =========================================================================

    Lies make a tag list wrong. A client can detect each lie, or recover from it by reading the list
    again. No lie leaves out some tags of a list that has only one page, because a client could not
    detect such a lie:

    =====================  =========================================================================
    ``shifted``            a later page starts a row too early or too late, as after a push
    ``repeated``           the first page is sent instead of a later one
    ``capped``             a page has fewer rows than requested
    ``total``              the total in ``Content-Range`` is too high or too low
    ``partial``            all pages of one listing leave out the same tags
    ``emptied``            one listing has no tags at all, or one of its later pages has no rows
    ``vanished``           404, as if the repository did not exist
    =====================  =========================================================================

    One more fault of a tag list is not in `LIES`, because a client may be unable to detect it:

    =====================  =========================================================================
    ``stale``              all pages of one listing come from an earlier state of the repository,
                           as from a replica that is behind. Possible if the server keeps earlier
                           states: see ``keeps_states`` of `Emulator`
    =====================  =========================================================================
    """

    LATENCY = "latency"
    STALL = "stall"
    STALL_MIDWAY = "stall_midway"
    DROP = "drop"
    HALF_SENT = "half_sent"
    TRUNCATED = "truncated"
    WRONG_BODY = "wrong_body"
    THROTTLED = "throttled"
    THROTTLED_SECONDS = "throttled_seconds"
    THROTTLED_DATE = "throttled_date"
    THROTTLED_403 = "throttled_403"
    SERVER_ERROR = "server_error"
    BUSY = "busy"
    EXPIRED = "expired"
    SKEWED = "skewed"
    NO_TOTAL = "no_total"
    SHIFTED = "shifted"
    REPEATED = "repeated"
    CAPPED = "capped"
    TOTAL = "total"
    PARTIAL = "partial"
    EMPTIED = "emptied"
    VANISHED = "vanished"
    STALE = "stale"


LIES: Final = (
    Fault.SHIFTED,
    Fault.REPEATED,
    Fault.CAPPED,
    Fault.TOTAL,
    Fault.PARTIAL,
    Fault.EMPTIED,
    Fault.VANISHED,
)
"""The faults that make a tag list wrong so that a client can detect it, or recover from it."""

_OF_LISTS: Final = (*LIES, Fault.STALE)
"""All faults that make a tag list wrong."""

MISHAPS: Final = tuple(fault for fault in Fault if fault not in _OF_LISTS)
"""The faults that can happen to any request."""

_WRONG_BODIES: Final = (
    b"<html><body>Please sign in to the network</body></html>",
    b'{"error_code": "APIG.0201", "error_msg": "Backend timeout"}',
    b'[{"name": "v1"}]',
    b"[1, 2, 3]",
    b'"tags"',
    b"\xff\xfe\x00",
    b"[" * 5000,
    b"",
)
_PROXY_PAGE: Final = b"<html><h1>Bad Gateway</h1></html>"


@dataclass(frozen=True, slots=True)
class Mishap:
    """The effects of a mishap on one request.

    Attributes:
        refusal: The answer to send instead of handling the request. None to handle the request.
        revokes_tokens: Whether every token of the identity service becomes invalid.
        skew: How far the server's clock is ahead of the correct time.
        delay: The delay of the answer, in seconds.
        body: The body to send instead of the correct body. None to send the correct body.
        body_share: The share of the body that is sent, from 0.0 to 1.0.
        hides_total: Whether the answer lacks the header ``Content-Range``.
        delivery: How the answer is sent to the client.
    """

    refusal: Answer | None = None
    revokes_tokens: bool = False
    skew: timedelta = timedelta()
    delay: float = 0.0
    body: bytes | None = None
    body_share: float = 1.0
    hides_total: bool = False
    delivery: Delivery = COMPLETE

    def apply(self, answer: Answer, now: datetime) -> Answer:
        """Apply this mishap to an answer. The body of an error is not changed."""
        body = answer.body
        if answer.status < 300:  # noqa: PLR2004  the first status that is not a success
            body = body if self.body is None else self.body
            body = body[: int(len(body) * self.body_share)]
        headers = dict(answer.headers)
        if self.hides_total:
            headers.pop("Content-Range", None)
        if self.skew:
            headers["Date"] = format_datetime(now + self.skew, usegmt=True)
        return Answer(answer.status, body, headers, self.delivery)


NO_MISHAP: Final = Mishap()
"""A mishap without effects: the request is handled correctly."""


@dataclass(frozen=True, slots=True)
class Lie:
    """The differences between the page that is sent and the correct page.

    Attributes:
        hidden: The tags that are left out of the list.
        shift: The number of rows by which the page starts too late.
        cap: The maximum number of rows of the page. None if the usual maximum applies.
        total_error: The number of rows by which the total is too high.
        vanished: Whether the server answers that the repository does not exist.
        rows: The rows of an earlier state, by tag, which are sent instead. None for the current
            state.
    """

    hidden: frozenset[str] = frozenset()
    shift: int = 0
    cap: int | None = None
    total_error: int = 0
    vanished: bool = False
    rows: Mapping[str, Any] | None = None

    @property
    def rest(self) -> "Lie":
        """The lie about the remaining pages of the same listing."""
        return Lie(hidden=self.hidden, rows=self.rows)


TRUTH: Final = Lie()
"""A lie without differences: the correct page is sent."""


class RecordedLie(NamedTuple):
    """A page that was wrong because of a lie.

    Attributes:
        at: The time of the lie.
        repository: The repository, ``namespace/name``.
        kind: The fault.
        rows: The rows of the state that the page came from, by tag, if the kind is ``stale``.
    """

    at: datetime
    repository: str
    kind: Fault
    rows: Mapping[str, Any] | None = None


class Page(NamedTuple):
    """A page of a tag list, as it is without any lie.

    Attributes:
        repository: The repository, ``namespace/name``.
        tags: The tags of the whole list.
        offset: The number of rows before the page.
        size: The maximum number of rows of the page. None if the server ignores paging.
        sends_total: Whether the answer has the total number of rows.
        earlier: The rows of earlier states of the list, by tag, the oldest state first.
    """

    repository: str
    tags: Collection[str]
    offset: int
    size: int | None
    sends_total: bool
    earlier: Sequence[Mapping[str, Any]] = ()

    @property
    def row_count(self) -> int:
        """The number of rows of the page."""
        left = max(0, len(self.tags) - self.offset)
        return left if self.size is None else min(left, self.size)


@dataclass(slots=True)
class _LastLie:
    """The last lie about a repository.

    Attributes:
        at: The time of the lie.
        kind: The fault.
        rest: The lie about the remaining pages of the same listing.
        listings_since: The number of listings of the repository that have begun after the lie.
    """

    at: datetime
    kind: Fault
    rest: Lie
    listings_since: int = 0


class Faults:
    """Random faults, and faults that a program requests for the next requests.

    The seed determines the sequence of random faults, and the order of the requests determines
    which request gets which fault. If a client sends one request at a time, the same program
    therefore gets the same faults in each run.

    Attributes:
        on: Whether faults happen. It may be set at any time.
        counts: How often each fault has happened.
        lies: All pages that were wrong because of a lie, in the order in which they were sent.
    """

    def __init__(
        self,
        rates: Mapping[str, float] | None = None,
        *,
        seed: int | str = 0,
        latency: float = 0.3,
        honest: int | None = 2,
        clock: Clock = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set the probabilities of random faults.

        Args:
            rates: The probability of each `Fault`: of a mishap for each request, and of a lie for
                each page of a tag list. A fault without a probability never happens at random.
            seed: The seed of the random faults.
            latency: The maximum delay of an answer, in seconds.
            honest: After a listing with a lie, this number of listings of the same repository have
                no random lie. They are needed because a client cannot detect a lie that it reads
                twice in a row. None means all listings until `renew` is called.
            clock: The clock for the times of `lies` and for dates in ``Retry-After``.
            sleep: The function that delays an answer by a number of seconds.

        Raises:
            ValueError: If a fault is unknown, a probability is negative, or the probabilities of
                all mishaps or of all lies add up to more than 1.
        """
        self._rates = {Fault(kind): rate for kind, rate in (rates or {}).items()}
        for group in (MISHAPS, _OF_LISTS):
            chances = [self._rates.get(kind, 0.0) for kind in group]
            if min(chances) < 0 or sum(chances) > 1 + 1e-9:
                raise ValueError(
                    "the rates of all mishaps, and the rates of all lies, must be probabilities"
                    " that add up to at most 1"
                )
        self.on = True
        self.counts: Counter[Fault] = Counter()
        self.lies: list[RecordedLie] = []
        self.sleep: Final = sleep
        self._random = Random(seed)  # noqa: S311  the same seed must give the same faults
        self._latency = latency
        self._honest = honest
        self._clock = clock
        self._requested: list[Fault] = []
        self._last_lies: dict[str, _LastLie] = {}
        self._lock = Lock()

    @classmethod
    def evenly(cls, rate: float, *, seed: int | str = 0) -> Self:
        """Return faults with equally likely mishaps and equally likely lies.

        Args:
            rate: The probability that a request has a mishap, of any kind. It is also the
                probability that a page has a lie, of any kind.
            seed: The seed of the random faults.

        Raises:
            ValueError: If the rate is not a probability.
        """
        rates = {str(kind): rate / len(group) for group in (MISHAPS, LIES) for kind in group}
        return cls(rates, seed=seed)

    def next(self, kind: str, *, times: int = 1) -> None:
        """Request a fault for the next requests to which it can happen.

        Args:
            kind: The fault.
            times: The number of requests to which the fault happens.

        Raises:
            ValueError: If the fault is unknown.
        """
        with self._lock:
            self._requested += [Fault(kind)] * times

    def suspend(self, repository: str) -> None:
        """Tell no random lie about a repository until `renew` is called with a later time.

        With ``honest``, the lies begin again after this number of listings.

        Args:
            repository: The repository, ``namespace/name``.
        """
        with self._lock:
            self._last_lies[repository] = _LastLie(self._clock(), Fault.STALE, TRUTH)

    def renew(self, repository: str, before: datetime) -> None:
        """Allow random lies about a repository again.

        Args:
            repository: The repository, ``namespace/name``.
            before: The call has no effect if the last lie about the repository was not before this
                time.
        """
        with self._lock:
            last = self._last_lies.get(repository)
            if last is not None and last.at < before:
                del self._last_lies[repository]

    # --- used by the emulator ---------------------------------------------------------------------

    def draw_mishap(self, *, public: bool, has_total: bool = True) -> Mishap:
        """Return the mishap of the next request, or `NO_MISHAP`.

        Args:
            public: Whether the request needs no credential. If so, the mishap is never ``expired``.
            has_total: Whether the answer has a total. If not, the mishap is never ``no_total``.
        """
        impossible = {Fault.EXPIRED: public, Fault.NO_TOTAL: not has_total}
        with self._lock:
            kind = self._draw(MISHAPS, lambda kind: not impossible.get(kind, False))
            if kind is None:
                return NO_MISHAP
            self.counts[kind] += 1
            return _make_mishap(kind, self._random, self._latency, self._clock())

    def draw_lie(self, page: Page) -> Lie:
        """Return the lie about the next page of a tag list, or `TRUTH`."""
        with self._lock:
            last = self._last_lies.get(page.repository)
            if last is not None and page.offset == 0:
                last.rest = TRUTH
                last.listings_since += 1
            if last is not None and last.rest != TRUTH and self.on:
                return self._record_lie(page, last.kind, last.rest)
            kind = self._draw(
                _OF_LISTS, lambda kind: _is_possible(kind, page), allow_random=self._may_lie(last)
            )
            if kind is None:
                return TRUTH
            return self._record_lie(page, kind, _make_lie(kind, page, self._random))

    def _may_lie(self, last: _LastLie | None) -> bool:
        return last is None or (self._honest is not None and last.listings_since > self._honest)

    def _record_lie(self, page: Page, kind: Fault, lie: Lie) -> Lie:
        now = self._clock()
        self._last_lies[page.repository] = _LastLie(now, kind, lie.rest)
        self.lies.append(RecordedLie(now, page.repository, kind, lie.rows))
        self.counts[kind] += 1
        return lie

    def _draw(
        self,
        group: Sequence[Fault],
        is_possible: Callable[[Fault], bool],
        *,
        allow_random: bool = True,
    ) -> Fault | None:
        """Choose the fault of the next request or page.

        If requested faults of the group are possible, the result is the first of them. Otherwise,
        the result is a random fault of the group, or None for no fault.
        """
        if not self.on:
            return None
        for kind in self._requested:
            if kind in group and is_possible(kind):
                self._requested.remove(kind)
                return kind
        chance = self._random.random()
        for kind in group:
            chance -= self._rates.get(kind, 0.0)
            if chance < 0:
                return kind if allow_random and is_possible(kind) else None
        return None


def _make_mishap(kind: Fault, random: Random, latency: float, now: datetime) -> Mishap:
    share = random.random()
    match kind:
        case Fault.LATENCY:
            mishap = Mishap(delay=share * latency)
        case Fault.STALL | Fault.DROP:
            mishap = Mishap(delivery=Delivery(0.0, stalls=kind is Fault.STALL))
        case Fault.STALL_MIDWAY | Fault.HALF_SENT:
            mishap = Mishap(delivery=Delivery(share, stalls=kind is Fault.STALL_MIDWAY))
        case Fault.TRUNCATED:
            mishap = Mishap(body_share=share)
        case Fault.WRONG_BODY:
            mishap = Mishap(body=random.choice(_WRONG_BODIES))
        case Fault.EXPIRED:
            message = "Incorrect IAM authentication information: the token has expired"
            mishap = Mishap(refusal=gateway_error(401, "APIGW.0301", message), revokes_tokens=True)
        case Fault.SKEWED:
            skew = random.choice((-1, 1)) * timedelta(minutes=random.randint(16, 600))
            mishap = Mishap(skew=skew)
        case Fault.NO_TOTAL:
            mishap = Mishap(hides_total=True)
        case _:
            mishap = Mishap(refusal=_make_refusal(kind, random, now))
    return mishap


def _make_refusal(kind: Fault, random: Random, now: datetime) -> Answer:
    match kind:
        case Fault.BUSY:
            return registry_error(409, "SVCSTG.SWR.4090023", "the resource is being operated on")
        case Fault.SERVER_ERROR:
            registry = registry_error(500, "SVCSTG.SWR.5000001", "internal error")
            status = random.choice((502, 503, 504))
            proxy = Answer(status, _PROXY_PAGE, {"Content-Type": "text/html"})
            return random.choice((registry, proxy))
        case Fault.THROTTLED_403:
            code = random.choice(("SVCSTG.SWR.4031032", "SVCSTG.SWR.4031042"))
            return registry_error(403, code, "too many requests")
    throttled = gateway_error(429, "APIG.0308", "The throttling threshold has been reached")
    match kind:
        case Fault.THROTTLED_SECONDS:
            return throttled._replace(headers={"Retry-After": str(random.randint(0, 1))})
        case Fault.THROTTLED_DATE:
            later = (now + timedelta(seconds=1)).replace(microsecond=0)
            return throttled._replace(headers={"Retry-After": format_datetime(later, usegmt=True)})
    return throttled


def _is_possible(kind: Fault, page: Page) -> bool:
    """Return whether a page can have such a lie.

    If the lie is in `LIES`, a client can then detect it, or recover from it.
    """
    possible = True
    match kind:
        case Fault.SHIFTED | Fault.REPEATED:
            possible = page.size is not None and page.offset > 0
        case Fault.CAPPED:
            possible = page.size is not None and page.row_count > 1
        case Fault.TOTAL:
            possible = page.sends_total
        case Fault.PARTIAL:
            possible = page.size is not None and page.offset == 0 and len(page.tags) > page.size + 1
        case Fault.STALE:
            possible = page.offset == 0 and len(page.earlier) > 0
        case Fault.EMPTIED:
            possible = page.row_count > 0 and (page.size is not None or page.offset == 0)
    return possible


def _make_lie(kind: Fault, page: Page, random: Random) -> Lie:
    match kind:
        case Fault.SHIFTED:
            lie = Lie(shift=random.choice((-1, 1)))
        case Fault.REPEATED:
            lie = Lie(shift=-page.offset)
        case Fault.CAPPED:
            lie = Lie(cap=random.randint(1, page.row_count - 1))
        case Fault.TOTAL:
            lie = Lie(total_error=random.choice(_possible_total_errors(page)))
        case Fault.PARTIAL:
            most = len(page.tags) - (page.size or 0) - 1
            count = random.randint(1, max(1, min(most, len(page.tags) // 3)))
            lie = Lie(hidden=frozenset(random.sample(list(page.tags), count)))
        case Fault.EMPTIED if page.offset:
            lie = Lie(cap=0)
        case Fault.EMPTIED:
            lie = Lie(hidden=frozenset(page.tags))
        case Fault.STALE:
            lie = Lie(rows=random.choice(page.earlier))
        case _:
            lie = Lie(vanished=True)
    return lie


def _possible_total_errors(page: Page) -> list[int]:
    """Return the possible errors of the total that is sent with a page, in rows.

    The wrong total of a first page must not be the number of rows of this page, because a client
    would then take the page for the complete list and could not detect the lie.
    """
    right = len(page.tags)
    return [
        error
        for error in (-3, -2, -1, 1, 2, 3)
        if right + error >= 0 and (page.offset or right + error != page.row_count)
    ]
