"""Docker's config.json and its credential helpers, as real files and real programs."""

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
from tagsync.registries.oci.docker_login import MAX_HELPER_BYTES, docker_host, docker_login
from tagsync.registries.oci.logins import Login

pytestmark = pytest.mark.processes

SECRET = "made-up-secret"
HOST = "registry.example.com:5000"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


AUTH = {"auth": encoded(f"reader:{SECRET}")}


def found(folder: Path, content: object, host: str = HOST) -> tuple[str | None, str] | None:
    """What is found for a host in a config.json of this content."""
    path = folder / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return shown(docker_login(path, host))


def shown(login: Login | None) -> tuple[str | None, str] | None:
    return None if login is None else (login.username, login.secret.reveal())


@pytest.mark.parametrize(
    "key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"http://{HOST}/v2/", f"{HOST}/"]
)
def test_a_login_in_the_file(key: str, tmp_path: Path) -> None:
    """A registry is found under its host, however the key is written."""
    assert found(tmp_path, {"auths": {key: AUTH, "other": {}}}) == ("reader", SECRET)


@pytest.mark.parametrize("host", ["registry-1.docker.io", "docker.io", "index.docker.io"])
def test_docker_hub(host: str, tmp_path: Path) -> None:
    """Docker's name for its Hub is none of the hosts that are asked."""
    assert found(tmp_path, {"auths": {"https://index.docker.io/v1/": AUTH}}, host) == (
        "reader",
        SECRET,
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"identitytoken": SECRET, **AUTH}, (None, SECRET)),
        ({"username": "reader", "password": SECRET}, ("reader", SECRET)),
        ({"auth": encoded(f"reader:{SECRET}:with:colons")}, ("reader", f"{SECRET}:with:colons")),
        ({"auth": encoded(f"reader:{SECRET}\0\0")}, ("reader", SECRET)),
        ({}, None),
        (None, None),
        ({"auth": ""}, None),
    ],
)
def test_forms_of_a_login(
    entry: object, expected: tuple[str | None, str] | None, tmp_path: Path
) -> None:
    """Every form in which Docker writes a login is understood, and none at all is nobody."""
    assert found(tmp_path, {"auths": {HOST: entry}}) == expected


@pytest.mark.parametrize("content", [{}, {"auths": None}, {"auths": {"other": AUTH}}])
def test_nobody_is_logged_in(content: object, tmp_path: Path) -> None:
    """Without an entry for the registry there is no login, and that is no error."""
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
def test_a_file_that_is_wrong(content: bytes, tmp_path: Path) -> None:
    """What is no config.json is an error of one sentence that names the file and no secret."""
    with pytest.raises(ConfigError, match=r"config\.json") as caught:
        found(tmp_path, content)
    assert SECRET not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    # Nor may a cause hold it, which a traceback would show.
    assert caught.value.__cause__ is None


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is said to be missing."""
    with pytest.raises(ConfigError, match="No such file"):
        docker_login(tmp_path / "config.json", HOST)


# Helpers run as programs, with a PATH that is the test's.


def helped(
    folder: Path, script: str, config: Mapping[str, object] | None = None, within: float = 30
) -> str:
    """What tagsync finds when a helper is this shell script; an error as its sentence."""
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
    found = docker_login(Path({str(path)!r}), {HOST!r}, {within})
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


def test_a_helper_is_asked(tmp_path: Path) -> None:
    """A helper gets the registry's host on its standard input, and its answer is the login."""
    script = f'cat > {tmp_path}/given; echo "$@" > {tmp_path}/arguments; {says()}'
    assert helped(tmp_path, script) == str(("reader", SECRET))
    assert (tmp_path / "given").read_text() == HOST
    assert (tmp_path / "arguments").read_text() == "get\n"


def test_a_helper_with_an_identity_token(tmp_path: Path) -> None:
    """The user's name <token> says that the secret is an identity token."""
    assert helped(tmp_path, says("<token>")) == str((None, SECRET))


def test_a_helper_that_knows_nothing(tmp_path: Path) -> None:
    """Where the helper has no login for the registry, the file may have one."""
    script = 'echo "credentials not found in native keychain"; exit 1'
    assert helped(tmp_path, script) == "None"
    config = {"credsStore": "made-up", "auths": {HOST: AUTH}}
    assert helped(tmp_path, script, config) == str(("reader", SECRET))


def test_a_helper_of_ones_own_goes_first(tmp_path: Path) -> None:
    """A helper for this registry is asked, and not the one for all."""
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
def test_a_helper_that_fails(script: str, sentence: str, tmp_path: Path) -> None:
    """A helper that fails or babbles is told by its name, and nothing that it said is."""
    text = helped(tmp_path, script)
    assert "docker-credential-made-up" in text
    assert sentence in text
    assert SECRET not in text


def test_a_helper_that_hangs(tmp_path: Path) -> None:
    """A helper that never answers is ended, together with what it started."""
    script = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    text = helped(tmp_path, script, within=0.5)
    assert "did not answer within" in text
    state = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_helper_that_leaves_something_running(tmp_path: Path) -> None:
    """What a helper leaves in a session of its own, with its output open, is not waited for."""
    script = f"setsid sh -c 'echo $$ > {tmp_path}/child; exec sleep 60' & {says()}"
    try:
        assert "did not answer within" in helped(tmp_path, script, within=1)
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("name", ["../made-up", "a/b", "", "-x", "made up", "x" * 65, ";x"])
def test_a_name_that_is_none(name: str, tmp_path: Path) -> None:
    """What could lead to another program than a helper is not run."""
    text = helped(tmp_path, says(), {"credHelpers": {HOST: name}})
    assert text == "None" if not name else "not a valid name of a credential helper" in text


def test_a_helper_that_is_not_there(tmp_path: Path) -> None:
    """A helper that is not installed is named."""
    text = helped(tmp_path, says(), {"credsStore": "missing"})
    assert text.startswith("docker-credential-missing")
    assert "cannot be run" in text


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [("https://registry.example.com", "registry.example.com"), (f"https://{HOST}/x", HOST)],
)
def test_the_host_of_an_endpoint(endpoint: str, host: str) -> None:
    """Docker calls a registry by its host, with the port if there is one."""
    assert docker_host(endpoint) == host
