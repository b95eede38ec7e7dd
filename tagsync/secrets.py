"""Secret values, which tagsync must not show or store.

A server may repeat a secret that it received, in any encoding. Every `Secret` is therefore
registered while it exists, and `redact` removes all of them from a server's text. It has to be
called where the text enters a message: after the text was truncated or encoded, a part of a secret
could remain.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from html import unescape
from threading import Lock
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

SHORT: Final = 4
"""A secret with fewer characters is replaced only where it is a whole word, because it also occurs
within ordinary words."""

MIN_IN_DATA: Final = 8
"""A shorter secret is ignored by `contains_secret`, because it may also be the name of a tag."""

_MASK: Final = "***"

_LEVELS: Final = 4
"""How many encodings inside each other are decoded."""

_MAX_REDACTED: Final = 2**16
"""Maximum number of characters of one text that are searched for secrets."""

_MARGIN: Final = 2**15
"""Characters at the end of a longer text that are dropped, because a secret may be cut off there.
A token has a few thousand characters, and an encoding may need six for each of them."""

_ESCAPES: Final = re.compile(
    r"""
      %(?P<percent>[0-9A-Fa-f]{2})
    | \\u(?P<json>[0-9A-Fa-f]{4}) | \\u\{(?P<braced>[0-9A-Fa-f]{1,6})\}
    | \\U(?P<long>[0-9A-Fa-f]{8}) | \\x(?P<repr>[0-9A-Fa-f]{2})
    | \\(?P<octal>[0-3][0-7]{2}) | \\(?P<letter>[abfnrtv0/'"\\])
    | (?P<html>&(?:\#[0-9]{1,7}|\#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});?)
    """,
    re.VERBOSE,
)
"""Encoded characters: percent-encoding, JSON, Python's ``repr``, octal escapes of C, and HTML."""

_LETTERS: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "0": 0}

_IGNORED: Final = re.compile(r"[\s\x00-\x1f\x7f\xad\u200b-\u200f\u2028\u2029\u2060\ufeff]+")
"""Characters that may separate the parts of a secret: a line break, for example."""

_ASCII_IGNORED: Final = bytes([*range(0x21), 0x7F])
_ASCII_SEPARATORS: Final = b"!#$%&'()*+,-./:;<=>?@[]^_{|}~\"\\`"

_BETWEEN_HEX: Final = re.compile(rb"[^0-9a-z]+(?:0x)?|(?<![0-9a-z])0x")
"""Text that may separate bytes in hexadecimal: ``70:61``, ``70-61`` or ``0x70, 0x61``."""

_live: "Final[WeakValueDictionary[int, Secret]]" = WeakValueDictionary()
_lock: Final = Lock()


class Secret:
    """A secret value, which only `reveal` returns.

    ``repr`` and ``str`` return asterisks, so that no log and no crash report can contain the value.
    """

    __slots__ = ("__weakref__", "_hex_needles", "_needles", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._needles: tuple[bytes, ...] | None = None
        self._hex_needles: tuple[bytes, ...] | None = None
        with _lock:
            _live[id(self)] = self

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def reveal(self) -> str:
        """Return the value itself, for the code that sends it to a server."""
        return self._value

    @property
    def needles(self) -> tuple[bytes, ...]:
        """The forms of the secret that are searched for in decoded text, in lower case."""
        if self._needles is None:
            self._needles = tuple(filter(None, dict.fromkeys(_needles_of(self._value))))
        return self._needles

    @property
    def hex_needles(self) -> tuple[bytes, ...]:
        """The secret in hexadecimal, without anything between its bytes, in lower case."""
        if self._hex_needles is None:
            encodings = _encodings_of(self._value) if len(self._value) >= SHORT else ()
            self._hex_needles = tuple(dict.fromkeys(map(binascii.hexlify, encodings)))
        return self._hex_needles


def redact(text: str, secrets: Iterable[Secret] = ()) -> str:
    """Return the text with every secret replaced by asterisks, in whatever form it is written.

    A very long text is truncated.

    Args:
        text: A text of a server, not yet truncated or encoded.
        secrets: Further secrets. All `Secret` objects that exist are replaced in any case.
    """
    known = {secret.reveal(): secret for secret in (*_all_live(), *secrets) if secret.reveal()}
    if not known:
        return text
    end = len(text)
    if end > _MAX_REDACTED:
        text, end = text[:_MAX_REDACTED], _MAX_REDACTED - _MARGIN
    spans: list[tuple[int, int]] = []
    for level in _decoded(text):
        for secret in known.values():
            spans += level.find(secret)
    return _mask(text, end, spans)


def contains_secret(text: str, secrets: Iterable[Secret]) -> bool:
    """Return whether a large text contains a secret of at least `MIN_IN_DATA` characters."""
    known = [each for each in secrets if len(each.reveal()) >= MIN_IN_DATA]
    needles = {needle for each in known for needle in each.needles}
    hex_needles = {needle for each in known for needle in each.hex_needles}
    if not needles:
        return False
    for _ in range(_LEVELS):
        content = _squeeze(text)
        if any(needle in content for needle in needles):
            return True
        content = content.translate(None, _ASCII_SEPARATORS)
        if any(needle in content for needle in hex_needles):
            return True
        if not any(mark in text for mark in "%\\&"):
            return False
        text = _ESCAPES.sub(lambda match: _decode(match).decode("utf-8", "replace"), text)
    return False


def _all_live() -> tuple[Secret, ...]:
    with _lock:
        return tuple(_live.values())


def _squeeze(text: str) -> bytes:
    # Ten times faster than `_IGNORED`, which also removes invisible characters outside of ASCII.
    return text.encode("utf-8", "surrogatepass").lower().translate(None, _ASCII_IGNORED)


def _needles_of(value: str) -> Iterator[bytes]:
    if len(value) < SHORT:
        return
    visible = _IGNORED.sub("", value)
    for raw in _encodings_of(visible):
        yield raw.lower()
    for raw in _encodings_of(value):
        for core in _base64_forms(raw):
            yield core.lower()
            yield core.lower().replace(b"+", b"-").replace(b"/", b"_")


def _encodings_of(value: str) -> Iterator[bytes]:
    """Yield the bytes of a text in each encoding that has all of its characters."""
    for encoding in ("utf-8", "latin-1"):
        with suppress(UnicodeEncodeError):
            yield value.encode(encoding)


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """Return what base64 writes for these bytes after 0, 1 or 2 other bytes.

    Characters that also depend on the bytes before or after them are left out.
    """
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        begin, end = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        if end - begin >= SHORT:
            yield encoded[begin:end]


class _Level(NamedTuple):
    """A text after some decoding, as bytes, and where each byte comes from.

    Attributes:
        content: UTF-8 in lower case, without the characters that may separate a secret's parts.
        words: The same with these characters.
        digits: The content without what may separate bytes in hexadecimal.
        content_spans, word_spans, digit_spans: The begin and end of each byte in the original text.
    """

    content: bytes
    words: bytes
    digits: bytes
    content_spans: list[tuple[int, int]]
    word_spans: list[tuple[int, int]]
    digit_spans: list[tuple[int, int]]

    def find(self, secret: Secret) -> Iterator[tuple[int, int]]:
        """Yield where the original text contains the secret."""
        if len(secret.reveal()) < SHORT:
            word = re.escape(secret.reveal().lower().encode("utf-8", "surrogatepass"))
            for match in re.finditer(
                rb"(?<![\w\x80-\xff])" + word + rb"(?![\w\x80-\xff])", self.words
            ):
                yield self.word_spans[match.start()][0], self.word_spans[match.end() - 1][1]
        yield from _find(self.content, self.content_spans, secret.needles)
        yield from _find(self.digits, self.digit_spans, secret.hex_needles)


def _find(
    content: bytes, spans: list[tuple[int, int]], needles: Iterable[bytes]
) -> Iterator[tuple[int, int]]:
    """Yield where the original text of some bytes contains one of the needles."""
    for needle in needles:
        at = content.find(needle)
        while at >= 0:
            yield spans[at][0], spans[at + len(needle) - 1][1]
            at = content.find(needle, at + 1)


def _decoded(text: str) -> Iterator[_Level]:
    """Yield the text, and then the text after each further level of decoding."""
    spans = [(at, at + 1) for at in range(len(text))]
    for _ in range(_LEVELS):
        yield _level(text, spans)
        if not _ESCAPES.search(text):
            return
        text, spans = _decode_once(text, spans)


def _level(text: str, spans: list[tuple[int, int]]) -> _Level:
    words, word_spans = bytearray(), []
    content, content_spans = bytearray(), []
    for character, span in zip(text, spans, strict=True):
        # A byte of an encoding is in the text as a surrogate, as Python's surrogateescape does it.
        code = ord(character)
        is_byte = 0xDC80 <= code <= 0xDCFF  # noqa: PLR2004  the range of surrogateescape
        raw = bytes([code - 0xDC00]) if is_byte else character.encode("utf-8", "surrogatepass")
        words += raw
        word_spans += [span] * len(raw)
        if not _IGNORED.match(character):
            content += raw
            content_spans += [span] * len(raw)
    lower = bytes(content.lower())
    digits, digit_spans = _without_separators(lower, content_spans)
    return _Level(lower, bytes(words.lower()), digits, content_spans, word_spans, digit_spans)


def _without_separators(
    content: bytes, spans: list[tuple[int, int]]
) -> tuple[bytes, list[tuple[int, int]]]:
    """Return bytes and their spans without what may separate bytes in hexadecimal."""
    kept, kept_spans = bytearray(), []
    done = 0
    for match in _BETWEEN_HEX.finditer(content):
        kept += content[done : match.start()]
        kept_spans += spans[done : match.start()]
        done = match.end()
    return bytes(kept + content[done:]), kept_spans + spans[done:]


def _decode_once(text: str, spans: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """Return the text with each encoded character decoded once, and where each comes from."""
    parts: list[str] = []
    found: list[tuple[int, int]] = []
    done = 0
    for match in _ESCAPES.finditer(text):
        parts.append(text[done : match.start()])
        found += spans[done : match.start()]
        decoded = _decode(match).decode("utf-8", "surrogateescape")
        parts.append(decoded)
        found += [(spans[match.start()][0], spans[match.end() - 1][1])] * len(decoded)
        done = match.end()
    parts.append(text[done:])
    return "".join(parts), found + spans[done:]


def _decode(match: re.Match[str]) -> bytes:
    """Return the bytes of an encoded character. A byte of percent-encoding may be a part of one."""
    kind, value = match.lastgroup, match[match.lastgroup or 0]
    if kind in {"percent", "repr"}:
        return bytes([int(value, 16)])
    if kind == "letter":
        return bytes([_LETTERS[value]]) if value in _LETTERS else value.encode()
    if kind == "html":
        return unescape(value).encode("utf-8", "replace")
    if kind == "octal":
        return bytes([int(value, 8)])
    code = int(value, 16)
    return chr(code).encode("utf-8", "replace") if code <= 0x10FFFF else b"?"  # noqa: PLR2004  Unicode's last


def _mask(text: str, end: int, spans: list[tuple[int, int]]) -> str:
    """Return the text up to an index, with each span replaced by asterisks."""
    parts: list[str] = []
    done = 0
    covered = 0
    for begin, stop in sorted(spans):
        if begin >= end:
            break
        if begin >= covered:
            parts += [text[done:begin], _MASK]
        done = covered = max(covered, stop)
    return "".join([*parts, text[done:end]])
