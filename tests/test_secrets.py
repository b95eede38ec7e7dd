"""Secrets in the texts of servers, in every encoding that a server may choose."""

import base64
import html
import json
from collections.abc import Callable
from time import perf_counter
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.escaping import truncate
from tagsync.secrets import Secret, contains_secret, redact

VALUE = 'Made-up "S3cret" \\ & <100%>/é+'
SECRET = Secret(VALUE)
TOKEN = Secret("MadeUpTokenABCDEFGH12345")
PLAIN = TOKEN.reveal()

FORMS = {
    "plain": VALUE,
    "upper case": VALUE.upper().replace("É", "é"),
    "percent": quote(VALUE, safe=""),
    "percent in lower case": quote(VALUE, safe="").lower(),
    "percent of all": "".join(f"%{byte:02X}" for byte in VALUE.encode()),
    "percent twice": quote(quote(VALUE)),
    "json": json.dumps(VALUE),
    "json in utf-8": json.dumps(VALUE, ensure_ascii=False),
    "json twice": json.dumps(json.dumps(VALUE)),
    "json of all": "".join(f"\\u{ord(character):04x}" for character in VALUE),
    "repr": repr(VALUE),
    "repr of bytes": repr(VALUE.encode()),
    "repr of latin-1": repr(VALUE.encode("latin-1")),
    "html": html.escape(VALUE),
    "html of all": "".join(f"&#{ord(character)};" for character in VALUE),
    "html in hexadecimal": "".join(f"&#x{ord(character):X};" for character in VALUE),
    "octal": "".join(f"\\{byte:03o}" for byte in VALUE.encode()),
    "hexadecimal": VALUE.encode().hex(),
    "hexadecimal in upper case": VALUE.encode().hex().upper(),
    "hexadecimal with colons": VALUE.encode().hex(":").upper(),
    "hexadecimal with spaces": VALUE.encode().hex(" "),
    "hexadecimal in groups": VALUE.encode().hex("-", 4),
    "hexadecimal in lines": VALUE.encode().hex("\n", 8),
    "hexadecimal of a program": ", 0x".join(f"{byte:02X}" for byte in VALUE.encode()),
    "hexadecimal of latin-1": VALUE.encode("latin-1").hex("."),
    "broken lines": "\n".join(VALUE),
    "broken lines in json": json.dumps("\r\n ".join(VALUE)),
    "zero width": "\u200b".join(VALUE),
    "utf-16": VALUE.encode("utf-16-le").decode("latin-1"),
}


def is_masked(text: str, *others: str) -> bool:
    """Return whether nothing is left of a secret but asterisks, and of its surroundings."""
    rest = redact(f"before {text} after")
    for other in ("before", "after", "***", *others):
        rest = rest.replace(other, "", 1)
    return not rest.strip(" \0\"'b\\")


@pytest.mark.parametrize("form", FORMS)
def test_encoded_secret_is_redacted(form: str) -> None:
    """A secret is replaced in each encoding, and its surroundings are not."""
    assert is_masked(FORMS[form]), redact(FORMS[form])


def in_hexadecimal(text: str) -> str:
    return text.encode().hex("-")


@pytest.mark.parametrize(
    "encode", [str, str.upper, quote, json.dumps, html.escape, "\n".join, in_hexadecimal]
)
def test_encoded_secret_in_data_is_found(encode: Callable[[str], str]) -> None:
    """A secret in data is found in plain text and in the usual encodings."""
    secret = Secret('made-up <"secret">')
    assert contains_secret(json.dumps(["v1", encode(secret.reveal())]), [secret])
    assert not contains_secret(json.dumps(["v1", encode("made-up")]), [secret])


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
@pytest.mark.parametrize("after", ["", "z", "yz"])
def test_base64_of_a_secret_is_redacted(before: str, after: str) -> None:
    """A secret is found in base64, wherever it begins in the encoded text."""
    raw = (before + VALUE + after).encode()
    for encoded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw), base64.encodebytes(raw)):
        shown = redact(encoded.decode())
        assert "***" in shown
        assert len(shown.strip()) <= 3 + 12


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=20))
def test_any_secret_is_redacted(value: str) -> None:
    """No secret is left in plain text, percent-encoding, JSON, repr or HTML."""
    secret = Secret(value)
    for text in (value, quote(value), quote_plus(value), json.dumps(value), html.escape(value)):
        shown = redact(f"<{text}>", [secret])
        if not value.isspace() and len("".join(value.split())) >= 4:
            assert value not in shown


def test_parts_of_a_secret_do_not_remain() -> None:
    """A text is redacted before it is truncated."""
    for spaces in (0, 290, 295, 299, 70_000):
        shown = truncate("x" * min(spaces, 299) + " " * spaces + PLAIN)
        assert PLAIN[:4] not in shown
    for spaces in range(2**16 - len(PLAIN), 2**16):
        assert PLAIN[:4] not in truncate(" " * spaces + PLAIN)
    shown = truncate((PLAIN + " ") * 10_000 + PLAIN[:-1])
    assert PLAIN[:4] not in shown


@pytest.mark.parametrize("value", ["a", "pw", "abc", "é1"])
def test_short_secret_is_a_whole_word(value: str) -> None:
    """A secret of fewer than four characters is replaced only as a whole word."""
    secret = Secret(value)
    assert redact(f"x {value}, {value.upper() if value.isascii() else value}!", [secret]) == (
        "x ***, ***!"
    )
    assert redact(f"x{value} {value}x _{value}", [secret]) == f"x{value} {value}x _{value}"


def test_secret_is_forgotten_with_its_object() -> None:
    """A secret is redacted while it exists, and no longer."""
    text = "another made-up password"
    secret = Secret("made-up password")
    assert redact(text) == "another ***"
    del secret
    assert redact(text) == text


def test_equal_secrets_are_independent() -> None:
    """A secret is redacted as long as one of several equal objects exists."""
    first, second = Secret("twice-made-up"), Secret("twice-made-up")
    del first
    assert redact(second.reveal()) == "***"


def test_empty_secret_changes_nothing() -> None:
    """An empty secret is not replaced between all characters."""
    assert redact("text", [Secret(""), Secret(" \n ")]) == "text"


def test_overlapping_secrets_are_replaced_together() -> None:
    """If one secret contains a part of another one, nothing of either remains."""
    secrets = [Secret("first-second"), Secret("second-third"), Secret("first-second-third-last")]
    assert redact("a first-second-third b", secrets) == "a *** b"


def test_secret_in_data_has_eight_characters() -> None:
    """A weak password, which may also be the name of a tag, does not stop a poll."""
    assert not contains_secret('["latest"]', [Secret("latest")])
    assert contains_secret('["MADEUPTOKENabcdefgh12345"]', [TOKEN])


def test_redaction_is_fast() -> None:
    """A hostile text does not occupy a thread for long."""
    secrets = [Secret(f"made-up-token-{number:020}") for number in range(300)]
    began = perf_counter()
    for text in ("%25" * 10**5, "\\u0041" * 10**5, "&" * 10**6, "made-up-token-" * 10**5):
        redact(text, secrets)
    assert perf_counter() - began < 5
