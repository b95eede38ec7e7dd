"""Commands: CloudEvents as JSON lines on the standard input of a program."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event
from typing import IO, BinaryIO, Final

import msgspec

from tagsync.errors import NotDelivered
from tagsync.notify.messages import Message, cloud_events
from tagsync.notify.sender import one_line
from tagsync.notify.targets import CommandTarget, Rule
from tagsync.secrets import redact

_KEPT_BYTES: Final = 4096
"""How much of a program's output is kept. The rest is read and dropped."""

_STEP: Final = 0.05
"""Seconds between two looks at whether the program has ended."""

_GRACE: Final = 1.0
"""Seconds from SIGTERM to SIGKILL."""

_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TZ")
"""Variables of the environment that a program gets. Others may contain secrets of tagsync."""


class CommandSender:
    """Runs the program of a rule for each message."""

    sums_up = False

    def __init__(
        self,
        rule: Rule,
        target: CommandTarget,
        *,
        env: Mapping[str, str] = os.environ,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rule: Final = rule
        self._argv: Final = target.argv
        self._env: Final = {name: env[name] for name in _PASSED_ON if name in env}
        self._monotonic: Final = monotonic
        self._stopping: Final = Event()

    def send(self, message: Message, seconds: float) -> str:
        """Run the program; see `tagsync.notify.sender.Sender`. Exit status 0 is an acceptance."""
        lines = map(msgspec.json.encode, cloud_events(self._rule, message))
        content = b"".join(line + b"\n" for line in lines)
        # A file in memory: a program that does not read cannot block, and no disk can be full.
        with os.fdopen(os.memfd_create("tagsync-events"), "w+b") as stdin:
            stdin.write(content)
            stdin.seek(0)
            return self._run(message, stdin, seconds)

    def stop(self) -> None:
        """Make a program that runs end, and its message be sent again later."""
        self._stopping.set()

    def close(self) -> None:
        """Do nothing: no program runs between two messages."""

    def _run(self, message: Message, stdin: BinaryIO, seconds: float) -> str:
        try:
            process = subprocess.Popen(  # noqa: S603  the configuration names the program
                self._argv,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self._environment(message),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise NotDelivered(f"{self._argv[0]} could not be started: {reason}") from error
        with process:
            try:
                output = self._wait(process, seconds)
            finally:
                _end(process)
        return self._check(process.returncode, one_line(redact(output)))

    def _environment(self, message: Message) -> dict[str, str]:
        return {
            **self._env,
            "TAGSYNC_MESSAGE_ID": message.id,
            "TAGSYNC_DESTINATION": self._rule.name,
            "TAGSYNC_EVENTS": str(message.total),
        }

    def _wait(self, process: "subprocess.Popen[bytes]", seconds: float) -> str:
        """Wait until the program has ended, and return the beginning of its output.

        Raises:
            NotDelivered: If it runs for too long, or tagsync stops.
        """
        assert process.stdout is not None, "it is a pipe"  # noqa: S101  tells the type checker
        os.set_blocking(process.stdout.fileno(), False)
        output = bytearray()
        end = self._monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while process.poll() is None:
                if self._stopping.is_set():
                    raise NotDelivered(f"{self._argv[0]} was ended, because tagsync stops")
                if self._monotonic() > end:
                    raise NotDelivered(f"{self._argv[0]} did not end within {seconds:g} s")
                if not selector.get_map():
                    self._stopping.wait(_STEP)
                elif selector.select(_STEP) and not _read(process.stdout, output):
                    selector.unregister(process.stdout)
        # A process that the program left behind may keep the pipe open, and write without end.
        while len(output) < _KEPT_BYTES and _read(process.stdout, output):
            pass
        return output.decode("utf-8", "replace")

    def _check(self, status: int, output: str) -> str:
        shown = f": {output}" if output else ""
        if status == 0:
            return f"exit status 0{shown}"
        what = f"exit status {status}" if status > 0 else f"signal {-status}"
        raise NotDelivered(f"{self._argv[0]} ended with {what}{shown}")


def _read(pipe: IO[bytes], output: bytearray) -> bool:
    """Read what is there, and keep the beginning. Return False at the end, or if nothing is."""
    with suppress(BlockingIOError):
        chunk = os.read(pipe.fileno(), 65536)
        output += chunk[: max(0, _KEPT_BYTES - len(output))]
        return bool(chunk)
    return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a program that still runs, with all processes of its group."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    # The group may have other members after its leader has ended.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
