"""Hypothesis strategies for unexpected data that a registry might send."""

import json
from typing import Final

from hypothesis import strategies as st

FIELDS: Final = (
    *("Tag", "id", "repo_id", "image_id", "manifest", "digest", "schema", "path", "internal_path"),
    *("size", "is_trusted", "created", "updated", "deleted", "scanned", "tag_type", "domain_id"),
)
"""The keys of a row of SWR's tag list."""

INTEGERS: Final = ("id", "repo_id", "schema", "size", "tag_type")
BOOLEANS: Final = ("is_trusted", "scanned")

AWKWARD: Final = (
    *("", " ", "\0", "a\0b", "\x1b[2J", "\r\n", "\t=1+1", "\u202e", "\u2028", "\ufeff", "\x7f"),
    *("'; DROP TABLE tags; --", "../../etc/passwd", "<script>", "=cmd|' /C calc'!A0", "a" * 5000),
    *("{", "}", '"', "\\", "{'x", "%s", "${HOME}", "\U0010ffff", "\U0001f600", "é", "e\u0301"),
)

TEXTS: Final = st.sampled_from(AWKWARD) | st.text(max_size=20)
"""Texts that a registry can send: any that UTF-8 can encode."""

INT64: Final = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1)

MANIFESTS: Final = st.sampled_from(
    [
        *("{}", "[]", "null", "not json", "{", '{"layers": {}}', '{"layers": [null, 1, "x", []]}'),
        *('{"layers": [{"digest": 1, "size": "x"}]}', '{"layers": [{"size": 1e400}]}'),
        '{"layers": [{"digest": "a", "digest": "b", "size": 99999999999999999999}]}',
        '{"fsLayers": [{"blobSum": null}, {}], "layers": "x"}',
        '{"manifests": [{"platform": {"os": ["x"]}, "digest": {}}, {"platform": 1}]}',
        *('{"config": {"digest": "sha256:a"}}', '{"config": 1, "mediaType": []}', '\0{"layers":'),
        *('{"a":' * 3000, "[" * 100_000, '{"layers": [' + '{"x":' * 990 + "1" + "}" * 990 + "]}"),
        *('{"mediaType": "\\ud800"}', "NaN", '{"layers": [{"digest": "\\u0000", "size": NaN}]}'),
    ]
)

TAGS: Final = st.sampled_from(["v1", "v2", "latest", "_x", "1.0-rc.1", "a" * 128])

DIGESTS: Final = st.sampled_from(
    ["sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha512:" + "c" * 128, "blake3:" + "d" * 64]
)

GOOD_FIELDS: Final = {
    **dict.fromkeys(FIELDS, st.none() | TEXTS),
    **dict.fromkeys(INTEGERS, st.none() | INT64),
    **dict.fromkeys(BOOLEANS, st.none() | st.booleans()),
    "manifest": st.none() | TEXTS | MANIFESTS,
    "digest": DIGESTS | st.none() | st.just("sha256:a") | TEXTS,
    "deleted": st.none() | st.just(""),
}
"""A value of the right type for each field but the name."""

GOOD_ROWS: Final = st.lists(
    st.fixed_dictionaries(
        {"Tag": TAGS | TEXTS.filter(bool)},
        optional={name: values for name, values in GOOD_FIELDS.items() if name != "Tag"},
    ),
    max_size=8,
    unique_by=lambda row: row["Tag"],
)
"""Rows of the right types with unusual values, among them texts that are no tag or no digest."""

_ODD: Final = st.sampled_from(
    [
        *('"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', "1e400", "-0", "-0.0", "1e5", "1.0"),
        *("9223372036854775807", "9223372036854775808", "-9223372036854775808"),
        *("-9223372036854775809", "1" * 400, "NaN", "Infinity", "-Infinity", "[]", "{}", '""'),
        *("true", "false", "null", "[" * 500 + "]" * 500, "[" * 3000, '{"a":' * 500, "'x'", ""),
    ]
)
_FRAGMENTS: Final = (
    _ODD
    | TEXTS.map(json.dumps)
    | st.integers().map(json.dumps)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=5,
    ).map(json.dumps)
)
_KEYS: Final = st.sampled_from([*FIELDS, "Tag", "Tag", "\\u0054ag", "tag", "x"])

_ROWS: Final = st.lists(st.tuples(_KEYS, _FRAGMENTS), max_size=6).map(
    lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"
)
"""Rows as text, so that a key may be repeated and a value may be invalid JSON."""

BODIES: Final = (
    st.binary(max_size=200)
    | st.lists(_ROWS, max_size=4).map(lambda rows: f"[{','.join(rows)}]".encode())
    | GOOD_ROWS.map(lambda rows: json.dumps(rows).encode())
    | _FRAGMENTS.map(lambda text: text.encode())
)
"""Response bodies: random bytes, almost valid ones, and valid ones with unusual values."""

HEADERS: Final = st.lists(
    st.tuples(
        st.sampled_from(
            [b"Retry-After", b"Content-Range", b"Date", b"Location", b"Content-Type", b"X-Other"]
        ),
        st.binary(max_size=40)
        | st.sampled_from(
            [
                *(b"1-2/3", b"0-0/999999999999999999999", b"bytes 0-1/1", b"0-0/-1", b"\xb2-1/1"),
                *(b"Wed, 21 Oct 2015 07:28:00 GMT", b"Fri, 31 Dec 9999 23:59:59 -2300"),
                *(b"Mon, 01 Jan 0001 00:00:00 +2300", b"1e9", b"-1", b"9" * 400, b"\x1b[2J"),
            ]
        ),
    ),
    max_size=4,
)
"""Headers that tagsync reads, with values that may be meaningless."""
