"""Each real registry under constant pushes, moves and deletions: the history stays true."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import randbelow
from typing import Final

import pytest

from tests.real_registries.changing import Outcome, change_and_judge
from tests.support.docker_registry import require
from tests.support.real_registries import (
    CRANE,
    DISTRIBUTION,
    DOCKER_REGISTRY,
    Access,
    Server,
    Way,
    serve,
    ways,
)
from tests.support.token_service import Authority, TokenService

require("openssl")

SHORT: Final = 12.0
LONG: Final = 60.0
"""Seconds of changes, in the form of every run and in the long form."""

CHOSEN: Final[tuple[Way, ...]] = (
    (DOCKER_REGISTRY, Access.BASIC),
    (DISTRIBUTION, Access.BEARER),
    (CRANE, Access.OPEN),
)
"""Each registry, and each access control once."""


@pytest.fixture
def all_servers(
    authority: Authority, tokens: TokenService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Server]]:
    """All registries at once, by name."""
    with ExitStack() as stack:
        yield {
            way[0].name: stack.enter_context(
                serve(*way, tmp_path_factory.mktemp(way[0].name), authority, tokens)
            )
            for way in CHOSEN
        }


def assert_true(
    outcome: Outcome, seed: str, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check that nothing is wrong and that enough happened, and print the figures."""
    with capsys.disabled():
        sys.stdout.write(f"\n{json.dumps({'seed': seed, **outcome.figures})}\n")
    assert not outcome.wrong
    assert outcome.figures["operations"] > seconds
    assert outcome.figures["changes"] > seconds
    assert outcome.figures["ok"] > seconds


@pytest.mark.processes
@ways(CHOSEN.__contains__)
def test_history_stays_true_under_constant_changes(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each recorded change of a busy registry happened between its two moments."""
    seed = str(randbelow(10**6))
    outcome = change_and_judge({"reg": server}, SHORT, seed, tmp_path)
    assert_true(outcome, seed, SHORT, capsys)


@pytest.mark.soak
def test_history_of_all_registries_stays_true_for_a_minute(
    all_servers: dict[str, Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same holds for a minute, for all registries in one database."""
    seed = str(randbelow(10**6))
    outcome = change_and_judge(all_servers, LONG, seed, tmp_path)
    assert_true(outcome, seed, LONG, capsys)
