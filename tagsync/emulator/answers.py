"""JSON answers and errors of SWR, its gateway and its identity service."""

import json
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Final

from tagsync.emulator.http import Answer

TEXT: Final[Mapping[str, str]] = {"Content-Type": "text/plain"}
"""The headers of an answer in plain text."""


class Refusal(Exception):
    """An exception that makes the server send ``answer`` as the answer to a request."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def encode_json(content: object) -> bytes:
    """Return the content as JSON."""
    return json.dumps(content).encode()


def json_answer(
    content: object, headers: Mapping[str, str] | None = None, status: int = 200
) -> Answer:
    """Return an answer whose body is the content as JSON."""
    return Answer(status, encode_json(content), headers or {})


def registry_error(status: int, code: str, message: str) -> Answer:
    """Return an error in the format of the registry."""
    error = {"errorCode": code, "errorMessage": message, "detail": HTTPStatus(status).phrase}
    return json_answer({"errors": [error]}, status=status)


def bad_request(message: str) -> Answer:
    """Return the error that the registry sends for wrong parameters."""
    return registry_error(400, "SVCSTG.SWR.4001072", message)


def gateway_error(status: int, code: str, message: str) -> Answer:
    """Return an error in the format of the gateway in front of the registry."""
    request_id = sha256(f"{status} {code}".encode()).hexdigest()[:32]
    body = {"error_msg": message, "error_code": code, "request_id": request_id}
    return json_answer(body, status=status)


def identity_error(status: int, message: str) -> Answer:
    """Return an error in the format of the identity service."""
    error = {"code": status, "message": message, "title": HTTPStatus(status).phrase}
    return json_answer({"error": error}, status=status)
