"""Apprise: mail through a real SMTP server, failures without secrets, texts without markup."""

import email
import email.policy
import logging
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tagsync.errors import ConfigError, NotDelivered
from tagsync.notify.apprise import AppriseSender, redact_url
from tagsync.notify.messages import message_of
from tagsync.notify.senders import check_rule, send_test
from tagsync.notify.targets import AppriseTarget, Rule
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.events import NEW, OLD, event
from tests.support.processes import free_port
from tests.support.receiver import Answer, receiving

pytestmark = pytest.mark.processes


class Mailbox:
    """The mails that a server has accepted, and what it answers."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.answer = "250 OK"
        self.port = 0

    async def handle_DATA(  # noqa: N802  the server looks for this name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
        return self.answer

    @property
    def url(self) -> str:
        return (
            f"mailto://127.0.0.1:{self.port}?from=tagsync@example.com&to=ops@example.com"
            "&mode=insecure"
        )


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    mailbox.port = free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=mailbox.port)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


def sender_of(url: str) -> tuple[Rule, AppriseSender]:
    rule = Rule("ops", AppriseTarget(Secret(url)))
    assert isinstance(rule.target, AppriseTarget)
    return rule, AppriseSender(rule, rule.target)


def send(url: str, tag: str = "prod", subject: str | None = None) -> str:
    target = AppriseTarget(Secret(url))
    rule = Rule("ops", target, subject=subject)
    return AppriseSender(rule, target).send(message_of(rule, "db", 1, [event(tag=tag)]), 20)


def text_of(mail: EmailMessage) -> str:
    return "\n".join(
        part.get_content() for part in mail.walk() if part.get_content_maintype() == "text"
    )


def test_a_mail_says_what_was_there_before(mailbox: Mailbox) -> None:
    """A move arrives as a mail with both digests."""
    send(mailbox.url)
    (mail,) = mailbox.mails
    assert mail["Subject"] == "swr/team/app:prod moved"
    assert OLD in text_of(mail)
    assert NEW in text_of(mail)


def test_a_name_adds_no_header_and_no_markup(mailbox: Mailbox) -> None:
    """A hostile name neither adds a header to a mail nor becomes HTML in it."""
    send(mailbox.url, tag="a\r\nBcc: victim@example.com\r\n\r\n<script>x</script>")
    (mail,) = mailbox.mails
    assert "Bcc" not in mail
    assert "\n" not in mail["Subject"]
    assert "<script" not in text_of(mail)


def test_a_mail_that_is_refused_is_a_failure(mailbox: Mailbox) -> None:
    """If the server refuses a mail, the message is not delivered."""
    mailbox.answer = "451 try again later"
    with pytest.raises(NotDelivered, match="did not accept the message"):
        send(mailbox.url)


def test_a_test_mail_is_recognizable(mailbox: Mailbox) -> None:
    """The mail of `notify test` says that it is a test."""
    rule = Rule("ops", AppriseTarget(Secret(mailbox.url)))
    assert send_test(rule, "db", FakeClock().now).accepted
    assert mailbox.mails[0]["Subject"].startswith("Test: ")


def test_a_failure_shows_no_part_of_the_url(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither the error nor standard error has a secret of the URL, whatever Apprise logs."""
    with receiving(Answer(500, body="{path}")) as receiver:
        address = receiver.url.partition("://")[2].partition("/")[0]
        url = f"json://user:PASS-PART@{address}/hooks/T0KEN-PART?format=text&+X-Key=HEADER-PART"
        with pytest.raises(NotDelivered) as raised:
            send(url)
    shown = str(raised.value) + "".join(capfd.readouterr())
    assert receiver.received
    for part in ("PASS-PART", "T0KEN-PART", "HEADER-PART"):
        assert part not in shown


@pytest.mark.parametrize(
    "part", ["us%65r-part", "user-part", "PASS-PART", "T0KEN-PART", "HEADER-PART", "QUERY-PART"]
)
def test_a_text_shows_no_part_of_the_url(part: str) -> None:
    """Whatever Apprise quotes of a URL is removed, as it is written and decoded."""
    url = "json://us%65r-part:PASS-PART@example.com/a/T0KEN-PART?+X=HEADER-PART&key=QUERY-PART"
    assert part not in redact_url(f"could not reach {part} at {url}", Secret(url))


def test_paragraphs_of_a_mail_stay_apart(mailbox: Mailbox) -> None:
    """The text is converted for services that show HTML, so that its lines remain lines."""
    rule, sender = sender_of(f"{mailbox.url}&format=html")
    sender.send(message_of(rule, "db", 1, [event(number=1), event(number=2)]), 20)
    pages = [part for part in mailbox.mails[0].walk() if part.get_content_subtype() == "html"]
    assert all("<br" in page.get_content() for page in pages)
    assert pages


def test_redirects_are_not_followed() -> None:
    """A service cannot lead a message to another host."""
    with receiving() as elsewhere, receiving(Answer(307, {"Location": elsewhere.url})) as receiver:
        address = receiver.url.partition("://")[2].partition("/")[0]
        with pytest.raises(NotDelivered):
            send(f"json://{address}/")
        assert receiver.received
        assert not elsewhere.received


@pytest.mark.parametrize(
    "url", ["SECRET", "nosuch://SECRET", "file:///etc/passwd", "config://SECRET", "mailto://"]
)
def test_unknown_urls_are_refused(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Only notification URLs are accepted, and a refusal does not quote them."""
    with pytest.raises(ConfigError, match="not a notification URL") as raised:
        check_rule(Rule("ops", AppriseTarget(Secret(url))))
    assert "SECRET" not in str(raised.value) + "".join(capfd.readouterr())


def test_a_missing_extra_is_named() -> None:
    """Without Apprise the sentence names the extra to install."""
    code = (
        "import sys; sys.modules['apprise'] = None\n"
        "from tagsync.notify.apprise import open_service\n"
        "from tagsync.secrets import Secret\n"
        "open_service(Secret('mailto://example.com'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ConfigError: kind apprise needs the package apprise: install tagsync[apprise]" in (
        done.stderr
    )


def test_the_log_of_apprise_goes_nowhere() -> None:
    """Apprise's logger has its own handler, and passes no line on to others."""
    sender_of("json://localhost")
    logger = logging.getLogger("apprise")
    assert not logger.propagate
    assert logger.handlers
