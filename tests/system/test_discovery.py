"""Discovery by whole passes: what is polled and recorded, and no secret leaks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tagsync.emulator import AGENCY_ACCESS_KEY, Emulator, Keys, User
from tests.support.commands import Finished, contents, events_of, rows_of, tagsync
from tests.support.emulated import NAMESPACES, REPOS, create, requested_lists
from tests.support.record import query

pytestmark = pytest.mark.processes

ACCESS_KEY = "MADEUPACCESSKEY00001"
SECRET_KEY = "MadeUpSecretKey0000000000000000000000001"
SECURITY_TOKEN = "made-up-security-token-abc"
PASSWORD = "made-up-Passw0rd"
TOKEN = "made-up-token-that-nobody-may-see"
ISSUED = "made-up-token-issued-for-a-password"
AKSK = 'kind = "aksk"\naccess_key = "env:AK"\nsecret_key = "env:SK"'
ENVIRONMENT = {
    "AK": ACCESS_KEY,
    "SK": SECRET_KEY,
    "ST": SECURITY_TOKEN,
    "PASSWORD": PASSWORD,
    "TOKEN": TOKEN,
}


@pytest.fixture
def guarded() -> Iterator[Emulator]:
    """An emulated registry that requires signatures."""
    with Emulator(keys={ACCESS_KEY: Keys(SECRET_KEY)}) as emulator:
        yield emulator


def configure(folder: Path, endpoint: str, *watches: str, auth: str = AKSK) -> None:
    """Write a configuration of one registry, ``swr``, with watches given as TOML."""
    tables = "".join(f"[[registries.watch]]\n{watch}\n" for watch in watches)
    (folder / "config.toml").write_text(
        '[store]\npath = "tagsync.db"\n'
        f'[[registries]]\nname = "swr"\nendpoint = "{endpoint}"\nretry_for = "100ms"\n'
        f"requests_per_second = 10000\n[registries.auth]\n{auth}\n{tables}"
    )


def sync(folder: Path, *arguments: object) -> Finished:
    """Run one pass with debug logging."""
    logging = ("--log-format", "json", "--log-level", "debug")
    return tagsync(*(*logging, "sync", *arguments, "--format", "json"), cwd=folder, **ENVIRONMENT)


def outcomes(finished: Finished) -> dict[str, str]:
    """Return the outcome of each repository."""
    return {row["repository"]: row["outcome"] for row in rows_of(finished)}


def recorded(folder: Path) -> set[str]:
    """Return the repositories that have tags in the database."""
    sql = "SELECT DISTINCT name FROM repositories JOIN tags ON repository_id = repositories.id"
    return {name for (name,) in query(folder / "tagsync.db", sql)}


# --- found repositories ---------------------------------------------------------------------------


def test_whole_organization_is_recorded(guarded: Emulator, tmp_path: Path) -> None:
    """All 120 repositories of an organization are found, polled and recorded."""
    repositories = {f"team/r{number:03}" for number in range(119)} | {"team/deep/er"}
    create(guarded, *repositories, "tools/lint")
    configure(tmp_path, guarded.url, 'repositories = ["team/*"]')
    finished = sync(tmp_path)
    assert finished.returncode == 0
    assert outcomes(finished) == {f"swr/{name}": "ok" for name in repositories}
    assert recorded(tmp_path) == repositories
    digests = dict(
        query(
            tmp_path / "tagsync.db",
            "SELECT name, digest FROM repositories JOIN tags ON repository_id = repositories.id",
        )
    )
    assert digests == {name: guarded.tags(name)["v1"] for name in repositories}


def test_watch_can_include_shared_repositories(guarded: Emulator, tmp_path: Path) -> None:
    """A watch with ``shared = true`` also records repositories shared by others."""
    create(guarded, "team/api")
    guarded.create_repository("others/base", shared=True)
    create(guarded, "others/base")
    configure(tmp_path, guarded.url, 'repositories = ["*"]')
    assert outcomes(sync(tmp_path)) == {"swr/team/api": "ok"}
    configure(tmp_path, guarded.url, 'repositories = ["*"]\nshared = true')
    assert outcomes(sync(tmp_path)) == {"swr/team/api": "ok", "swr/others/base": "ok"}


# --- excluded repositories ------------------------------------------------------------------------


def test_excluded_repository_is_not_polled(guarded: Emulator, tmp_path: Path) -> None:
    """The tags of an excluded repository are neither requested nor recorded."""
    create(guarded, "team/api", "team/scratch-1", "team/scratch-2", "team/web")
    watch = 'repositories = ["team/*"]\nexclude = ["team/scratch-*", "team/web"]'
    configure(tmp_path, guarded.url, watch)
    finished = sync(tmp_path)
    assert finished.returncode == 0
    assert outcomes(finished) == {"swr/team/api": "ok"}
    assert not [request for request in guarded.requests if "scratch" in request.path]


# --- changes and failures -------------------------------------------------------------------------


def test_new_repository_is_found(guarded: Emulator, tmp_path: Path) -> None:
    """Each pass discovers again and records repositories created meanwhile."""
    create(guarded, "team/api")
    configure(tmp_path, guarded.url, 'repositories = ["team/*"]')
    assert outcomes(sync(tmp_path)) == {"swr/team/api": "ok"}
    create(guarded, "team/new")
    assert outcomes(sync(tmp_path)) == {"swr/team/api": "ok", "swr/team/new": "ok"}
    assert recorded(tmp_path) == {"team/api", "team/new"}


def test_vanished_repository_is_held_then_recorded(guarded: Emulator, tmp_path: Path) -> None:
    """A vanished repository is still polled, held once, then recorded as deleted."""
    create(guarded, "team/api", "team/gone")
    configure(tmp_path, guarded.url, 'repositories = ["team/*"]')
    no_wait = tmp_path / "config.toml"
    no_wait.write_text(no_wait.read_text().replace("retry_for", "agree_after = 0\nretry_for"))
    assert sync(tmp_path).returncode == 0
    guarded.delete_repository("team/gone")
    held = sync(tmp_path)
    assert held.returncode == 3
    assert outcomes(held) == {"swr/team/api": "ok", "swr/team/gone": "held"}
    assert recorded(tmp_path) == {"team/api", "team/gone"}
    believed = sync(tmp_path)
    assert believed.returncode == 0
    (row,) = (row for row in rows_of(believed) if row["repository"] == "swr/team/gone")
    assert (row["outcome"], row["deleted"]) == ("ok", 1)
    assert recorded(tmp_path) == {"team/api"}


@pytest.mark.parametrize("status", [403, 500])
def test_failed_discovery_deletes_nothing(status: int, guarded: Emulator, tmp_path: Path) -> None:
    """If discovery fails, its globs are failed rows and known repositories are polled."""
    create(guarded, "team/api", "team/web")
    configure(
        tmp_path,
        guarded.url,
        'repositories = ["team/*", "team/w*"]',
        'repositories = ["tools/lint"]',
    )
    create(guarded, "tools/lint")
    assert sync(tmp_path).returncode == 0
    guarded.push("team/web", "v2")
    create(guarded, "team/new")
    guarded.answer_next(status, b"", times=100, matching=REPOS)
    finished = sync(tmp_path)
    assert finished.returncode == 1
    (*failed, api, web, lint) = rows_of(finished)
    assert [row["repository"] for row in failed] == ["swr/team/*", "swr/team/w*"]
    assert {row["outcome"] for row in failed} == {"failed"}
    assert all(str(status) in row["detail"] for row in failed)
    others = (api, web, lint)
    assert {row["repository"]: row["added"] for row in others} == {
        "swr/team/api": 0,
        "swr/team/web": 1,
        "swr/tools/lint": 0,
    }
    (event,) = (event for event in events_of(finished) if event["event"] == "discovery.failed")
    assert event["repositories"] == ["team/*", "team/w*"]
    assert recorded(tmp_path) == {"team/api", "team/web", "tools/lint"}
    assert query(tmp_path / "tagsync.db", "SELECT 1 FROM changes WHERE kind = 'deleted'") == []


def test_unknown_name_is_reported_after_a_failed_discovery(
    guarded: Emulator, tmp_path: Path
) -> None:
    """A name that no failed glob matches is unknown; the others may exist."""
    configure(tmp_path, guarded.url, 'repositories = ["team/*"]', 'repositories = ["tools/lint"]')
    create(guarded, "tools/lint")
    guarded.answer_next(500, b"", times=1000, matching=REPOS)
    for name, near in (("tools/lint", "nearest is swr/tools/lint"), ("nope", "shows the names")):
        finished = sync(tmp_path, name)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert near in finished.stderr.splitlines()[-1]
        assert '"event": "discovery.failed"' in finished.stderr
    for pattern in ("swr/team/new", "nope*"):
        finished = sync(tmp_path, pattern)
        assert finished.returncode == 1
        assert outcomes(finished) == {"swr/team/*": "failed"}


def test_known_name_needs_no_discovery(guarded: Emulator, tmp_path: Path) -> None:
    """A pass over known repositories by name requests their tags only."""
    create(guarded, "team/api", "team/web")
    configure(tmp_path, guarded.url, 'repositories = ["team/*", "tools/lint"]')
    create(guarded, "tools/lint")
    assert sync(tmp_path).returncode == 0
    guarded.requests.clear()
    finished = sync(tmp_path, "swr/team/api", "swr/tools/lint")
    assert outcomes(finished) == {"swr/team/api": "ok", "swr/tools/lint": "ok"}
    assert requested_lists(guarded) == []
    guarded.requests.clear()
    assert outcomes(sync(tmp_path, "swr/team/a*")) == {"swr/team/api": "ok"}
    assert requested_lists(guarded) == [(REPOS, "team")]


def test_watches_without_globs_request_no_list(guarded: Emulator, tmp_path: Path) -> None:
    """A configuration without globs requests no list of repositories."""
    create(guarded, "team/api")
    configure(tmp_path, guarded.url, 'repositories = ["team/api"]\nshared = true')
    assert sync(tmp_path).returncode == 0
    assert requested_lists(guarded) == []


# --- secrets --------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of credential.

    Attributes:
        auth: The TOML that configures it; ``{url}`` is the address of the emulator.
        accepts: The emulator's options that make it accept the credential.
        secrets: Values that must never be shown or stored.
    """

    auth: str
    accepts: dict[str, Any]
    secrets: tuple[str, ...]


