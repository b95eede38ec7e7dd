"""The emulated registry's misbehaviour, seen by a client over real HTTP."""

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

from tagsync.cli.sync import open_one
from tagsync.config import load
from tagsync.config.secret_sources import resolve_credential
from tagsync.database.store import Store
from tagsync.emulator import LIES, MISHAPS, Emulator, Fault, Faults, Keys, User
from tagsync.emulator.faults import NO_MISHAP, Mishap
from tagsync.errors import RegistryError, Unauthorized
from tagsync.models import Listing
from tagsync.polling.poll import Job, sync
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import KeyCredential
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.documents import read_page
from tests.support.registries import REPOSITORY

TAGS = "/v2/manage/namespaces/team/repos/api/tags"
ALL = [f"v{number:02}" for number in range(24, -1, -1)]
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
    with httpx.Client(trust_env=False, timeout=0.5) as client:
        yield client


def page(http: httpx.Client, swr: Emulator, offset: int = 0) -> httpx.Response:
    return http.get(f"{swr.url}{TAGS}", params={"offset": offset, "limit": 10})


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200
    rows: Rows = answer.json()
    return [row["Tag"] for row in rows]


def total(answer: httpx.Response) -> int:
    return int(answer.headers["Content-Range"].partition("/")[2])


def listed(http: httpx.Client, swr: Emulator) -> list[str]:
    """The tags on the three pages of a listing."""
    return [name for offset in (0, 10, 20) for name in names(page(http, swr, offset))]


# --- mishaps --------------------------------------------------------------------------------------


def test_an_answer_can_come_late(
    http: httpx.Client, swr: Emulator, faults: Faults, clock: FakeClock
) -> None:
    """What is late was made at once, and waits within the latency."""
    began = clock()
    faults.next("latency")
    assert names(page(http, swr)) == ALL[:10]
    assert timedelta() < clock() - began < timedelta(seconds=60)


