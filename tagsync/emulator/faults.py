"""What an emulated registry does wrong: on command, or at random and yet the same for a seed.

::

    faults = Faults({"latency": 0.2, "drop": 0.05}, seed=7)
    with Emulator(faults=faults) as swr:
        faults.next("half_sent")   # the next answer, whatever the rates are
        faults.on = False          # an honest registry again
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
from typing import Final, NamedTuple, Self

from tagsync.clock import Clock, utc_now
from tagsync.emulator.answers import gateway, refusal
from tagsync.emulator.http import WHOLE, Answer, Delivery


class Fault(StrEnum):
    """Everything that can go wrong.

    The mishaps, which befall any request:

    =====================  =========================================================================
    ``latency``            the answer, made at once, arrives after a while
    ``stall``              the request is taken and never answered
    ``stall_midway``       the answer stops in the middle, and the connection stays
    ``drop``               the connection is closed without a word
    ``half_sent``          the connection is closed in the middle of the answer
    ``truncated``          an answer that looks whole has only a part of its body
    ``wrong_body``         200 with something else: a proxy's page, an error, other JSON, no text
    ``throttled``          429 of the gateway (``APIG.0308``) that names no time
    ``throttled_seconds``  the same with ``Retry-After`` in seconds
    ``throttled_date``     the same with ``Retry-After`` as a date
    ``throttled_403``      403 with one of the two codes by which SWR itself throttles
    ``server_error``       a 5xx, of the registry or of a proxy before it
    ``busy``               409: try again
    ``expired``            401, and no token that somebody signed in for is good any more
    ``skewed``             the clock is far off, for signatures and in the ``Date`` of the answer
    =====================  =========================================================================

    The lies, which are told of a repository's tags. None is such that it could not be noticed or
    outlived by one who asks again, as a page would be that looks like the only one and lacks a tag:

    =====================  =========================================================================
    ``shifted``            a later page, as after a push or a deletion since the page before
    ``repeated``           the first page again in place of a later one
    ``capped``             fewer rows than were asked for
    ``total``              ``Content-Range`` tells of more or fewer rows than there are
    ``partial``            one paged listing lacks some of the tags, consistently
    ``emptied``            one listing has no tags at all, or no more from a later page on
    ``vanished``           404, there is no such repository
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
    SHIFTED = "shifted"
    REPEATED = "repeated"
    CAPPED = "capped"
    TOTAL = "total"
    PARTIAL = "partial"
    EMPTIED = "emptied"
    VANISHED = "vanished"


LIES: Final = (
    Fault.SHIFTED,
    Fault.REPEATED,
    Fault.CAPPED,
    Fault.TOTAL,
    Fault.PARTIAL,
    Fault.EMPTIED,
    Fault.VANISHED,
)
"""The faults that are told of a repository's tags."""

MISHAPS: Final = tuple(fault for fault in Fault if fault not in LIES)
"""The faults that befall any request."""

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
_HTML: Final = {"Content-Type": "text/html"}


@dataclass(frozen=True, slots=True)
class Mishap:
    """What befalls one request.

    Attributes:
        refusal: answered in place of what was asked for.
        revokes: whether the tokens that were signed in for become invalid.
        skew: how far the clock is off.
        delay: seconds until the answer is sent.
        body: sent in place of the right one.
        kept: the share of the body that the answer has.
        delivery: how it gets to the client.
    """

    refusal: Answer | None = None
    revokes: bool = False
    skew: timedelta = timedelta()
    delay: float = 0.0
    body: bytes | None = None
    kept: float = 1.0
    delivery: Delivery = WHOLE

    def spoiled(self, answer: Answer, now: datetime) -> Answer:
        """What becomes of an answer."""
        body = answer.body
        if answer.status < 300:  # noqa: PLR2004  a refusal keeps its reason
            body = body if self.body is None else self.body
            body = body[: int(len(body) * self.kept)]
        headers = dict(answer.headers)
        if self.skew:
            headers["Date"] = format_datetime(now + self.skew, usegmt=True)
        return Answer(answer.status, body, headers, self.delivery)


NO_MISHAP: Final = Mishap()
"""What befalls most requests."""


@dataclass(frozen=True, slots=True)
class Lie:
    """How one page of a tag list differs from the truth.

    Attributes:
        hidden: the tags that are left out.
        shift: how many rows further on the page begins.
        cap: the most rows that it has, where that is fewer than usual.
        more: by how much the total is wrong.
        vanished: whether the repository is said not to exist.
    """

    hidden: frozenset[str] = frozenset()
    shift: int = 0
    cap: int | None = None
    more: int = 0
    vanished: bool = False


TRUTH: Final = Lie()
"""What most pages tell."""


class Told(NamedTuple):
    """One answer that was a lie."""

    at: datetime
    repository: str
    kind: Fault


