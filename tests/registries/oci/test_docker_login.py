"""Docker's config.json and its credential helpers, as real files and programs."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tagsync.errors import ConfigError
from tagsync.registries.oci.docker_login import (
    MAX_HELPER_BYTES,
    DockerLogins,
    docker_host,
    docker_login,
)
from tagsync.registries.oci.shared_login import Login
from tests.support.processes import is_running
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

SECRET = "made-up-secret"
HOST = "registry.example.com:5000"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


AUTH = {"auth": encoded(f"reader:{SECRET}")}


def found(folder: Path, content: object, host: str = HOST) -> tuple[str | None, str] | None:
    """Return the login for a host in a config.json of this content."""
    path = folder / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return shown(docker_login(path, host))


def shown(login: Login | None) -> tuple[str | None, str] | None:
    return None if login is None else (login.username, login.secret.reveal())


@pytest.mark.parametrize(
    "key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"http://{HOST}/v2/", f"{HOST}/"]
)
def test_login_is_found_by_host(key: str, tmp_path: Path) -> None:
    """A login is found by the host, in whatever form the key is written."""
    assert found(tmp_path, {"auths": {key: AUTH, "other": {}}}) == ("reader", SECRET)


@pytest.mark.parametrize("host", ["registry-1.docker.io", "docker.io", "index.docker.io"])
def test_docker_hub_login_is_found(host: str, tmp_path: Path) -> None:
    """Docker stores the login for its Hub under one name, for all of its hosts."""
    assert found(tmp_path, {"auths": {"https://index.docker.io/v1/": AUTH}}, host) == (
        "reader",
        SECRET,
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"identitytoken": SECRET, **AUTH}, (None, SECRET)),
        ({"registrytoken": SECRET, **AUTH}, (None, SECRET)),
        ({"username": "reader", "password": SECRET}, ("reader", SECRET)),
        ({"auth": encoded(f"reader:{SECRET}:with:colons")}, ("reader", f"{SECRET}:with:colons")),
        ({"auth": encoded(f"reader:{SECRET}\0\0")}, ("reader", SECRET)),
        (
            {"auth": "\r\n".join(encoded(f"reader:{SECRET}").partition("Q")) + "\n"},
            ("reader", SECRET),
        ),
        ({}, None),
        (None, None),
        ({"auth": ""}, None),
    ],
)
def test_all_forms_of_a_login_are_read(
    entry: object, expected: tuple[str | None, str] | None, tmp_path: Path
) -> None:
    """Every form in which Docker writes a login is read; an empty one means none."""
    assert found(tmp_path, {"auths": {HOST: entry}}) == expected


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", [f"https://{HOST}/v1/", f"https://{HOST}", f"{HOST}/"])
def test_plain_host_takes_precedence(other: str, order: int, tmp_path: Path) -> None:
    """Of two keys for one host, the one without scheme and path counts, whatever their order."""
    entries = [(HOST, AUTH), (other, {"auth": encoded("old:made-up")})][::order]
    assert found(tmp_path, {"auths": dict(entries)}) == ("reader", SECRET)


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """A file that an editor wrote with a byte order mark is read."""
    content = b"\xef\xbb\xbf" + json.dumps({"auths": {HOST: AUTH}}).encode()
    assert found(tmp_path, content) == ("reader", SECRET)


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A path that is not a file is refused at once; reading a pipe would block."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigError, match="is not a file"):
            docker_login(path, HOST)


@pytest.mark.parametrize("content", [{}, {"auths": None}, {"auths": {"other": AUTH}}])
def test_missing_login_is_not_an_error(content: object, tmp_path: Path) -> None:
    """An entry for the registry may be missing."""
    assert found(tmp_path, content) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json " + SECRET.encode(),
        f'["{SECRET}"]'.encode(),
        json.dumps({"auths": [SECRET]}).encode(),
        json.dumps({"auths": {HOST: {"auth": [SECRET]}}}).encode(),
        json.dumps({"auths": {HOST: {"auth": SECRET + "!"}}}).encode(),
        json.dumps({"auths": {HOST: {"auth": encoded(SECRET)}}}).encode(),
        b"[" * 100_000,
        b"\xff" + SECRET.encode(),
        b" " * 2**21,
    ],
)
def test_invalid_file_is_named(content: bytes, tmp_path: Path) -> None:
    """The error for an invalid file is one sentence with its name and no secret."""
    with pytest.raises(ConfigError, match=r"config\.json") as caught:
        found(tmp_path, content)
    assert SECRET not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    # A cause could contain it, and a traceback would show the cause.
    assert caught.value.__cause__ is None


def test_missing_file_is_named(tmp_path: Path) -> None:
    """The error for a missing file says that it is missing."""
    with pytest.raises(ConfigError, match="No such file"):
        docker_login(tmp_path / "config.json", HOST)


@pytest.mark.parametrize(
    ("repository", "user"),
    [
        ("team/a", "team"),
        ("team/a/b", "team"),
        ("team", "team"),
        ("team/special", "special"),
        ("teamwork/a", "host"),
        ("a", "host"),
        ("", "host"),
    ],
)
def test_namespace_has_a_login(repository: str, user: str, tmp_path: Path) -> None:
    """The most specific login of a namespace applies; the host's own is for all others."""
    path = tmp_path / "config.json"
    keys = {
        f"{HOST}/team": "team",
        HOST: "host",
        f"https://{HOST}/v1/": "host",
        f"{HOST}/team/special": "special",
        "other/team": "other",
    }
    auths = {key: {"auth": encoded(f"{name}:{SECRET}")} for key, name in keys.items()}
    path.write_text(json.dumps({"auths": auths}))
    logins = DockerLogins(path, HOST)
    login = logins.login(logins.place(repository))
    assert login is not None
    assert login.username == user


