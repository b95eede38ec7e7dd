"""Commands: JSON lines on standard input, without a shell, bounded in time and output."""

import json
import os
import signal
import sys
from pathlib import Path
from threading import Timer

import pytest

from tagsync.errors import ConfigError, NotDelivered
from tagsync.notify.command import CommandSender
from tagsync.notify.messages import message_of
from tagsync.notify.senders import check_rule
from tagsync.notify.targets import CommandTarget, Rule
from tests.support.events import event
from tests.support.processes import is_running
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

ENV = {"PATH": os.environ["PATH"], "HOME": "/", "OPS_TOKEN": "secret-of-tagsync"}


def sender_of(*argv: str) -> CommandSender:
    target = CommandTarget(argv)
    return CommandSender(Rule("ops", target), target, env=ENV)


def send(*argv: str, seconds: float = 20, count: int = 1, tag: str = "prod") -> str:
    sender = sender_of(*argv)
    events = [event(number=number, tag=tag) for number in range(1, count + 1)]
    return sender.send(message_of(Rule("ops", CommandTarget(argv)), "db", 1, events), seconds)


def python(code: str, **options: float) -> str:
    return send(sys.executable, "-c", code, **options)  # type: ignore[arg-type]


def refusal(code: str) -> str:
    with pytest.raises(NotDelivered) as raised:
        python(code)
    return str(raised.value)


def test_events_are_json_lines(tmp_path: Path) -> None:
    """Each line of standard input is one CloudEvent; the environment has the message's id."""
    written = tmp_path / "written"
    code = (
        "import os, sys; open(sys.argv[1], 'w').write("
        "os.environ['TAGSYNC_MESSAGE_ID'] + chr(10) + sys.stdin.read()); print('done')"
    )
    assert send(sys.executable, "-c", code, str(written), count=3) == "exit status 0: done"
    number, *lines = written.read_text().splitlines()
    assert number.startswith("msg_1-3_")
    assert [json.loads(line)["id"] for line in lines] == ["1", "2", "3"]


def test_names_are_no_commands(tmp_path: Path) -> None:
    """No shell reads a name of a registry, and a line break in it begins no further line."""
    tag = f"$(touch {tmp_path}/made)`touch {tmp_path}/made`;\n{{}}"
    code = "import sys; lines = sys.stdin.readlines(); sys.exit(len(lines) - 1)"
    assert send(sys.executable, "-c", code, tag=tag) == "exit status 0"
    assert not (tmp_path / "made").exists()


def test_other_statuses_are_failures() -> None:
    """An exit status other than 0 and a signal are failures, with the beginning of the output."""
    assert "ended with exit status 3: no" in refusal("print('no'); raise SystemExit(3)")
    assert "ended with signal 9" in refusal("import os; os.kill(os.getpid(), 9)")


def test_a_program_that_is_missing_is_a_failure() -> None:
    """A program that cannot be started is a failure that says why."""
    with pytest.raises(NotDelivered, match="could not be started: No such file"):
        send("/no/such/program")


def test_a_program_need_not_read() -> None:
    """A program that leaves a large input unread does not block, and may accept."""
    assert python("pass", count=2000) == "exit status 0"


def test_output_is_bounded_and_redacted() -> None:
    """Of a long output only the beginning is kept, on one line without control characters."""
    shown = python("import sys; sys.stdout.write('a\\x1b[31m\\n' + 'b' * 10_000_000)")
    assert len(shown) < 400
    assert shown.isprintable()


def test_a_program_gets_no_secrets() -> None:
    """The environment of a program has only a few variables; others may contain secrets."""
    shown = python("import os; print(sorted(os.environ), os.getcwd())")
    assert "OPS_TOKEN" not in shown
    assert "'PATH', 'TAGSYNC_DESTINATION', 'TAGSYNC_EVENTS', 'TAGSYNC_MESSAGE_ID'] /" in shown


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    """After the time all processes of the program's group are killed, whatever they ignore."""
    pids = tmp_path / "pids"
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\n"
        "time.sleep(1000)\n"
    )

    def numbers() -> list[int]:
        return [int(number) for number in pids.read_text().split()] if pids.exists() else []

    target = CommandTarget((sys.executable, "-c", code))
    rule = Rule("ops", target)
    # The time is over once both processes have begun, however long that takes.
    sender = CommandSender(rule, target, monotonic=lambda: 2.0 * (len(numbers()) == 2))
    with pytest.raises(NotDelivered, match="did not end within 1 s"):
        sender.send(message_of(rule, "db", 1, [event()]), 1)
    assert len(numbers()) == 2
    # A process that was killed still has to get the processor once.
    eventually(lambda: not any(map(is_running, numbers())))


def test_a_child_that_stays_does_not_delay_the_result() -> None:
    """A process that a program leaves behind may keep the output open; its end is not awaited."""
    code = "import os, time\nif os.fork() == 0: time.sleep(100)\nprint(os.getpid())"
    shown = python(code)
    group = int(shown.rpartition(" ")[2])
    os.killpg(group, signal.SIGKILL)


def test_a_stop_ends_a_program() -> None:
    """When tagsync stops, a program that runs is ended, and its message is sent again later."""
    sender = sender_of(sys.executable, "-c", "import time; time.sleep(100)")
    stop = Timer(0.3, sender.stop)
    stop.start()
    with pytest.raises(NotDelivered, match="because tagsync stops"):
        sender.send(message_of(Rule("ops", CommandTarget(())), "db", 1, [event()]), 60)
    stop.join()


def test_a_relative_program_is_refused() -> None:
    """The program is named by its absolute path, because the daemon's folder may be any."""
    with pytest.raises(ConfigError, match="absolute path"):
        check_rule(Rule("ops", CommandTarget(("page",))))
