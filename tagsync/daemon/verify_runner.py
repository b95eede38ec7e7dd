"""Start the process that verifies the database, and read its result.

A thread of the daemon would delay polls, because Python runs one thread at a time, and its memory
would stay with the daemon.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from threading import Event, Lock, Timer
from typing import Final, NamedTuple, Protocol

import msgspec

from tagsync.database.verifications import Result
from tagsync.escaping import truncate

_MODULE: Final = "tagsync.daemon.verify_child"

_OUTPUT_LIMIT: Final = 100_000
"""Maximum number of bytes of the output. The process writes fewer; see `verify_child`."""

_ENVIRONMENT: Final = (
    *("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE"),
    *("LANG", "LC_ALL", "TMPDIR", "SQLITE_TMPDIR"),
)
"""The variables that the process gets. The others may contain secrets, and it needs none."""

_INTERRUPTIONS: Final = (-signal.SIGTERM, -signal.SIGINT)
"""Exit statuses of a process that was asked to end, such as by systemd."""


class Outcome(NamedTuple):
    """The result of a verification, with the faults or the reason of the failure."""

    result: Result
    detail: str | None


class Runner(Protocol):
    """Runs verifications, one at a time."""

    def run(self, heads: Collection[str], timeout: float) -> Outcome | None:
        """Verify the database, and wait for the result.

        Args:
            heads: The hashes that the database must have.
            timeout: Seconds after which the verification has failed.

        Returns:
            None if the verification was interrupted, and says nothing about the database.
        """

    def stop(self) -> None:
        """Interrupt the verification that runs, and begin no other one."""


class VerifyProcess:
    """Runs each verification in a process of its own, at low priority."""

    def __init__(
        self,
        database: Path,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        """Create a runner.

        Args:
            database: The file.
            command: The command to which the path and the heads are added. None for tagsync's.
            env: The environment of the daemon.
        """
        self._database = database.absolute()
        # -P: the current folder must not contribute modules.
        self._command = command or (sys.executable, "-P", "-X", "utf8", "-m", _MODULE)
        self._env = {name: env[name] for name in _ENVIRONMENT if name in env}
        self._lock = Lock()
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, heads: Collection[str], timeout: float) -> Outcome | None:
        """See `Runner.run`."""
        try:
            process = self._start(heads)
        except OSError as error:
            return Outcome("failed", f"the verification could not be started: {error.strerror}")
        if process is None:
            return None
        late = Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = Timer(timeout, end)
        timer.daemon = True
        timer.start()
        try:
            output, status = _await_end(process)
        finally:
            timer.cancel()
        if late.is_set():
            return _outcome(output, f"it took longer than {timeout:.0f} s")
        if status in _INTERRUPTIONS:
            return None
        return _outcome(output, _cause(output, status))

    def stop(self) -> None:
        """See `Runner.stop`."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.terminate()

    def _start(self, heads: Collection[str]) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopped:
                return None
            self._process = subprocess.Popen(  # noqa: S603  tagsync's own command
                [*self._command, str(self._database), *sorted(heads)],
                # The process ends when the daemon closes its end of this pipe.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._env,
                # Ctrl-C is for the daemon, which then stops the process.
                start_new_session=True,
            )
            return self._process


class _Row(msgspec.Struct, frozen=True):
    """The row of a check."""

    check: str
    result: str
    detail: str | None


def _await_end(process: subprocess.Popen[bytes]) -> tuple[bytes, int]:
    """Return the output and the exit status of the process, which is killed at the limit."""
    assert process.stdin, "the process has a pipe"  # noqa: S101  tells the type checker
    assert process.stdout, "the process has a pipe"  # noqa: S101  tells the type checker
    with process.stdin, process.stdout:
        output = process.stdout.read(_OUTPUT_LIMIT)
        if len(output) == _OUTPUT_LIMIT:
            process.kill()
        return output, process.wait()


def _cause(output: bytes, status: int) -> str | None:
    """Return why a process did not finish its checks, or None if it did."""
    if not status:
        return None
    words = [line for line in output.decode(errors="replace").splitlines() if _row(line) is None]
    reason = truncate(words[-1]) if words else f"its process ended with {status}"
    return reason or f"its process ended with {status}"


def _outcome(output: bytes, cause: str | None) -> Outcome:
    """Return the outcome of a verification.

    Args:
        output: The output of the process.
        cause: Why it did not finish. None if it did.
    """
    rows = [_row(line) for line in output.decode(errors="replace").splitlines()]
    faults = [f"{row.check}: {row.detail}" for row in rows if row and row.result == "fault"]
    if faults:
        return Outcome("fault", "; ".join(faults))
    if cause is not None:
        return Outcome("failed", f"the verification did not finish: {cause}")
    if not rows or None in rows:
        return Outcome("failed", "the verification did not finish: its output is incomplete")
    return Outcome("ok", None)


def _row(line: str) -> _Row | None:
    try:
        return msgspec.json.decode(line, type=_Row)
    except msgspec.DecodeError:
        return None
