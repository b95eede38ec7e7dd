"""What SWR, its gateway and its identity service say in JSON, and how they refuse."""

import json
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Final

from tagsync.emulator.http import Answer

TEXT: Final[Mapping[str, str]] = {"Content-Type": "text/plain"}
"""The headers of an answer in plain text."""


class Refusal(Exception):
    """Ends the making of an answer: this one is given instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def encoded(content: object) -> bytes:
    """JSON, as the body of an answer."""
    return json.dumps(content).encode()


def as_json(content: object, headers: Mapping[str, str] | None = None, status: int = 200) -> Answer:
    """An answer in JSON."""
    return Answer(status, encoded(content), headers or {})


def refusal(status: int, code: str, message: str) -> Answer:
    """How the registry refuses."""
    error = {"errorCode": code, "errorMessage": message, "detail": HTTPStatus(status).phrase}
    return as_json({"errors": [error]}, status=status)


def bad_request(message: str) -> Answer:
    """How the registry refuses parameters."""
    return refusal(400, "SVCSTG.SWR.4001072", message)


def gateway(status: int, code: str, message: str) -> Answer:
    """The gateway stands before the registry, and has a form of its own for what it refuses."""
    request_id = sha256(f"{status} {code}".encode()).hexdigest()[:32]
    body = {"error_msg": message, "error_code": code, "request_id": request_id}
    return as_json(body, status=status)


def identity_refusal(status: int, message: str) -> Answer:
    """How the identity service refuses."""
    error = {"code": status, "message": message, "title": HTTPStatus(status).phrase}
    return as_json({"error": error}, status=status)
