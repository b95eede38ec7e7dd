"""Services that the library Apprise knows, such as mail and chats.

Apprise is optional and takes half a second to import, so this module imports it only when a
destination needs it.
"""

import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from tagsync.errors import ConfigError, NotDelivered
from tagsync.notify.messages import Message, text_for_people
from tagsync.notify.sender import one_line
from tagsync.notify.targets import AppriseTarget, Rule
from tagsync.secrets import Secret, redact

if TYPE_CHECKING:
    from apprise import Apprise

_LEAST_SECRET: Final = 4
"""A shorter part of a URL is also an ordinary word of a log line."""


class AppriseSender:
    """Sends messages to the service of a rule."""

    sums_up = True

    def __init__(self, rule: Rule, target: AppriseTarget) -> None:
        """Prepare the service. Nothing is sent.

        Raises:
            ConfigError: If Apprise is not installed, or does not know the URL.
        """
        self._rule: Final = rule
        self._url: Final = target.url
        self._service: Final = open_service(target.url)

    def send(self, message: Message, seconds: float) -> str:
        """Send a message; see `tagsync.notify.sender.Sender`."""
        subject, text = text_for_people(self._rule, message)
        try:
            # "text" makes Apprise escape the text for services that show HTML.
            with self._service.notify(
                body=text, title=subject, body_format="text", timeout=seconds
            ) as result:
                lines = [entry.message for entry in result.logs()]
                accepted = bool(result)
        except Exception as error:  # noqa: BLE001  a plugin of Apprise may raise anything
            raise NotDelivered(f"the service failed: {self._redact(str(error))}") from None
        said = self._redact(" ".join(lines))
        if not accepted:
            raise NotDelivered(f"the service did not accept the message: {said or 'no reason'}")
        return said or "accepted"

    def stop(self) -> None:
        """Do nothing: Apprise ends by its timeout, and its message is sent again."""

    def close(self) -> None:
        """Do nothing: Apprise keeps no connection."""

    def _redact(self, text: str) -> str:
        return redact_url(text, self._url)


def redact_url(text: str, url: Secret) -> str:
    """Return a text of Apprise on one line, without any part of a URL that may be secret."""
    # These secrets exist only here, because a part of a URL may be an ordinary word elsewhere.
    secrets = [Secret(part) for part in _parts(url.reveal())]
    return one_line(redact(text, secrets))


def open_service(url: Secret) -> "Apprise":
    """Return the service of a URL.

    Raises:
        ConfigError: If Apprise is not installed, or does not know the URL.
    """
    try:
        import apprise  # noqa: PLC0415  optional, and slow to import
    except ImportError:
        raise ConfigError(
            "kind apprise needs the package apprise: install tagsync[apprise]"
        ) from None
    # Otherwise the last resort of `logging` writes Apprise's lines, with URLs, to standard error.
    logger = logging.getLogger("apprise")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    asset = apprise.AppriseAsset(**_asset())
    service = apprise.Apprise.instantiate(url.reveal(), asset=asset)
    if service is None:
        raise ConfigError(
            "url is not a notification URL that Apprise can use: see its documentation of the"
            " service"
        )
    services = apprise.Apprise(asset=asset)
    services.add(service)
    return services


def _asset() -> dict[str, Any]:
    return {
        "app_id": "tagsync",
        "app_desc": "tagsync",
        "async_mode": False,
        # A service must not lead a message to another host.
        "http_redirects": False,
        "secure_logging": True,
    }


def _parts(url: str) -> list[str]:
    """Return the parts of a URL that may be secret, also decoded."""
    split = urlsplit(url)
    found = [url, url.partition("://")[2], split.netloc, split.path, split.query]
    found += split.netloc.replace("@", ":").split(":")
    found += split.path.split("/")
    found += [value for pair in split.query.split("&") for value in pair.split("=")[1:]]
    decoded = [unquote(part) for part in found]
    return [part for part in dict.fromkeys(found + decoded) if len(part) >= _LEAST_SECRET]
