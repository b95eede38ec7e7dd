"""Who an OCI registry is told that we are: a configured user, or whatever Docker is logged in with.

Docker keeps a login in its ``config.json``, under ``auths``, or leaves it to a program,
``docker-credential-NAME``, that ``credHelpers`` names for one registry or ``credsStore`` for all
(Docker's manual, "docker login: credential stores").
"""

import base64
import binascii
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tagsync.errors import ConfigError
from tagsync.secrets import Secret

MAX_CONFIG_BYTES: Final = 2**20
"""How large a ``config.json`` may be."""

MAX_HELPER_BYTES: Final = 64 * 2**10
"""How much a credential helper may say."""

HELPER_WITHIN: Final = 30.0
"""Seconds within which a credential helper has to answer."""

_HUB: Final = "index.docker.io"
_HUB_HOSTS: Final = frozenset({"docker.io", "registry-1.docker.io", _HUB})
_HUB_KEY: Final = "https://index.docker.io/v1/"
"""What Docker calls its Hub in ``config.json`` and to helpers, whatever host is asked."""

_IDENTITY: Final = "<token>"
"""The user's name by which a helper says that its secret is an identity token."""


class Login(NamedTuple):
    """A user and the password, or an identity token that is exchanged for tokens (OAuth 2).

    Attributes:
        username: null with an identity token.
        secret: the password, or the identity token.
    """

    username: str | None
    secret: Secret


Logins = Callable[[], Login | None]
"""Gives the login that holds at this moment, or null where there is none."""


class _Auth(msgspec.Struct):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None


class _Config(msgspec.Struct):
    auths: dict[str, _Auth | None] | None = None
    cred_helpers: dict[str, str] | None = msgspec.field(default=None, name="credHelpers")
    creds_store: str | None = msgspec.field(default=None, name="credsStore")


class _Helped(msgspec.Struct):
    username: str = msgspec.field(name="Username")
    secret: str = msgspec.field(name="Secret")


def docker_login(path: Path, host: str, within: float = HELPER_WITHIN) -> Login | None:
    """What Docker is logged in to a registry with; null where it is not.

    A helper goes before what stands in the file, one for this registry before one for all.

    Args:
        path: Docker's ``config.json``.
        host: the registry's, with its port if it has one.
        within: seconds that a helper has.

    Raises:
        ConfigError: the file or a helper does not give what it should; the sentence holds nothing
            of what they gave.
    """
    config = read(path)
    host = _HUB if host in _HUB_HOSTS else host
    helpers = {_host(key): name for key, name in (config.cred_helpers or {}).items()}
    helper = helpers.get(host) or config.creds_store
    if helper and (login := _ask_helper(helper, _HUB_KEY if host == _HUB else host, within)):
        return login
    auths = {_host(key): auth for key, auth in (config.auths or {}).items()}
    entry = auths.get(host)
    return _login_in(entry, path, host) if entry else None


def read(path: Path) -> _Config:
    """Reads Docker's ``config.json``.

    Raises:
        ConfigError: it cannot be read, or is something else; the sentence quotes nothing of it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"Docker's configuration {path} cannot be read ({error.strerror}): log in with docker,"
            " or name another file by path"
        ) from error
    try:
        return msgspec.json.decode(text[: MAX_CONFIG_BYTES + 1], type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigError(
            f"{path} is not a config.json of Docker's: name another file by path"
        ) from None


def _host(key: str) -> str:
    """The host that a key of ``config.json`` is about: ``host``, ``https://host/v1/`` and so on."""
    return key.rpartition("://")[2].partition("/")[0]


def _login_in(entry: _Auth, path: Path, host: str) -> Login | None:
    if entry.identitytoken:
        return Login(None, Secret(entry.identitytoken))
    if entry.username and entry.password:
        return Login(entry.username, Secret(entry.password))
    if not entry.auth:
        return None
    try:
        text = base64.b64decode(entry.auth, validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    username, colon, password = text.partition(":")
    if not (username and colon and password):
        raise ConfigError(
            f"what {path} holds as auth for {host} is not user:password in base64: log in again"
        )
    # Docker itself ends the text with NUL bytes in old files.
    return Login(username, Secret(password.rstrip("\0")))


def _ask_helper(name: str, server: str, within: float) -> Login | None:
    """What a credential helper has for a registry; null where it has nothing."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(f"{name[:64]!r} is no name of a credential helper of Docker's")
    program = f"docker-credential-{name}"
    status, output = _run([program, "get"], server.encode(), within)
    if status:
        if b"credentials not found" in output:
            return None
        raise ConfigError(f"{program} failed for {server} (status {status}): log in again")
    try:
        helped = msgspec.json.decode(output, type=_Helped)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{program} answered for {server} in no form that is known") from None
    if not helped.secret:
        return None
    username = None if helped.username == _IDENTITY else helped.username
    return Login(username, Secret(helped.secret))


def _run(command: list[str], given: bytes, within: float) -> tuple[int, bytes]:
    """Runs a program on given input; returns its status and output.

    It gets a session of its own, so that whatever it started ends with it when its time is over.
    What it says on standard error may hold secrets and goes nowhere.
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
            f"{command[0]}, a credential helper of Docker's, cannot be run ({error.strerror})"
        ) from error

    ends_at = time.monotonic() + within
    assert process.stdin is not None, "a pipe was asked for"  # noqa: S101  tells the type checker
    assert process.stdout is not None, "a pipe was asked for"  # noqa: S101  as above
    try:
        # In this order, for what is not written yet is written when the pipe is closed.
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(given)
        with process.stdout:
            output = _read_until(ends_at, process.stdout.fileno())
        if len(output) > MAX_HELPER_BYTES:
            raise ConfigError(f"{command[0]} said more than {MAX_HELPER_BYTES} bytes")
        return process.wait(max(0.0, ends_at - time.monotonic())), output
    except (TimeoutError, subprocess.TimeoutExpired):
        raise ConfigError(f"{command[0]} did not answer within {within:g} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read_until(ends_at: float, pipe: int) -> bytes:
    """What comes through a pipe to its end, or the beginning of what is too long.

    Whatever the program leaves running may keep the pipe open, in a session of its own that no
    signal to the program's reaches: so this waits for the pipe, never for its end alone.

    Raises:
        TimeoutError: it has not ended in time.
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


def host_of(endpoint: str) -> str:
    """The host of a registry's endpoint as Docker calls it, with its port if it has one."""
    return urlsplit(endpoint).netloc