class Page(NamedTuple):
    """A page of a tag list, as it should be.

    Attributes:
        repository: ``namespace/name``.
        tags: of the whole list.
        offset: how many rows come before the page.
        size: how many rows it may have; null where the server answers everything at once.
        sends_total: whether the answer says how many rows there are.
    """

    repository: str
    tags: Collection[str]
    offset: int
    size: int | None
    sends_total: bool

    @property
    def rows(self) -> int:
        """How many rows it has."""
        left = max(0, len(self.tags) - self.offset)
        return left if self.size is None else min(left, self.size)


@dataclass(slots=True)
class _Story:
    """What the readers of a repository were told last, and for how long it has been honest."""

    at: datetime
    kind: Fault
    hidden: frozenset[str]
    listings: int = 0


class Faults:
    """A plan of what goes wrong how often, to be given to an `Emulator`.

    The draws depend on the seed alone. Which request meets which of them depends on the order in
    which requests arrive: with one client that asks one thing at a time it is the same each time.

    Attributes:
        on: whether anything goes wrong; may be set at any time.
        counts: how often each fault has happened.
        lies: every answer that was a lie, in their order.
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
        """Plans random faults; without rates, only those happen that `next` asks for.

        Args:
            rates: how likely each `Fault` is: a mishap for each request, a lie for each page of
                a tag list.
            seed: the same one draws the same faults.
            latency: the most seconds that an answer is delayed.
            honest: how many listings of a repository begin honestly after one with a random lie,
                since who hears the same lie twice in a row has to believe it; null for all of
                them, until `renew`.
            clock: what `lies`, and ``Retry-After`` as a date, are dated by.
            sleep: waits so many seconds.

        Raises:
            ValueError: there is no such fault, or the rates of the mishaps or of the lies are no
                probabilities.
        """
        self._rates = {Fault(kind): rate for kind, rate in (rates or {}).items()}
        for group in (MISHAPS, LIES):
            chances = [self._rates.get(kind, 0.0) for kind in group]
            if min(chances) < 0 or sum(chances) > 1 + 1e-9:
                raise ValueError("rates are probabilities, and add up to 1 at most")
        self.on = True
        self.counts: Counter[Fault] = Counter()
        self.lies: list[Told] = []
        self.sleep: Final = sleep
        self._random = Random(seed)  # noqa: S311  to be repeatable is the point
        self._latency = latency
        self._honest = honest
        self._clock = clock
        self._asked_for: list[Fault] = []
        self._stories: dict[str, _Story] = {}
        self._lock = Lock()

    @classmethod
    def evenly(cls, rate: float, *, seed: int | str = 0) -> Self:
        """A plan in which all mishaps are equally likely, and all lies, with this rate together.

        Raises:
            ValueError: the rate is no probability.
        """
        rates = {str(kind): rate / len(group) for group in (MISHAPS, LIES) for kind in group}
        return cls(rates, seed=seed)

    def next(self, kind: str, *, times: int = 1) -> None:
        """Lets a fault happen to the next requests that it can happen to, whatever the rates are.

        Raises:
            ValueError: there is no such fault.
        """
        with self._lock:
            self._asked_for += [Fault(kind)] * times

    def renew(self, repository: str, before: datetime) -> None:
        """Lets random lies be told of a repository again, if the last one is older than this."""
        with self._lock:
            story = self._stories.get(repository)
            if story is not None and story.at < before:
                del self._stories[repository]

    # --- asked by the emulator --------------------------------------------------------------------

    def mishap(self, *, signing_in: bool) -> Mishap:
        """What befalls the next request.

        Args:
            signing_in: whether it asks for a credential, which then cannot have expired.
        """
        with self._lock:
            kind = self._drawn(MISHAPS, lambda kind: not (signing_in and kind is Fault.EXPIRED))
            if kind is None:
                return NO_MISHAP
            self.counts[kind] += 1
            return _mishap(kind, self._random, self._latency, self._clock())

    def lie(self, page: Page) -> Lie:
        """What the next page of a tag list tells."""
        with self._lock:
            story = self._stories.get(page.repository)
            if story is not None and page.offset == 0:
                story.hidden = frozenset()
                story.listings += 1
            if story is not None and story.hidden and self.on:
                return self._told(page, story.kind, Lie(hidden=story.hidden))
            kind = self._drawn(LIES, lambda kind: _fits(kind, page), random=self._may_lie(story))
            if kind is None:
                return TRUTH
            return self._told(page, kind, _lie(kind, page, self._random))

    def _may_lie(self, story: _Story | None) -> bool:
        return story is None or (self._honest is not None and story.listings > self._honest)

    def _told(self, page: Page, kind: Fault, lie: Lie) -> Lie:
        now = self._clock()
        self._stories[page.repository] = _Story(now, kind, lie.hidden)
        self.lies.append(Told(now, page.repository, kind))
        self.counts[kind] += 1
        return lie

    def _drawn(
        self, group: Sequence[Fault], fits: Callable[[Fault], bool], *, random: bool = True
    ) -> Fault | None:
        """The first that was asked for and fits, else one at random, or none."""
        if not self.on:
            return None
        for kind in self._asked_for:
            if kind in group and fits(kind):
                self._asked_for.remove(kind)
                return kind
        chance = self._random.random()
        for kind in group:
            chance -= self._rates.get(kind, 0.0)
            if chance < 0:
                return kind if random and fits(kind) else None
        return None


def _mishap(kind: Fault, random: Random, latency: float, now: datetime) -> Mishap:
    part = random.random()
    match kind:
        case Fault.LATENCY:
            made = Mishap(delay=part * latency)
        case Fault.STALL:
            made = Mishap(delivery=Delivery(0.0, stalls=True))
        case Fault.STALL_MIDWAY:
            made = Mishap(delivery=Delivery(part, stalls=True))
        case Fault.DROP:
            made = Mishap(delivery=Delivery(0.0))
        case Fault.HALF_SENT:
            made = Mishap(delivery=Delivery(part))
        case Fault.TRUNCATED:
            made = Mishap(kept=part)
        case Fault.WRONG_BODY:
            made = Mishap(body=random.choice(_WRONG_BODIES))
        case Fault.EXPIRED:
            message = "Incorrect IAM authentication information: the token has expired"
            made = Mishap(refusal=gateway(401, "APIGW.0301", message), revokes=True)
        case Fault.SKEWED:
            made = Mishap(skew=random.choice((-1, 1)) * timedelta(minutes=random.randint(16, 600)))
        case _:
            made = Mishap(refusal=_refusal(kind, random, now))
    return made


def _refusal(kind: Fault, random: Random, now: datetime) -> Answer:
    match kind:
        case Fault.BUSY:
            return refusal(409, "SVCSTG.SWR.4090023", "the resource is being operated on")
        case Fault.SERVER_ERROR:
            broken = refusal(500, "SVCSTG.SWR.5000001", "internal error")
            proxy = Answer(
                random.choice((502, 503, 504)), _PROXY_PAGE, {"Content-Type": "text/html"}
            )
            return random.choice((broken, proxy))
        case Fault.THROTTLED_403:
            code = random.choice(("SVCSTG.SWR.4031032", "SVCSTG.SWR.4031042"))
            return refusal(403, code, "too many requests")
    throttled = gateway(429, "APIG.0308", "The throttling threshold has been reached")
    match kind:
        case Fault.THROTTLED_SECONDS:
            return throttled._replace(headers={"Retry-After": str(random.randint(0, 1))})
        case Fault.THROTTLED_DATE:
            later = (now + timedelta(seconds=1)).replace(microsecond=0)
            return throttled._replace(headers={"Retry-After": format_datetime(later, usegmt=True)})
    return throttled


def _fits(kind: Fault, page: Page) -> bool:
    """Whether a lie can be told on a page without making it look like a whole listing."""
    match kind:
        case Fault.SHIFTED | Fault.REPEATED:
            return page.size is not None and page.offset > 0
        case Fault.CAPPED:
            return page.size is not None and page.rows > 1
        case Fault.TOTAL:
            return page.sends_total
        case Fault.PARTIAL:
            return page.size is not None and page.offset == 0 and len(page.tags) > page.size + 1
        case Fault.EMPTIED:
            return page.rows > 0 and (page.size is not None or page.offset == 0)
    return True


def _lie(kind: Fault, page: Page, random: Random) -> Lie:
    match kind:
        case Fault.SHIFTED:
            made = Lie(shift=random.choice((-1, 1)))
        case Fault.REPEATED:
            made = Lie(shift=-page.offset)
        case Fault.CAPPED:
            made = Lie(cap=random.randint(1, page.rows - 1))
        case Fault.TOTAL:
            made = Lie(more=random.choice(_wrong_totals(page)))
        case Fault.PARTIAL:
            most = len(page.tags) - (page.size or 0) - 1
            count = random.randint(1, max(1, min(most, len(page.tags) // 3)))
            made = Lie(hidden=frozenset(random.sample(list(page.tags), count)))
        case Fault.EMPTIED if page.offset:
            made = Lie(cap=0)
        case Fault.EMPTIED:
            made = Lie(hidden=frozenset(page.tags))
        case _:
            made = Lie(vanished=True)
    return made


def _wrong_totals(page: Page) -> list[int]:
    """By how much the total may be wrong: not so that a first page is all there is."""
    right = len(page.tags)
    return [
        more
        for more in (-3, -2, -1, 1, 2, 3)
        if right + more >= 0 and (page.offset or right + more != page.rows)
    ]