KINDS = {
    "aksk": Kind(
        f'{AKSK}\nsecurity_token = "env:ST"',
        {"keys": {ACCESS_KEY: Keys(SECRET_KEY, SECURITY_TOKEN)}},
        (ACCESS_KEY, SECRET_KEY, SECURITY_TOKEN),
    ),
    "password": Kind(
        'kind = "password"\niam_endpoint = "{url}"\nusername = "reader"\n'
        'password = "env:PASSWORD"\ndomain = "account"\nproject = "eu-de"',
        {"users": {"reader": User(PASSWORD, "account", "eu-de")}},
        (PASSWORD, ISSUED),
    ),
    "ecs": Kind(
        'kind = "ecs"\nmetadata_endpoint = "{url}"',
        {"agency": Keys(SECRET_KEY, SECURITY_TOKEN)},
        (AGENCY_ACCESS_KEY, SECRET_KEY, SECURITY_TOKEN),
    ),
    "token": Kind('kind = "token"\ntoken = "env:TOKEN"', {"token": TOKEN}, (TOKEN,)),
}


def assert_nowhere(secrets: tuple[str, ...], finished: Finished, folder: Path) -> None:
    """Check that no secret is in the output or in a file."""
    files = {name: raw for name, raw in contents(folder).items() if not name.endswith(".toml")}
    assert files
    for secret in secrets:
        assert secret not in finished.stdout
        assert secret not in finished.stderr
        assert not [name for name, raw in files.items() if secret.encode() in raw]


