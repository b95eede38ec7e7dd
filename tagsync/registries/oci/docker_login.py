"""Docker's own logins, from its ``config.json`` and from credential helpers.

Docker stores a login in ``config.json`` under ``auths``, or lets a credential helper store it: the
program ``docker-credential-NAME``. In ``config.json``, ``credHelpers`` names the helper of one
registry, and ``credsStore`` names the helper of all registries.

Source: Docker's manual, "docker login: credential stores".
"""

import base64
import binascii
import codecs
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from tagsync.errors import ConfigError
from tagsync.registries.hosts import DOCKER_HUB_LOGIN, is_docker_hub
from tagsync.registries.oci.shared_login import Login
from tagsync.registries.renewal import is_header_value
from tagsync.secrets import Secret

MAX_CONFIG_BYTES: Final = 2**20
"""Maximum size of ``config.json``."""

MAX_HELPER_BYTES: Final = 64 * 2**10
"""Maximum size of a credential helper's output."""

HELPER_TIMEOUT: Final = 30.0
"""Maximum seconds that a credential helper may take to answer."""

_HUB_KEY: Final = f"https://{DOCKER_HUB_LOGIN}/v1/"
"""The name under which credential helpers store the login for Docker Hub."""

_IDENTITY: Final = "<token>"
"""A helper answers with this instead of a user's name if its secret is an identity token."""


class _Auth(msgspec.Struct):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class _Config(msgspec.Struct):
    auths: dict[str, _Auth | None] | None = None
    cred_helpers: dict[str, str] | None = msgspec.field(default=None, name="credHelpers")
    creds_store: str | None = msgspec.field(default=None, name="credsStore")


class _HelperAnswer(msgspec.Struct):
    username: str = msgspec.field(name="Username")
    secret: str = msgspec.field(name="Secret")


def find_docker_config(env: Mapping[str, str]) -> Path:
    """Return the path at which Docker itself looks for its ``config.json``.

    Args:
        env: The environment. ``$DOCKER_CONFIG`` names the folder; the default is ``~/.docker``.

    Raises:
        ConfigError: If the user has no home folder.
    """
    folder = env.get("DOCKER_CONFIG") or "~/.docker"
    try:
        return Path(folder).expanduser() / "config.json"
    except RuntimeError as error:
        raise ConfigError(
            f"there is no home folder for {folder!r}: set $DOCKER_CONFIG to a path without ~, or"
            " name Docker's config.json by path under [registries.auth]"
        ) from error


class DockerLogins:
    """Docker's logins for one registry: for the whole host, and for single namespaces of it.

    The key of a login in ``config.json`` is the host, or the host and the beginning of repository
    names (``registry.example.com/team-a``). For each repository the most specific key applies.
    """

    def __init__(self, path: Path, host: str) -> None:
        """Read the keys of the file.

        Args:
            path: Docker's ``config.json``.
            host: The host of the registry, with its port if it has one.

        Raises:
            ConfigError: If the file cannot be used.
        """
        self._path = path
        self._host = host
        self._namespaces = self._read_namespaces()

    def place(self, repository: str) -> str:
        """Return the namespace whose login a repository uses. Empty for the host's own login."""
        name = f"{repository}/"
        return next((each for each in self._namespaces if name.startswith(f"{each}/")), "")

    def login(self, place: str) -> Login | None:
        """Read the login of a place.

        Raises:
            ConfigError: As for `docker_login`.
        """
        self._namespaces = self._read_namespaces()
        return docker_login(self._path, self._host, place)

    def _read_namespaces(self) -> tuple[str, ...]:
        """Return the namespaces that have logins of their own, the most specific ones first."""
        keys = read_docker_config(self._path).auths or {}
        places = (_place_of_key(key) for key in keys)
        name = _name_of_host(self._host)
        namespaces = {namespace for host, namespace in places if host == name and namespace}
        return tuple(sorted(namespaces, key=len, reverse=True))


def docker_login(
    path: Path, host: str, namespace: str = "", timeout: float = HELPER_TIMEOUT
) -> Login | None:
    """Return Docker's login for a registry, or None if Docker is not logged in there.

    A helper takes precedence over a login in the file, and the helper of this registry over the
    helper of all registries.

    Args:
        path: Docker's ``config.json``.
        host: The host of the registry, with its port if it has one.
        namespace: The beginning of repository names that the login is for. Empty for the login of
            the whole registry.
        timeout: Maximum seconds that a helper may take to answer.

    Raises:
        ConfigError: If the file or a helper cannot be used. The error does not quote any text of
            the file or of the helper, because the text may contain secrets.
    """
    config = read_docker_config(path)
    is_hub = is_docker_hub(host)
    host = _name_of_host(host)
    helpers = {_place_of_key(key): name for key, name in (config.cred_helpers or {}).items()}
    helper = None if namespace else helpers.get((host, "")) or config.creds_store
    if helper and (login := _login_of_helper(helper, _HUB_KEY if is_hub else host, timeout)):
        return login
    entry = _entry(config.auths or {}, host, namespace)
    return _login_of_entry(entry, path, host) if entry else None


def _entry(auths: Mapping[str, _Auth | None], host: str, namespace: str) -> _Auth | None:
    """Return the login of a place. A key without a scheme and an API's path takes precedence."""
    keys = [key for key in auths if _place_of_key(key) == (host, namespace)]
    plain = f"{host}/{namespace}" if namespace else host
    return auths[min(keys, key=lambda key: key != plain)] if keys else None


