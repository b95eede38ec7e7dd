"""Test the faults of the emulated registry with clients over real HTTP."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tagsync.cli.setup import open_configured
from tagsync.config import load
from tagsync.config.secret_sources import resolve_credential
from tagsync.database.store import Store
from tagsync.emulator import LIES, MISHAPS, Emulator, Fault, Faults, Keys, User
from tagsync.emulator.faults import NO_MISHAP, Mishap
from tagsync.errors import RegistryError, Unauthorized
from tagsync.models import Listing
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import KeyCredential
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.documents import read_page
from tests.support.registries import REPOSITORY

TAGS = "/v2/manage/namespaces/team/repos/api/tags"
ALL = [f"v{number:02}" for number in range(24, -1, -1)]
WITHIN = 10.0
Rows = list[dict[str, Any]]
LIMITS: dict[str, Any] = {
    "timeout": 5.0,
    "retry_for": 0.1,
    "max_listing_bytes": 2**20,
    "requests_per_second": 1000.0,
    "connections": 2,
}


@pytest.fixture
def faults(clock: FakeClock) -> Faults:
    return Faults(
        seed=1, latency=60.0, clock=clock, sleep=lambda seconds: clock.advance(seconds=seconds)
    )


@pytest.fixture
def swr(faults: Faults, clock: FakeClock) -> Iterator[Emulator]:
    with Emulator(max_page=10, faults=faults, clock=clock) as emulator:
        for name in reversed(ALL):
            emulator.push("team/api", name)
        yield emulator


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=WITHIN) as client:
        yield client


def get_page(
    http: httpx.Client, swr: Emulator, offset: int = 0, within: float = WITHIN
) -> httpx.Response:
    return http.get(
        f"{swr.url}{TAGS}",
        params={"offset": offset, "limit": 10},
        timeout=httpx.Timeout(WITHIN, read=within),
    )


def tag_names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200
    rows: Rows = answer.json()
    return [row["Tag"] for row in rows]


def total_of(answer: httpx.Response) -> int:
    return int(answer.headers["Content-Range"].partition("/")[2])


def list_pages(http: httpx.Client, swr: Emulator) -> list[str]:
    """Return the tags on the three pages of a listing."""
    return [name for offset in (0, 10, 20) for name in tag_names(get_page(http, swr, offset))]


# --- mishaps --------------------------------------------------------------------------------------


def test_answer_can_be_delayed(
    http: httpx.Client, swr: Emulator, faults: Faults, clock: FakeClock
) -> None:
    """A delayed answer is computed at once and waits at most the maximum latency."""
    began = clock()
    faults.next("latency")
    assert tag_names(get_page(http, swr)) == ALL[:10]
    assert timedelta() < clock() - began < timedelta(seconds=60)


@pytest.mark.parametrize("kind", ["stall", "stall_midway"])
def test_answer_can_stall(kind: str, http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A stalled answer never ends, and the server answers other requests meanwhile."""
    faults.next(kind)
    with pytest.raises(httpx.ReadTimeout):
        get_page(http, swr, within=0.2)
    assert tag_names(get_page(http, swr)) == ALL[:10]


def test_stall_ends_when_the_emulator_stops(faults: Faults) -> None:
    """When the emulator stops, it closes the connections of stalled answers."""
    faults.next("stall_midway")
    with Emulator(faults=faults) as swr:
        waiting = socket.create_connection(
            ("127.0.0.1", int(swr.url.rpartition(":")[2])), timeout=5
        )
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert waiting.recv(1) == b"H"
    with closing(waiting):
        assert b"".join(iter(lambda: waiting.recv(65536), b"")).startswith(b"TTP/1.1 404")


