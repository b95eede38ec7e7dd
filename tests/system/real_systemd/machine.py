"""A machine that runs a real systemd, without a virtual machine or a container engine."""

import os
import pty
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final

Finished = subprocess.CompletedProcess[str]

_HERE: Final = Path(__file__).parent
_CGROUPS: Final = Path("/sys/fs/cgroup")
_ENVIRONMENT: Final = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "/srv/check/wheels",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}


class Machine:
    """A booted systemd in namespaces of its own. Only root can start one.

    Attributes:
        shared: The folder that the machine has as ``/srv/check``.
    """

    def __init__(self, tree: Path, shared: Path, seconds: int) -> None:
        """Boot the machine, and wait until its units have started.

        Args:
            tree: The file system. The machine sees a copy-on-write view of it.
            shared: A folder that this process and the machine share.
            seconds: Time after which the machine is killed.
        """
        self.shared = shared
        unified = _CGROUPS / "unified"
        self._group = (unified if unified.is_dir() else _CGROUPS) / f"tagsync-{os.getpid()}"
        self._group.mkdir()
        self._console = (shared / "console").open("w+")
        arguments = [tree, shared, self._group, seconds]
        self._boot = subprocess.Popen(
            ["sh", str(_HERE / "boot.sh"), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=self._console,
        )
        try:
            self._init = self._await_init()
            wait_until(lambda: self.holds("test -S /run/dbus/system_bus_socket"), 120)
            self.run("systemctl is-system-running --wait || true")
        except BaseException:
            self.close()
            raise

    def run(self, script: str, seconds: float = 300, *, user: str = "") -> Finished:
        """Run a script of Bash in the machine, and fail the test if it fails."""
        finished = self.attempt(script, seconds, user=user)
        assert finished.returncode == 0, (script, finished.stdout, finished.stderr)
        return finished

    def attempt(self, script: str, seconds: float = 300, *, user: str = "") -> Finished:
        """Run a script of Bash in the machine, as root or as a user, and return how it ended."""
        shell = ["bash", "-euo", "pipefail", "-c", script]
        if user:
            shell = ["runuser", "-u", user, "--", *shell]
        return subprocess.run(
            [*self._inside(), *shell],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def holds(self, script: str) -> bool:
        """Return whether a script succeeds."""
        return self.attempt(script).returncode == 0

    def paste(
        self, block: str, answers: Mapping[str, str], seconds: float = 300
    ) -> tuple[int, str]:
        """Paste a block at the prompt of a shell, and type an answer to each command that reads.

        Args:
            block: The text, all of which is sent to the terminal at once.
            answers: For each command that reads from the terminal, its command line and the text to
                type before Ctrl-D.
            seconds: Time for the whole block.

        Returns:
            The exit status of the block, and everything that the terminal shows.
        """
        terminal, end = pty.openpty()
        shell = subprocess.Popen(
            [*self._inside(TERM="dumb"), *("setsid", "--ctty", "--wait", "bash", "--norc", "-i")],
            stdin=end,
            stdout=end,
            stderr=end,
            cwd="/",
        )
        os.close(end)
        shown: list[bytes] = []
        reader = Thread(target=_read, args=(terminal, shown), daemon=True)
        reader.start()
        try:
            _type(terminal, f"cd /srv/check/source\n{block}")
            for command, text in answers.items():
                self.run(f"until pgrep -xf '{command}'; do sleep 0.1; done", seconds)
                _type(terminal, f"{text}\n\x04")
            _type(terminal, "exit $?\n")
            status = shell.wait(seconds)
            reader.join(10)
            return status, b"".join(shown).decode(errors="replace")
        finally:
            shell.kill()
            os.close(terminal)

    def close(self) -> None:
        """Kill the machine. Its processes and mounts end with it."""
        self._boot.kill()
        with suppress(subprocess.TimeoutExpired):
            self._boot.wait(10)
        for process in self._group.rglob("cgroup.procs"):
            for number in process.read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(number), 9)
        wait_until(self._remove_groups, 60)
        self._console.close()

    def _inside(self, **variables: str) -> list[str]:
        spaces = ("mount", "uts", "ipc", "net", "pid", "cgroup", "root", "wd")
        enter = ["nsenter", "--target", str(self._init), *(f"--{space}" for space in spaces)]
        environment = [f"{name}={value}" for name, value in {**_ENVIRONMENT, **variables}.items()]
        return [*enter, "env", "-i", *environment]

    def _await_init(self) -> int:
        """Return the number of the machine's PID 1, as this host counts."""

        def find() -> int | None:
            assert self._boot.poll() is None, (self.shared / "console").read_text()
            for unshare in _children(self._boot.pid):
                for init in _children(unshare):
                    if Path(f"/proc/{init}/comm").read_text() == "systemd\n":
                        return init
            return None

        wait_until(lambda: find() is not None, 120)
        return find() or 0

    def _remove_groups(self) -> bool:
        groups = [path for path in self._group.rglob("*") if path.is_dir()]
        for group in [*sorted(groups, reverse=True), self._group]:
            with suppress(OSError):
                group.rmdir()
        return not self._group.exists()


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds, and fail the test if it does not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.1)


def _children(process: int) -> list[int]:
    with suppress(OSError):
        path = Path(f"/proc/{process}/task/{process}/children")
        return [int(child) for child in path.read_text().split()]
    return []


def _type(terminal: int, text: str) -> None:
    rest = text.encode()
    while rest:
        rest = rest[os.write(terminal, rest) :]


def _read(terminal: int, shown: list[bytes]) -> None:
    # Linux reports a terminal without programs as an error.
    with suppress(OSError):
        while part := os.read(terminal, 65536):
            shown.append(part)