def read_docker_config(path: Path) -> _Config:
    """Return the content of Docker's ``config.json``.

    Raises:
        ConfigError: If the file cannot be read, or is not a ``config.json``. The error does not
            quote the file, because it may contain secrets.
    """
    try:
        # A pipe would block, and could be read only once.
        if path.exists() and not path.is_file():
            raise ConfigError(f"Docker's configuration {path} is not a file: set path to one")
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"Docker's configuration {path} cannot be read ({error.strerror}): log in with docker,"
            " or set path to another file"
        ) from error
    try:
        # Some editors write a byte order mark, which JSON does not allow.
        return msgspec.json.decode(text.removeprefix(codecs.BOM_UTF8), type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigError(
            f"{path} is not a config.json of Docker: set path to another file"
        ) from None


def docker_host(endpoint: str) -> str:
    """Return Docker's name for a registry: the host of its endpoint, with its port."""
    return urlsplit(endpoint).netloc


def _name_of_host(host: str) -> str:
    """Return the host under which Docker stores the login of a registry."""
    return DOCKER_HUB_LOGIN if is_docker_hub(host) else host


def _place_of_key(key: str) -> tuple[str, str]:
    """Return the host and the namespace in a key of ``config.json``.

    A key such as ``https://host/v1/`` is for the whole host: its path is the version of an API.
    """
    host, _, path = key.rpartition("://")[2].partition("/")
    namespace = path.strip("/")
    return _name_of_host(host), "" if namespace in {"v1", "v2"} else namespace


def _login_of_entry(entry: _Auth, path: Path, host: str) -> Login | None:
    if entry.registrytoken:
        return _bearer_login(entry.registrytoken, path, host)
    if entry.identitytoken:
        return Login(None, Secret(entry.identitytoken))
    if entry.username and entry.password:
        return Login(entry.username, Secret(entry.password))
    if not entry.auth:
        return None
    try:
        # Programs such as base64 break their output into lines.
        lines = entry.auth.replace("\r", "").replace("\n", "")
        text = base64.b64decode(lines, validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    username, colon, password = text.partition(":")
    if not (username and colon and password):
        raise ConfigError(
            f"the auth of {host} in {path} is not user:password in base64: log in with docker again"
        )
    # Docker itself once wrote NUL bytes at the end of the text. Old files still contain them.
    return Login(username, Secret(password.rstrip("\0")))


def _bearer_login(token: str, path: Path, host: str) -> Login:
    if not is_header_value(token):
        raise ConfigError(
            f"the registrytoken of {host} in {path} contains characters that an HTTP header cannot"
            " carry: log in again"
        )
    return Login(None, Secret(token), is_bearer=True)


def _login_of_helper(name: str, server: str, timeout: float) -> Login | None:
    """Return a credential helper's login for a registry, or None if it has no login."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(
            f"{name[:64]!r} is not a valid name of a credential helper: correct credHelpers or"
            " credsStore in Docker's config.json"
        )
    program = f"docker-credential-{name}"
    status, output = _run([program, "get"], server.encode(), timeout)
    if status:
        if b"credentials not found" in output:
            return None
        raise ConfigError(
            f"{program} failed for {server} (status {status}): log in with docker again"
        )
    try:
        answer = msgspec.json.decode(output, type=_HelperAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{program} answered for {server} in an unknown form") from None
    if not answer.secret:
        return None
    username = None if answer.username == _IDENTITY else answer.username
    return Login(username, Secret(answer.secret))


def _run(command: list[str], stdin: bytes, timeout: float) -> tuple[int, bytes]:
    """Run a program, and return its exit status and its standard output.

    The program runs in a session of its own, so that its child processes can be killed with it
    after the timeout. Its standard error is discarded, because it may contain secrets.

    Raises:
        ConfigError: If the program cannot be run, does not end in time, or writes too much.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  the name is checked, and no shell reads it
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(
            f"{command[0]}, a credential helper of Docker, cannot be run ({error.strerror})"
        ) from error

    ends_at = time.monotonic() + timeout
    assert process.stdin is not None, "a pipe was requested"  # noqa: S101  tells the type checker
    assert process.stdout is not None, "a pipe was requested"  # noqa: S101  as above
    try:
        # `suppress` must also enclose the closing of the pipe, which may still write to it.
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(stdin)
        with process.stdout:
            output = _read_until(ends_at, process.stdout.fileno())
        if len(output) > MAX_HELPER_BYTES:
            raise ConfigError(f"{command[0]} wrote more than {MAX_HELPER_BYTES} bytes")
        return process.wait(max(0.0, ends_at - time.monotonic())), output
    except (TimeoutError, subprocess.TimeoutExpired):
        raise ConfigError(f"{command[0]} did not answer within {timeout:g} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read_until(ends_at: float, pipe: int) -> bytes:
    """Read a pipe until it is closed, or until its output exceeds `MAX_HELPER_BYTES`.

    Each read waits only until the deadline, because a background process of the program may keep
    the pipe open. If this process has a session of its own, killing the program does not end it.

    Args:
        ends_at: The deadline, in seconds of the monotonic clock.
        pipe: The file descriptor of the pipe.

    Raises:
        TimeoutError: If the pipe is still open at the deadline.
    """
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(output) <= MAX_HELPER_BYTES:
            if not selector.select(max(0.0, ends_at - time.monotonic())):
                raise TimeoutError
            chunk = os.read(pipe, MAX_HELPER_BYTES + 1)
            if not chunk:
                break
            output += chunk
    return output