@pytest.mark.parametrize("kind", ["drop", "half_sent"])
def test_connection_can_break(kind: str, http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A connection that is closed early is a protocol error, and the next one works."""
    faults.next(kind)
    with pytest.raises(httpx.RemoteProtocolError):
        get_page(http, swr)
    assert tag_names(get_page(http, swr)) == ALL[:10]


def test_body_can_be_truncated(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A truncated body looks complete to HTTP and is the beginning of the right body."""
    whole = get_page(http, swr).content
    faults.next("truncated", times=5)
    for _ in range(5):
        answer = get_page(http, swr)
        assert answer.status_code == 200
        assert whole.startswith(answer.content)
        assert len(answer.content) < len(whole)


def test_body_can_be_wrong(connect: Callable[..., Registry], swr: Emulator, faults: Faults) -> None:
    """No wrong body is accepted as a list of tags."""
    registry = connect(swr.url)
    for _ in range(40):
        faults.next("wrong_body")
        with pytest.raises(RegistryError):
            registry.list_tags("team/api")
    assert faults.counts == {Fault.WRONG_BODY: 40}


@pytest.mark.parametrize(
    ("kind", "status", "codes"),
    [
        ("throttled", 429, {"APIG.0308"}),
        ("throttled_seconds", 429, {"APIG.0308"}),
        ("throttled_date", 429, {"APIG.0308"}),
        ("throttled_403", 403, {"SVCSTG.SWR.4031032", "SVCSTG.SWR.4031042"}),
        ("busy", 409, {"SVCSTG.SWR.4090023"}),
        ("expired", 401, {"APIGW.0301"}),
        ("vanished", 404, {"SVCSTG.SWR.4040010"}),
    ],
)
def test_request_can_be_refused(
    kind: str, status: int, codes: set[str], http: httpx.Client, swr: Emulator, faults: Faults
) -> None:
    """Each refusal has its documented status and code."""
    faults.next(kind, times=8)
    seen = set()
    for _ in range(8):
        answer = get_page(http, swr)
        assert answer.status_code == status
        body = answer.json()
        seen.add(body.get("error_code") or body["errors"][0]["errorCode"])
    assert seen == codes
    assert tag_names(get_page(http, swr)) == ALL[:10]


def test_throttling_sends_retry_after_or_not(
    http: httpx.Client, swr: Emulator, faults: Faults, clock: FakeClock
) -> None:
    """`Retry-After` is missing, a number of seconds, or a date that is not past."""
    after = {}
    for kind in ("throttled", "throttled_403", "throttled_seconds", "throttled_date"):
        faults.next(kind)
        after[kind] = get_page(http, swr).headers.get("Retry-After")
    assert after["throttled"] is after["throttled_403"] is None
    assert after["throttled_seconds"] in {"0", "1"}
    assert parsedate_to_datetime(after["throttled_date"]) >= clock()


def test_server_can_fail(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A server error is a 5xx with the registry's JSON or with a proxy's page."""
    faults.next("server_error", times=20)
    answers = {
        (a.status_code, a.headers["Content-Type"]) for a in (get_page(http, swr) for _ in range(20))
    }
    assert (500, "application/json") in answers
    assert {kind for status, kind in answers if status > 500} == {"text/html"}


def test_tokens_can_expire(http: httpx.Client, faults: Faults) -> None:
    """An expired token is refused until the client signs in again."""
    with Emulator(users={"me": User("made-up", "account", "eu-de")}, faults=faults) as swr:
        swr.push("team/api", "v1")
        token = {"X-Auth-Token": sign_in(http, swr)}
        assert http.get(swr.url + TAGS, headers=token).status_code == 200
        faults.next("expired")
        renewed = sign_in(http, swr)
        assert http.get(swr.url + TAGS, headers={"X-Auth-Token": renewed}).status_code == 401
        assert http.get(swr.url + TAGS, headers=token).status_code == 401
        again = {"X-Auth-Token": sign_in(http, swr)}
        assert http.get(swr.url + TAGS, headers=again).status_code == 200


def sign_in(http: httpx.Client, swr: Emulator) -> str:
    user = {"name": "me", "password": "made-up", "domain": {"name": "account"}}
    identity = {"methods": ["password"], "password": {"user": user}}
    auth = {"identity": identity, "scope": {"project": {"name": "eu-de"}}}
    answer = http.post(f"{swr.url}/v3/auth/tokens", json={"auth": auth})
    return answer.headers["X-Subject-Token"]


def test_clock_can_be_skewed(
    http: httpx.Client, swr: Emulator, faults: Faults, clock: FakeClock
) -> None:
    """For one answer, `Date` is off by more than signatures allow."""
    faults.next("skewed")
    dates = [parsedate_to_datetime(get_page(http, swr).headers["Date"]) for _ in range(2)]
    assert abs(dates[0] - clock()) > timedelta(minutes=15)
    assert dates[1] == clock()


def test_skewed_clock_refuses_a_right_signature(faults: Faults) -> None:
    """A skewed clock refuses a right signature, and the next answer accepts it."""
    credential = KeyCredential(Secret("MADEUPACCESSKEY00001"), Secret("made-up-secret-key"))
    keys = {"MADEUPACCESSKEY00001": Keys("made-up-secret-key")}
    with Emulator(keys=keys, faults=faults) as swr:
        swr.push("team/api", "v1")
        with closing(open_registry(swr.url, credential, **LIMITS)) as registry:
            faults.next("skewed")
            with pytest.raises(Unauthorized, match="clock"):
                registry.list_tags("team/api")
            assert isinstance(registry.list_tags("team/api"), Listing)


# --- lies -----------------------------------------------------------------------------------------


def test_later_page_can_be_shifted(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A shifted page starts a row too early or too late, with the right total."""
    faults.next("shifted", times=10)
    assert tag_names(get_page(http, swr)) == ALL[:10]
    answers = [get_page(http, swr, 10) for _ in range(10)]
    assert {tuple(tag_names(answer)) for answer in answers} == {tuple(ALL[9:19]), tuple(ALL[11:21])}
    assert {total_of(answer) for answer in answers} == {25}


def test_first_page_can_be_repeated(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """The first page is sent instead of a later one."""
    faults.next("repeated")
    assert [tag_names(get_page(http, swr, offset)) for offset in (0, 20)] == [ALL[:10], ALL[:10]]


def test_page_can_be_capped(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A capped page has fewer rows than requested, and at least one."""
    faults.next("capped")
    rows = tag_names(get_page(http, swr))
    assert rows == ALL[: len(rows)]
    assert 0 < len(rows) < 10


def test_total_can_be_wrong(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A wrong total never makes the first page look like the complete list."""
    faults.next("total", times=30)
    assert {total_of(get_page(http, swr)) - 25 for _ in range(30)} == {-3, -2, -1, 1, 2, 3}
    for name in ALL[:14]:
        swr.delete("team/api", name)
    faults.next("total", times=30)
    assert {total_of(get_page(http, swr)) for _ in range(30)} == {8, 9, 12, 13, 14}


def test_listing_can_be_partial(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """All pages of a partial listing leave out the same tags, and the next has them."""
    faults.next("partial")
    seen = list_pages(http, swr)
    assert 25 > len(seen) > 10
    assert [name for name in ALL if name in seen] == seen
    assert list_pages(http, swr) == ALL


def test_repository_can_look_empty(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """One listing is empty on every page, or one of its later pages is empty."""
    faults.next("emptied")
    answers = [get_page(http, swr, offset) for offset in (0, 10)]
    assert [(tag_names(answer), total_of(answer)) for answer in answers] == [([], 0), ([], 0)]
    assert tag_names(get_page(http, swr)) == ALL[:10]
    faults.next("emptied")
    assert tag_names(get_page(http, swr, 10)) == []
    assert tag_names(get_page(http, swr, 10)) == ALL[10:20]


def test_total_can_be_missing(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """One page has no total, and the next has it; an answer that never has one is no page."""
    faults.next("no_total")
    with Emulator(sends_total=False, faults=faults) as other:
        other.push("team/api", "v1")
        get_page(http, other)
    assert faults.counts == {}
    answers = [get_page(http, swr) for _ in range(2)]
    assert [tag_names(answer) for answer in answers] == [ALL[:10]] * 2
    assert ["Content-Range" in answer.headers for answer in answers] == [False, True]


def test_listing_can_be_stale(http: httpx.Client, faults: Faults) -> None:
    """All pages of a stale listing come from one earlier state, and the next from the current."""
    with Emulator(max_page=10, keeps_states=3, faults=faults) as swr:
        for name in reversed(ALL):
            swr.push("team/api", name)
        swr.delete("team/api", ALL[0])
        faults.next("stale")
        seen = list_pages(http, swr)
        assert seen in [ALL, ALL[1:], ALL[2:]]
        assert [set(lie.rows or ()) for lie in faults.lies] == [set(seen)] * 3
        assert list_pages(http, swr) == ALL[1:]


def test_listing_is_never_stale_without_earlier_states(
    http: httpx.Client, swr: Emulator, faults: Faults
) -> None:
    """A server that keeps no earlier states never sends one."""
    faults.next("stale")
    assert list_pages(http, swr) == ALL
    assert faults.counts == {}


def test_no_lie_hides_some_tags_of_a_single_page(http: httpx.Client, faults: Faults) -> None:
    """If all tags are on one page, a lie leaves out all of them or none."""
    with Emulator(max_page=10, sends_total=False, faults=faults) as swr:
        for number in range(11):
            swr.push("team/api", f"v{number}")
        for kind in ("partial", "shifted", "repeated", "total"):
            faults.next(kind)
        assert len(tag_names(get_page(http, swr))) == 10
        assert faults.counts == {}
    with Emulator(ignores_paging=True, faults=Faults(equal_lie_rates(1.0), honest=0)) as swr:
        for number in range(11):
            swr.push("team/api", f"v{number}")
        answers = [get_page(http, swr) for _ in range(30)]
        assert {len(a.json()) for a in answers if a.status_code == 200} == {0, 11}


def equal_lie_rates(rate: float) -> dict[str, float]:
    return {str(kind): rate / len(LIES) for kind in LIES}


def test_random_lies_are_not_consecutive(http: httpx.Client) -> None:
    """After a random lie, as many listings as configured are honest."""
    with Emulator(faults=Faults({"vanished": 1.0}, honest=2)) as emulator:
        emulator.push("team/api", "v1")
        emulator.push("team/web", "v1")
        statuses = [get_page(http, emulator).status_code for _ in range(7)]
        assert statuses == [404, 200, 200, 404, 200, 200, 404]
        other = TAGS.replace("api", "web")
        assert http.get(emulator.url + other).status_code == 404


def test_random_lies_can_wait_for_renew(http: httpx.Client, clock: FakeClock) -> None:
    """With `honest=None`, the next lie waits until an older one is renewed."""
    faults = Faults({"vanished": 1.0}, honest=None, clock=clock)
    with Emulator(faults=faults, clock=clock) as emulator:
        emulator.push("team/api", "v1")
        assert [get_page(http, emulator).status_code for _ in range(3)] == [404, 200, 200]
        faults.renew("team/api", clock())
        assert get_page(http, emulator).status_code == 200
        faults.renew("team/api", clock() + timedelta(seconds=1))
        assert get_page(http, emulator).status_code == 404
    assert [(lie.repository, lie.kind) for lie in faults.lies] == [("team/api", "vanished")] * 2


def test_random_lies_can_be_suspended(http: httpx.Client, clock: FakeClock) -> None:
    """After `suspend`, the next random lie waits until a later `renew`."""
    faults = Faults({"vanished": 1.0}, honest=None, clock=clock)
    with Emulator(faults=faults, clock=clock) as emulator:
        emulator.push("team/api", "v1")
        faults.suspend("team/api")
        faults.renew("team/api", clock())
        assert get_page(http, emulator).status_code == 200
        faults.renew("team/api", clock() + timedelta(seconds=1))
        assert get_page(http, emulator).status_code == 404


# --- the rates ------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_faults() -> None:
    """The same seed gives the same faults, and another seed gives others."""

    def draw(seed: int) -> list[Mishap]:
        faults = Faults.evenly(0.5, seed=seed)
        return [faults.draw_mishap(public=False) for _ in range(100)]

    assert draw(1) == draw(1) != draw(2)


def test_faults_happen_at_their_rates() -> None:
    """Each fault happens about as often as its rate says, and is counted."""
    faults = Faults.evenly(0.3, seed=3)
    happened = [faults.draw_mishap(public=False) != NO_MISHAP for _ in range(10_000)]
    assert 2800 < sum(happened) < 3200
    assert faults.counts.keys() == set(MISHAPS)
    assert sum(faults.counts.values()) == sum(happened)
    assert all(130 < count < 270 for count in faults.counts.values())


def test_faults_can_be_switched_off(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """While faults are off none happens, even if requested or already begun."""
    faults.next("partial")
    get_page(http, swr)
    faults.on = False
    faults.next("drop")
    assert list_pages(http, swr) == ALL
    faults.on = True
    with pytest.raises(httpx.RemoteProtocolError):
        get_page(http, swr)


def test_sign_in_never_meets_an_expired_token() -> None:
    """A request for a credential needs none, so none can have expired."""
    faults = Faults({"expired": 1.0})
    assert faults.draw_mishap(public=True) == NO_MISHAP
    assert faults.draw_mishap(public=False).revokes_tokens


@pytest.mark.parametrize("rates", [{"unknown": 0.1}, {"drop": -0.1}, {"drop": 0.6, "stall": 0.6}])
def test_invalid_rates_are_refused(rates: dict[str, float]) -> None:
    """The constructor refuses unknown faults and rates that are not probabilities."""
    with pytest.raises(ValueError, match=r"is not a valid Fault|probabilities"):
        Faults(rates)


def test_replaced_answers_come_before_faults(
    http: httpx.Client, swr: Emulator, faults: Faults
) -> None:
    """A replaced answer is sent unchanged, and the requested fault waits."""
    swr.answer_next(418)
    faults.next("busy")
    assert [get_page(http, swr).status_code for _ in range(3)] == [418, 409, 200]


@pytest.mark.parametrize("sends_total", [True, False])
@pytest.mark.parametrize("kind", LIES)
def test_tagsync_recovers_from_each_lie(
    kind: Fault, sends_total: bool, connect: Callable[..., Registry], store: Store, faults: Faults
) -> None:
    """No single lie makes tagsync record a deletion."""
    with Emulator(max_page=10, sends_total=sends_total, faults=faults) as swr:
        for name in ALL[:21]:
            swr.push("team/api", name)
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        poll(job, store)
        for number in range(5):
            faults.next(kind)
            swr.push("team/api", ALL[0], f"build {number}")
            assert poll(job, store).deleted == 0
            assert poll(job, store).outcome == "ok"
        stored = store.tags(REPOSITORY)
        assert {name: tag.digest for name, tag in stored.items()} == swr.tags("team/api")


# --- the command ----------------------------------------------------------------------------------


def test_documented_command_serves_its_printed_configuration(tmp_path: Path) -> None:
    """The documented command prints a valid configuration for changing repositories."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("SIGINT is ignored here, and the child process would inherit that")
    match = re.search(
        r"python (-m tagsync\.emulator --port) 8080 (--faults 0\.1)$",
        read_page("docs/CONTRIBUTING.md"),
        re.MULTILINE,
    )
    assert match
    command = [sys.executable, *f"{match[1]} 0 {match[2]} --every 0.05".split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            printed = "".join(iter(process.stdout.readline, 'repositories = ["*"]\n'))
            (tmp_path / "config.toml").write_text(f'{printed}repositories = ["*"]\n')
            config = load(tmp_path / "config.toml", {})
            table = config.registries["emulated"]
            with closing(
                open_configured(table, resolve_credential(table, {}, tmp_path), tmp_path)
            ) as registry:
                found = registry.list_repositories(["*"])
            process.stdout.readline()
            activity = process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert found == {"team-a/api", "team-a/web/frontend", "team-b/base"}
    assert re.match(r"team-.*:v\d+ (is pushed|is deleted|moves)$", activity)
    assert rest.splitlines()[-1].startswith("faults: ")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--faults", "2", "invalid probability"),
        ("--every", "-1", "invalid number of seconds"),
        ("--port", "99999", "cannot listen on port"),
    ],
)
def test_invalid_option_is_refused(option: str, value: str, message: str) -> None:
    """The command refuses an invalid option with one sentence and exit status 2."""
    command = [sys.executable, "-m", "tagsync.emulator", option, value]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert finished.returncode == 2
    assert message in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