@pytest.mark.parametrize("name", KINDS)
def test_no_secret_is_shown_or_stored(name: str, tmp_path: Path) -> None:
    """A successful pass leaves no credential in its output, log or database."""
    kind = KINDS[name]
    with Emulator(**kind.accepts) as swr:
        create(swr, "team/api")
        configure(
            tmp_path, swr.url, 'repositories = ["team/*"]', auth=kind.auth.replace("{url}", swr.url)
        )
        finished = sync(tmp_path)
        assert finished.returncode == 0, finished
        sent = {request.headers.get("X-Auth-Token") for request in swr.requests}
        issued = tuple(token for token in sent if token is not None)
        assert bool(issued) == (name in {"password", "token"})
    assert_nowhere((*kind.secrets, *issued), finished, tmp_path)


@pytest.mark.parametrize(("of_lists", "of_tags"), [(302, 400), (500, 401)])
@pytest.mark.parametrize("name", KINDS)
def test_echoed_secret_is_never_shown_or_stored(
    name: str, of_lists: int, of_tags: int, tmp_path: Path
) -> None:
    """Credentials that a server echoes in its errors are neither shown nor stored."""
    kind = KINDS[name]
    echo = " ".join(kind.secrets)
    body = {"error_code": echo, "error_msg": f"you sent {json.dumps(kind.secrets)} and {echo}"}
    headers = {"Location": f"https://elsewhere.example.com/{kind.secrets[-1]}"}
    with Emulator(**kind.accepts) as swr:
        create(swr, "team/api")
        watches = ('repositories = ["team/*"]', 'repositories = ["tools/lint"]')
        configure(tmp_path, swr.url, *watches, auth=kind.auth.replace("{url}", swr.url))
        # The issued token is fixed so that it can be echoed; the other kinds do not sign in.
        token = {"token": {"expires_at": "2999-01-01T00:00:00.000000Z"}}
        swr.answer_next(201, token, {"X-Subject-Token": ISSUED}, times=9, matching="/v3/auth")
        swr.answer_next(of_lists, body, headers, times=100, matching=REPOS)
        swr.answer_next(of_tags, body, headers, times=100, matching=NAMESPACES)
        finished = sync(tmp_path)
    assert finished.returncode == 1, finished
    assert set(outcomes(finished).values()) == {"failed"}
    assert set(outcomes(finished)) == {"swr/team/*", "swr/tools/lint"}
    assert "***" in finished.stdout
    assert_nowhere(kind.secrets, finished, tmp_path)