def test_bearer_token_of_the_registry_is_marked(tmp_path: Path) -> None:
    """A registrytoken is for the registry itself; one that no header can carry is refused."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {HOST: {"registrytoken": SECRET}}}))
    login = docker_login(path, HOST)
    assert login is not None
    assert login.is_bearer
    path.write_text(json.dumps({"auths": {HOST: {"registrytoken": f"{SECRET}\n"}}}))
    with pytest.raises(ConfigError, match="registrytoken") as caught:
        docker_login(path, HOST)
    assert SECRET not in str(caught.value)


# Helpers run as programs, found in a PATH of the test's own.


def helped(
    folder: Path, script: str, config: Mapping[str, object] | None = None, within: float = 30
) -> str:
    """Return the login that a helper with this shell script gives, or its error."""
    (folder / "bin").mkdir(exist_ok=True)
    helper = folder / "bin" / "docker-credential-made-up"
    helper.write_text(f"#!/bin/sh\n{script}\n")
    helper.chmod(0o755)
    path = folder / "config.json"
    path.write_text(json.dumps(config or {"credsStore": "made-up"}))
    program = f"""
import sys
from pathlib import Path
from tagsync.errors import ConfigError
from tagsync.registries.oci.docker_login import docker_login
try:
    found = docker_login(Path({str(path)!r}), {HOST!r}, timeout={within})
    print(found and (found.username, found.secret.reveal()))
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    assert not done.stderr
    return done.stdout.strip()


def says(username: str = "reader", secret: str = SECRET) -> str:
    return "echo '" + json.dumps({"ServerURL": HOST, "Username": username, "Secret": secret}) + "'"


def test_helper_gets_the_host(tmp_path: Path) -> None:
    """A helper gets the registry's host on its standard input."""
    script = f'cat > {tmp_path}/given; echo "$@" > {tmp_path}/arguments; {says()}'
    assert helped(tmp_path, script) == str(("reader", SECRET))
    assert (tmp_path / "given").read_text() == HOST
    assert (tmp_path / "arguments").read_text() == "get\n"


def test_helper_gives_an_identity_token(tmp_path: Path) -> None:
    """The username <token> marks the secret as an identity token."""
    assert helped(tmp_path, says("<token>")) == str((None, SECRET))


def test_file_is_used_if_helper_has_no_login(tmp_path: Path) -> None:
    """If the helper has no login for the registry, the file may have one."""
    script = 'echo "credentials not found in native keychain"; exit 1'
    assert helped(tmp_path, script) == "None"
    config = {"credsStore": "made-up", "auths": {HOST: AUTH}}
    assert helped(tmp_path, script, config) == str(("reader", SECRET))


def test_helper_of_the_registry_has_precedence(tmp_path: Path) -> None:
    """A helper for this registry takes precedence over the one for all."""
    config = {"credHelpers": {HOST: "made-up", "other": "x"}, "credsStore": "missing"}
    assert helped(tmp_path, says(), config) == str(("reader", SECRET))


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (f"echo {SECRET}; echo {SECRET} >&2; exit 1", "failed"),
        (f"echo {SECRET}", "in an unknown form"),
        ("", "in an unknown form"),
        (f"head -c {10 * MAX_HELPER_BYTES} /dev/zero", "more than"),
        ("cat /dev/zero", "more than"),
    ],
)
def test_failing_helper_is_named(script: str, sentence: str, tmp_path: Path) -> None:
    """The error for a helper that fails has its name, and nothing of its output."""
    text = helped(tmp_path, script)
    assert "docker-credential-made-up" in text
    assert sentence in text
    assert SECRET not in text


def test_hanging_helper_is_killed(tmp_path: Path) -> None:
    """A helper that does not answer is killed together with its children."""
    script = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    text = helped(tmp_path, script, within=2)
    assert "did not answer within" in text
    child = int((tmp_path / "child").read_text())
    # A process that was killed still has to get the processor once.
    eventually(lambda: not is_running(child))


def test_process_of_a_helper_is_not_waited_for(tmp_path: Path) -> None:
    """A process that a helper leaves with its output open is not waited for."""
    script = f"setsid sh -c 'echo $$ > {tmp_path}/child; exec sleep 60' & {says()}"
    try:
        assert "did not answer within" in helped(tmp_path, script, within=1)
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("name", ["../made-up", "a/b", "", "-x", "made up", "x" * 65, ";x"])
def test_unsafe_helper_name_is_refused(name: str, tmp_path: Path) -> None:
    """A name that could start another program is refused."""
    text = helped(tmp_path, says(), {"credHelpers": {HOST: name}})
    assert text == "None" if not name else "not a valid name of a credential helper" in text


def test_missing_helper_is_named(tmp_path: Path) -> None:
    """The error for a helper that is not installed has its name."""
    text = helped(tmp_path, says(), {"credsStore": "missing"})
    assert text.startswith("docker-credential-missing")
    assert "cannot be run" in text


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [("https://registry.example.com", "registry.example.com"), (f"https://{HOST}/x", HOST)],
)
def test_host_of_an_endpoint(endpoint: str, host: str) -> None:
    """Docker's name for a registry is its host, with the port if there is one."""
    assert docker_host(endpoint) == host
