"""Signatures of webhooks, by the scheme of Standard Webhooks 1.0."""

import base64
import binascii
import hmac
from datetime import datetime
from typing import Final

from tagsync.errors import ConfigError
from tagsync.secrets import Secret

_PREFIX: Final = "whsec_"
_SIZES: Final = range(24, 65)
"""Sizes of a key in bytes, as Standard Webhooks limits them."""


def decode_key(key: Secret) -> bytes:
    """Return the bytes of a signing key.

    Raises:
        ConfigError: If it is not ``whsec_`` and 24 to 64 bytes in base64. The error does not quote
            it.
    """
    try:
        decoded = base64.b64decode(key.reveal().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) not in _SIZES:
        raise ConfigError(
            "signing_key is not a key of Standard Webhooks: write whsec_ followed by 24 to 64"
            " random bytes in base64, such as the output of openssl rand -base64 32"
        )
    return decoded


def signed_headers(key: bytes | None, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of one attempt to send a message.

    Args:
        key: The signing key. None for headers without a signature.
        message_id: The same in every attempt.
        at: The time of the attempt. Receivers refuse old ones.
        body: The bytes that are sent.
    """
    seconds = str(int(at.timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": seconds}
    if key is not None:
        content = b".".join((message_id.encode(), seconds.encode(), body))
        signature = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
        headers["webhook-signature"] = f"v1,{signature}"
    return headers