@pytest.mark.parametrize("status", [400, 401])
def test_password_echoed_at_sign_in_is_never_shown(status: int, tmp_path: Path) -> None:
    """A password that the identity service echoes is neither shown nor stored."""
    kind = KINDS["password"]
    with Emulator(**kind.accepts) as iam:
        watches = ('repositories = ["team/*"]', 'repositories = ["tools/lint"]')
        configure(tmp_path, iam.url, *watches, auth=kind.auth.replace("{url}", iam.url))
        error = {"error": {"code": status, "message": f"{PASSWORD} is wrong", "title": PASSWORD}}
        iam.answer_next(status, error, times=100, matching="/v3/auth")
        finished = sync(tmp_path)
    assert finished.returncode == 1, finished
    assert_nowhere(kind.secrets, finished, tmp_path)


def test_watch_that_matches_nothing_fails_the_pass(tmp_path: Path) -> None:
    """A pass ends with 1, names the globs, and records everything else."""
    silent = 'repositories = ["silent/*"]\nallow_empty = true'
    with Emulator() as swr:
        create(swr, "team/api")
        mistyped = 'repositories = ["taem/*"]'
        good = 'repositories = ["team/*"]'
        configure(tmp_path, swr.url, mistyped, good, silent, auth='kind = "none"')
        finished = sync(tmp_path)
        assert finished.returncode == 1
        assert outcomes(finished) == {"swr/taem/*": "failed", "swr/team/api": "ok"}
        (event,) = (each for each in events_of(finished) if each["event"] == "watch.empty")
        assert event["repositories"] == ["taem/*"]
        assert "set allow_empty = true" in rows_of(finished)[0]["detail"]
        assert sync(tmp_path, "swr/team/*").returncode == 0
        unknown = sync(tmp_path, "swr/taem/*")
        assert unknown.returncode == 2
        assert "no repository matches 'swr/taem/*'" in unknown.stderr

        # The registry lists nothing any more, but the repository was there within the last day.
        configure(tmp_path, swr.url, good, silent, auth='kind = "none"')
        swr.answer_next(200, [], matching="/manage/repos", times=9)
        assert sync(tmp_path).returncode == 0
