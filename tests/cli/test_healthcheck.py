"""The command ``healthcheck``, with a real endpoint."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tagsync import cli
from tagsync.daemon.endpoint import Endpoint, make_application
from tagsync.daemon.metrics import Metrics
from tagsync.errors import ConfigError, NoAnswer
from tests.support.processes import free_port

STALE = "a/team/api has had no complete listing\x1b[2J"
GONE = "the database is gone"


@pytest.fixture
def problems() -> list[str]:
    """What the daemon reports: what ``/livez`` reports, too, comes first."""
    return []


@pytest.fixture
def endpoint(problems: list[str]) -> Iterator[Endpoint]:
    application = make_application(
        Metrics("test"), lambda: problems, lambda: [line for line in problems if line == GONE]
    )
    with closing(Endpoint(("127.0.0.1", 0), application)) as served:
        yield served


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., int]:
    """Run the command with an address of the daemon, and return its exit status."""

    def check(listen: str, *options: str) -> int:
        path = tmp_path / "config.toml"
        path.write_text(f'[metrics]\nlisten = "{listen}"\n' if listen else "")
        arguments = ["--config", str(path), "healthcheck", *options]
        return int(cli.tagsync.main(arguments, standalone_mode=False))

    return check


def test_healthy_daemon_is_ok(
    endpoint: Endpoint, check: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without problems both pages are ok, also if the daemon listens on every address."""
    for host in ("127.0.0.1", "", "0.0.0.0"):  # noqa: S104  addresses to listen on
        for options in ((), ("--strict",)):
            assert check(f"{host}:{endpoint.port}", *options) == 0
            assert capsys.readouterr().out == "ok\n"


def test_stale_repository_fails_only_the_strict_check(
    endpoint: Endpoint,
    problems: list[str],
    check: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A problem that a restart does not solve is reported with ``--strict`` only, escaped."""
    problems.append(STALE)
    assert check(f"127.0.0.1:{endpoint.port}") == 0
    assert capsys.readouterr().out == "ok\n"
    assert check(f"127.0.0.1:{endpoint.port}", "--strict") == 1
    assert capsys.readouterr().out == STALE.replace("\x1b", "\\x1b") + "\n"


def test_lost_database_fails_both_checks(
    endpoint: Endpoint,
    problems: list[str],
    check: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A problem that a restart may solve fails either way, with one line each."""
    problems += [GONE, STALE]
    assert check(f"127.0.0.1:{endpoint.port}") == 1
    assert capsys.readouterr().out == f"{GONE}\n"
    assert check(f"127.0.0.1:{endpoint.port}", "--strict") == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_another_server_cannot_write_escape_sequences(
    check: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever listens at the address, its text is escaped, and a lack of text is reported."""
    bodies = [b"\x1b]0;title\x07", b""]

    def answer(_: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("502 Bad Gateway", [])
        return [bodies.pop(0)]

    with closing(Endpoint(("127.0.0.1", 0), answer)) as served:
        assert check(f"127.0.0.1:{served.port}") == 1
        assert capsys.readouterr().out == "\\x1b]0;title\\x07\n"
        assert check(f"127.0.0.1:{served.port}") == 1
        assert capsys.readouterr().out == "the daemon answered 502 without a reason\n"


def test_daemon_that_does_not_answer_is_an_error(check: Callable[..., int]) -> None:
    """If nothing listens, the error names the address."""
    port = free_port()
    with pytest.raises(NoAnswer, match=rf"does not answer on 127\.0\.0\.1, port {port} \("):
        check(f"127.0.0.1:{port}")


def test_missing_address_is_an_error(check: Callable[..., int]) -> None:
    """Without ``metrics.listen`` the error names the key."""
    with pytest.raises(ConfigError, match=r"^metrics\.listen is not set"):
        check("")
