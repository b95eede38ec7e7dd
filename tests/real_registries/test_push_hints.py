"""A real docker-registry reports its pushes to a real daemon, which polls at once."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tagsync.clock import parse_timestamp
from tests.support.docker_registry import require, running
from tests.support.processes import Process, configure, free_port

pytestmark = pytest.mark.processes

require("docker-registry")

SECRET: Final = "made-up-hook-secret"

LATEST: Final = timedelta(seconds=20)
"""A poll begins at least five seconds after the last one, and a busy machine takes a while."""


def endpoint(port: int, *, in_path: bool) -> dict[str, Any]:
    """Return an endpoint of docker-registry's configuration."""
    url = f"http://127.0.0.1:{port}/hooks/reg"
    limits = {"name": "tagsync", "timeout": "1s", "threshold": 5, "backoff": "1s"}
    if in_path:
        return {**limits, "url": f"{url}/{SECRET}"}
    return {**limits, "url": url, "headers": {"Authorization": [f"Bearer {SECRET}"]}}


@pytest.mark.parametrize("in_path", [True, False], ids=["path", "header"])
def test_a_push_is_observed_within_seconds(tmp_path: Path, in_path: bool) -> None:
    """Though the interval is an hour, a push, a move and a deletion are recorded in seconds."""
    port = free_port()
    (tmp_path / "hook-secret").write_text(SECRET)
    with ExitStack() as stack:
        registry = stack.enter_context(running(tmp_path, notify=[endpoint(port, in_path=in_path)]))
        registry.push("team/api", "v1", "one")
        configure(
            tmp_path,
            f'[[registries]]\nname = "reg"\nkind = "oci"\nendpoint = "{registry.url}"\n'
            'agree_after = 0\n[[registries.watch]]\nrepositories = ["team/api"]\n',
            interval="1h",
            more=f'[hooks]\nlisten = "127.0.0.1:{port}"\nsecret = "file:hook-secret"\n',
        )
        process = Process(tmp_path)
        stack.callback(process.stop)
        process.await_event("repository.baselined", repository="reg/team/api", tags=1)
        began = datetime.now(UTC)
        moved = registry.push("team/api", "v1", "two")
        events = [(began, process.await_event("tag.updated", tag="v1", new_digest=moved))]
        began = datetime.now(UTC)
        added = registry.push("team/api", "v2", "three")
        events.append((began, process.await_event("tag.added", tag="v2", new_digest=added)))
        began = datetime.now(UTC)
        registry.delete("team/api", added)
        events.append((began, process.await_event("tag.deleted", tag="v2", old_digest=added)))
    for began, event in events:
        assert began < parse_timestamp(event["observed_at"]) < began + LATEST