@pytest.mark.parametrize("kind", ["stall", "stall_midway"])
def test_an_answer_can_stall(kind: str, http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A stalled answer never ends, until the client gives up; others are served meanwhile."""
    faults.next(kind)
    with pytest.raises(httpx.ReadTimeout):
        page(http, swr)
    assert names(page(http, swr)) == ALL[:10]


def test_a_stall_ends_with_the_emulator(faults: Faults) -> None:
    """Who waits for the rest of an answer is cut off when the emulator is left."""
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
def test_a_connection_can_break(
    kind: str, http: httpx.Client, swr: Emulator, faults: Faults
) -> None:
    """A connection that is closed too early is an error of the protocol, and the next is good."""
    faults.next(kind)
    with pytest.raises(httpx.RemoteProtocolError):
        page(http, swr)
    assert names(page(http, swr)) == ALL[:10]


def test_a_body_can_be_truncated(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A truncated body looks whole to HTTP, and is a beginning of the right one."""
    whole = page(http, swr).content
    faults.next("truncated", times=5)
    for _ in range(5):
        answer = page(http, swr)
        assert answer.status_code == 200
        assert whole.startswith(answer.content)
        assert len(answer.content) < len(whole)


def test_a_body_can_be_another(
    connect: Callable[..., Registry], swr: Emulator, faults: Faults
) -> None:
    """None of the wrong bodies is taken for a list of tags."""
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
def test_a_request_can_be_refused(
    kind: str, status: int, codes: set[str], http: httpx.Client, swr: Emulator, faults: Faults
) -> None:
    """Each refusal has its documented status and code."""
    faults.next(kind, times=8)
    seen = set()
    for _ in range(8):
        answer = page(http, swr)
        assert answer.status_code == status
        body = answer.json()
        seen.add(body.get("error_code") or body["errors"][0]["errorCode"])
    assert seen == codes
    assert names(page(http, swr)) == ALL[:10]


def test_throttling_names_a_time_or_none(
    http: httpx.Client, swr: Emulator, faults: Faults, clock: FakeClock
) -> None:
    """Retry-After is left out, in seconds, or a date that is not past."""
    after = {}
    for kind in ("throttled", "throttled_403", "throttled_seconds", "throttled_date"):
        faults.next(kind)
        after[kind] = page(http, swr).headers.get("Retry-After")
    assert after["throttled"] is after["throttled_403"] is None
    assert after["throttled_seconds"] in {"0", "1"}
    assert parsedate_to_datetime(after["throttled_date"]) >= clock()


def test_a_server_can_be_broken(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A broken server answers a 5xx, with JSON of its own or with a proxy's page."""
    faults.next("server_error", times=20)
    answers = {
        (a.status_code, a.headers["Content-Type"]) for a in (page(http, swr) for _ in range(20))
    }
    assert (500, "application/json") in answers
    assert {kind for status, kind in answers if status > 500} == {"text/html"}


def test_tokens_can_expire(http: httpx.Client, faults: Faults) -> None:
    """Whoever signed in has to sign in again, and may."""
    with Emulator(users={"me": User("made-up", "account", "eu-de")}, faults=faults) as swr:
        swr.push("team/api", "v1")
        token = {"X-Auth-Token": _sign_in(http, swr)}
        assert http.get(swr.url + TAGS, headers=token).status_code == 200
        faults.next("expired")
        renewed = _sign_in(http, swr)
        assert http.get(swr.url + TAGS, headers={"X-Auth-Token": renewed}).status_code == 401
        assert http.get(swr.url + TAGS, headers=token).status_code == 401
        again = {"X-Auth-Token": _sign_in(http, swr)}
        assert http.get(swr.url + TAGS, headers=again).status_code == 200


def _sign_in(http: httpx.Client, swr: Emulator) -> str:
    who = {"name": "me", "password": "made-up", "domain": {"name": "account"}}
    identity = {"methods": ["password"], "password": {"user": who}}
    auth = {"identity": identity, "scope": {"project": {"name": "eu-de"}}}
    answer = http.post(f"{swr.url}/v3/auth/tokens", json={"auth": auth})
    return answer.headers["X-Subject-Token"]


def test_a_clock_can_be_off(
    http: httpx.Client, swr: Emulator, faults: Faults, clock: FakeClock
) -> None:
    """With a skewed clock the Date is off by more than signatures allow, for one answer."""
    faults.next("skewed")
    dates = [parsedate_to_datetime(page(http, swr).headers["Date"]) for _ in range(2)]
    assert abs(dates[0] - clock()) > timedelta(minutes=15)
    assert dates[1] == clock()


def test_a_signature_does_not_fit_a_clock_that_is_off(faults: Faults) -> None:
    """A good signature is refused by a clock that is off, and accepted by the next answer."""
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


def test_a_later_page_can_be_shifted(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A shifted page begins a row too early or too late; the total does not tell."""
    faults.next("shifted", times=10)
    assert names(page(http, swr)) == ALL[:10]
    answers = [page(http, swr, 10) for _ in range(10)]
    assert {tuple(names(answer)) for answer in answers} == {tuple(ALL[9:19]), tuple(ALL[11:21])}
    assert {total(answer) for answer in answers} == {25}


def test_the_first_page_can_come_again(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """In place of a later page the first one is sent."""
    faults.next("repeated")
    assert [names(page(http, swr, offset)) for offset in (0, 20)] == [ALL[:10], ALL[:10]]


def test_a_page_can_be_capped(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A capped page has fewer rows than asked for, and at least one."""
    faults.next("capped")
    rows = names(page(http, swr))
    assert rows == ALL[: len(rows)]
    assert 0 < len(rows) < 10


def test_a_total_can_lie(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """A wrong total is another number of rows, and never makes the first page look like all."""
    faults.next("total", times=30)
    assert {total(page(http, swr)) - 25 for _ in range(30)} == {-3, -2, -1, 1, 2, 3}
    for name in ALL[:14]:
        swr.delete("team/api", name)
    faults.next("total", times=30)
    assert {total(page(http, swr)) for _ in range(30)} == {8, 9, 12, 13, 14}


def test_a_listing_can_be_partial(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """All pages of a partial listing agree on what is left out, and the next one has it."""
    faults.next("partial")
    seen = listed(http, swr)
    assert 25 > len(seen) > 10
    assert [name for name in ALL if name in seen] == seen
    assert listed(http, swr) == ALL


def test_a_repository_can_look_empty(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """One listing is empty on every page, or from a later page on where it has begun."""
    faults.next("emptied")
    answers = [page(http, swr, offset) for offset in (0, 10)]
    assert [(names(answer), total(answer)) for answer in answers] == [([], 0), ([], 0)]
    assert names(page(http, swr)) == ALL[:10]
    faults.next("emptied")
    assert names(page(http, swr, 10)) == []
    assert names(page(http, swr, 10)) == ALL[10:20]


def test_no_lie_makes_a_page_look_like_all(http: httpx.Client, faults: Faults) -> None:
    """Where everything is one page, nothing can be left out but everything."""
    with Emulator(max_page=10, sends_total=False, faults=faults) as swr:
        for number in range(11):
            swr.push("team/api", f"v{number}")
        for kind in ("partial", "shifted", "repeated", "total"):
            faults.next(kind)
        assert len(names(page(http, swr))) == 10
        assert faults.counts == {}
    with Emulator(ignores_paging=True, faults=Faults(evenly_lies(1.0), honest=0)) as swr:
        for number in range(11):
            swr.push("team/api", f"v{number}")
        answers = [page(http, swr) for _ in range(30)]
        assert {len(a.json()) for a in answers if a.status_code == 200} == {0, 11}


def evenly_lies(rate: float) -> dict[str, float]:
    return {str(kind): rate / len(LIES) for kind in LIES}


def test_a_lie_is_not_told_twice_in_a_row(http: httpx.Client) -> None:
    """After a random lie the listings that follow are honest, as many as configured."""
    with Emulator(faults=Faults({"vanished": 1.0}, honest=2)) as liar:
        liar.push("team/api", "v1")
        liar.push("team/web", "v1")
        assert [page(http, liar).status_code for _ in range(7)] == [404, 200, 200] * 2 + [404]
        other = TAGS.replace("api", "web")
        assert http.get(liar.url + other).status_code == 404


def test_a_lie_can_wait_to_be_renewed(http: httpx.Client, clock: FakeClock) -> None:
    """With no number of honest listings a lie is told again once it was renewed, if it is older."""
    faults = Faults({"vanished": 1.0}, honest=None, clock=clock)
    with Emulator(faults=faults, clock=clock) as liar:
        liar.push("team/api", "v1")
        assert [page(http, liar).status_code for _ in range(3)] == [404, 200, 200]
        faults.renew("team/api", clock())
        assert page(http, liar).status_code == 200
        faults.renew("team/api", clock() + timedelta(seconds=1))
        assert page(http, liar).status_code == 404
    assert [(told.repository, told.kind) for told in faults.lies] == [("team/api", "vanished")] * 2


# --- the plan -------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_faults() -> None:
    """Two plans of one seed draw the same, and another seed something else."""

    def drawn(seed: int) -> list[Mishap]:
        faults = Faults.evenly(0.5, seed=seed)
        return [faults.mishap(signing_in=False) for _ in range(100)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_rates_are_kept() -> None:
    """Each fault happens about as often as its rate says, and is counted."""
    faults = Faults.evenly(0.3, seed=3)
    befallen = [faults.mishap(signing_in=False) != NO_MISHAP for _ in range(10_000)]
    assert 2800 < sum(befallen) < 3200
    assert faults.counts.keys() == set(MISHAPS)
    assert sum(faults.counts.values()) == sum(befallen)
    assert all(130 < count < 270 for count in faults.counts.values())


def test_faults_can_be_switched_off(http: httpx.Client, swr: Emulator, faults: Faults) -> None:
    """While they are off nothing goes wrong, not even what was asked for or has begun."""
    faults.next("partial")
    page(http, swr)
    faults.on = False
    faults.next("drop")
    assert listed(http, swr) == ALL
    faults.on = True
    with pytest.raises(httpx.RemoteProtocolError):
        page(http, swr)


def test_a_sign_in_is_never_expired() -> None:
    """Who asks for a credential has none yet."""
    faults = Faults({"expired": 1.0})
    assert faults.mishap(signing_in=True) == NO_MISHAP
    assert faults.mishap(signing_in=False).revokes


@pytest.mark.parametrize("rates", [{"unknown": 0.1}, {"drop": -0.1}, {"drop": 0.6, "stall": 0.6}])
def test_a_wrong_plan_is_refused(rates: dict[str, float]) -> None:
    """Unknown faults and what is no probability are refused when the plan is made."""
    with pytest.raises(ValueError, match=r"is not a valid Fault|probabilities"):
        Faults(rates)


def test_made_up_answers_come_before_faults(
    http: httpx.Client, swr: Emulator, faults: Faults
) -> None:
    """An answer that was made up is given as it is, and the fault waits."""
    swr.answer_next(418)
    faults.next("busy")
    assert [page(http, swr).status_code for _ in range(3)] == [418, 409, 200]


@pytest.mark.parametrize("sends_total", [True, False])
@pytest.mark.parametrize("kind", LIES)
def test_tagsync_outlives_each_lie(
    kind: Fault, sends_total: bool, connect: Callable[..., Registry], store: Store, faults: Faults
) -> None:
    """No lie that is told once makes tagsync record a deletion."""
    with Emulator(max_page=10, sends_total=sends_total, faults=faults) as swr:
        for name in ALL[:21]:
            swr.push("team/api", name)
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        sync(job, store)
        for number in range(5):
            faults.next(kind)
            swr.push("team/api", ALL[0], f"build {number}")
            assert sync(job, store).deleted == 0
            assert sync(job, store).outcome == "ok"
        with store.reading(REPOSITORY) as view:
            assert {tag.tag: tag.digest for tag in view.tags().values()} == swr.tags("team/api")


# --- the command ----------------------------------------------------------------------------------


def test_the_emulator_can_be_tried(tmp_path: Path) -> None:
    """The documented command serves changing repositories and prints a valid configuration."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("interrupts are ignored here, and so by every process that is started")
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
            shown = "".join(iter(process.stdout.readline, 'repositories = ["*"]\n'))
            (tmp_path / "config.toml").write_text(f'{shown}repositories = ["*"]\n')
            config = load(tmp_path / "config.toml", {})
            table = config.registries["emulated"]
            with closing(
                open_one(table, resolve_credential(table, {}, tmp_path), tmp_path)
            ) as registry:
                found = registry.list_repositories(["*"])
            process.stdout.readline()
            said = process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert found == {"team-a/api", "team-a/web/frontend", "team-b/base"}
    assert re.match(r"team-.*:v\d+ (is pushed|is deleted|moves)$", said)
    assert rest.splitlines()[-1].startswith("went wrong: ")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--faults", "2", "no probability"),
        ("--every", "-1", "no number of seconds"),
        ("--port", "99999", "cannot be had"),
    ],
)
def test_a_wrong_command_line_is_refused(option: str, value: str, complaint: str) -> None:
    """The emulator's command says in one sentence what is wrong with its options."""
    command = [sys.executable, "-m", "tagsync.emulator", option, value]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert finished.returncode == 2
    assert complaint in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
