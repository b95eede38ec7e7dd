"""Listings of SWR: rows, bodies, and anything else that a server may send."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.emulator import Emulator
from tagsync.errors import (
    MalformedResponse,
    RegistryError,
)
from tagsync.models import Tag
from tests.support.swr import (
    Row,
    ask,
    ask_emulator,
    in_order,
    listing,
    response,
    rows_of,
    sends,
    sentence_of,
)


@pytest.mark.parametrize("name", ["library/busybox", "a/b/c", "odd name/with+%/#?"])
def test_slash_in_a_name_is_a_dollar_sign(name: str) -> None:
    """A slash in a repository's name is sent as ``$``; everything else is quoted."""
    with Emulator() as emulator:
        emulator.push(f"team/{name}", "v1", "content")
        assert listing(ask_emulator(emulator, repository=f"team/{name}")).tags.keys() == {"v1"}
    assert emulator.requests[0].path.count("/") == 7
    assert name.count("/") == emulator.requests[0].path.count("$")


# Rows.

DIGEST = "sha256:" + "1" * 64

FULL: Row = {
    "id": 5,
    "repo_id": 6,
    "Tag": "v1",
    "image_id": "c0",
    "manifest": "{}",
    "digest": DIGEST,
    "schema": 2,
    "path": "swr.example.com/team/api:v1",
    "internal_path": "10.0.0.1:20202/team/api:v1",
    "size": 2**63 - 1,
    "is_trusted": True,
    "created": "2018-07-06T06:18:55Z",
    "updated": "2024-01-01T00:00:00.123456789+08:00",
    "deleted": None,
    "scanned": True,
    "tag_type": 1,
    "domain_id": "d0",
}


def test_all_fields_are_read() -> None:
    """Each field of a row is stored as it was sent."""
    found = listing(ask(sends(json.dumps([{**FULL, "novelty": [1]}]))))
    assert found.tags["v1"] == Tag(
        tag="v1",
        digest=DIGEST,
        image_id="c0",
        schema=2,
        size=2**63 - 1,
        path="swr.example.com/team/api:v1",
        internal_path="10.0.0.1:20202/team/api:v1",
        is_trusted=True,
        tag_type=1,
        scanned=True,
        registry_id=5,
        registry_repo_id=6,
        domain_id="d0",
        created="2018-07-06T06:18:55Z",
        updated="2024-01-01T00:00:00.123456789+08:00",
    )
    image = found.images[DIGEST]
    assert (image.image_id, image.schema, image.size, image.manifest) == ("c0", 2, 2**63 - 1, "{}")


@pytest.mark.parametrize("row", [{"Tag": "v1"}, {**dict.fromkeys(FULL), "Tag": "v1"}])
def test_only_the_name_is_required(row: Row) -> None:
    """A field is None if its key is missing or JSON's null."""
    found = listing(ask(sends(json.dumps([row]))))
    assert found.tags == {"v1": Tag("v1")}
    assert found.images == {}


@pytest.mark.parametrize("key", sorted(FULL.keys() - {"Tag"}))
def test_any_other_key_may_be_null(key: str) -> None:
    """A row may have JSON's null for any other key."""
    assert listing(ask(sends(json.dumps([{**FULL, key: None}])))).tags.keys() == {"v1"}


@pytest.mark.parametrize(
    "bad",
    [
        *(None, "", "x", " ", "sha256:1", "md5:1", "1" * 64, DIGEST + "0", f" {DIGEST}"),
        *(f"{DIGEST}\n", f"api@{DIGEST}", DIGEST.upper(), "SHA256:" + "1" * 64),
        *("sha256:" + "A" * 64, "sha512:" + "1" * 64),
    ],
)
def test_text_that_is_no_digest_costs_its_tag(bad: str | None) -> None:
    """A tag without a valid digest is listed unresolved and named; the others keep theirs."""
    found = listing(ask(sends(json.dumps([FULL, {"Tag": "v2", "digest": bad}]))))
    assert {name: tag.digest for name, tag in found.tags.items()} == {"v1": DIGEST, "v2": None}
    assert found.images.keys() == {DIGEST}
    assert found.failed.keys() == {"v2"}
    assert "digest" in found.failed["v2"]


@pytest.mark.parametrize(
    "good", ["sha512:" + "a" * 128, "blake3:" + "0" * 64, "sha384:" + "f" * 96]
)
def test_digest_of_another_algorithm_is_recorded(good: str) -> None:
    """A digest by an algorithm that tagsync cannot compute is recorded without verification."""
    found = listing(ask(sends(json.dumps([{"Tag": "v1", "digest": good}]))))
    assert found.tags["v1"].digest == good
    assert not found.failed


def test_list_without_a_valid_digest_is_an_error() -> None:
    """If none of the texts is a digest, the poll fails. A list without any digests does not."""
    rows = [{"Tag": f"v{number}", "digest": f"{number:064}"} for number in range(3)]
    with pytest.raises(MalformedResponse, match="without a valid digest"):
        ask(sends(json.dumps([*rows, {"Tag": "v9"}])))
    assert len(listing(ask(sends(json.dumps([{"Tag": "v1"}, {"Tag": "v2"}])))).failed) == 2


@pytest.mark.parametrize("bad", [" ", "a b", "v1\n", "../x", DIGEST, "-v", ".v", "é", "v" * 129])
def test_name_that_cannot_be_a_tag_is_left_out(bad: str) -> None:
    """A name that no tag can have is left out and named; the other tags are listed."""
    found = listing(ask(sends(json.dumps([FULL, {**FULL, "Tag": bad, "size": "x"}]))))
    assert found.tags.keys() == {"v1"}
    assert found.bad_names == (bad,)
    assert not found.bad_fields


def test_tags_share_an_image() -> None:
    """Two tags with one digest share an image."""
    found = listing(ask(sends(json.dumps([FULL, {**FULL, "Tag": "v2"}]))))
    assert found.tags.keys() == {"v1", "v2"}
    assert found.images.keys() == {DIGEST}


def test_deleted_rows_are_ignored() -> None:
    """A row with a deletion time is ignored, also beside a row of the same name."""
    gone = {**FULL, "deleted": "2024-01-01T00:00:00Z"}
    assert listing(ask(sends(json.dumps([gone, {"Tag": "v1"}])))).tags == {"v1": Tag("v1")}
    assert listing(ask(sends(json.dumps([gone])))).tags == {}


@pytest.mark.parametrize("body", ["null", "[]", " [ ] \n"])
def test_empty_repository_is_a_listing(body: str) -> None:
    """A repository without tags is a complete listing, in both of its forms."""
    found = listing(ask(sends(body)))
    assert found.tags == {}
    assert found.exists
    assert (found.requests, found.pages, found.size) == (1, 1, len(body))


# Fields of another type than documented.


@pytest.mark.parametrize("value", ["text", 7, 2**63, 1.5, 1e3, True, [], {}, {"a": [None]}])
@pytest.mark.parametrize("field", sorted(FULL.keys() - {"Tag", "digest", "deleted"}))
def test_bad_field_costs_that_field(field: str, value: object) -> None:
    """A field of another type is None, and named; the rest of the listing is as sent."""
    row, other = {**FULL, field: value}, {**FULL, "Tag": "v2"}
    found = listing(ask(sends(json.dumps([row, other]))))
    if not found.bad_fields:
        assert isinstance(value, type(FULL[field]) if field != "manifest" else str)
        return
    assert found.bad_fields == {"v1": (field,)}
    expected = listing(ask(sends(json.dumps([{**FULL, field: None}, other]))))
    assert found.tags == expected.tags
    assert found.tags["v2"] == listing(ask(sends(json.dumps([other])))).tags["v2"]


def test_number_of_5000_digits_costs_its_field() -> None:
    """A number that no decoder can represent is a bad field, too."""
    found = listing(ask(sends(b'[{"Tag": "v1", "id": ' + b"1" * 5000 + b', "size": 3}]')))
    assert found.tags == {"v1": Tag("v1", size=3)}
    assert found.bad_fields == {"v1": ("id",)}


def test_zero_time_is_not_a_deletion() -> None:
    """The zero time of Go, in which SWR is written, means that a row has no time of deletion."""
    row = {**FULL, "deleted": "0001-01-01T00:00:00Z"}
    assert listing(ask(sends(json.dumps([row])))).tags.keys() == {FULL["Tag"]}


@pytest.mark.parametrize(("deleted", "is_there"), [(False, True), (True, False)])
def test_deletion_may_be_true_or_false(deleted: bool, is_there: bool) -> None:
    """Instead of a time of deletion, a row may say only whether its tag is deleted."""
    rows = [{**FULL, "deleted": deleted}, {"Tag": "v2"}]
    found = listing(ask(sends(json.dumps(rows))))
    assert found.tags.keys() == ({FULL["Tag"], "v2"} if is_there else {"v2"})
    assert not found.bad_fields


def test_bad_field_of_a_deleted_tag_is_not_named() -> None:
    """A row of a deleted tag is ignored, whatever its other fields are."""
    found = listing(ask(sends(json.dumps([{**FULL, "deleted": "2024", "size": "x"}]))))
    assert (found.tags, found.bad_fields) == ({}, {})


# Digests.


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("text", ["{}", '{"schemaVersion": 2}'])
def test_manifest_is_verified_by_the_algorithm_of_its_digest(algorithm: str, text: str) -> None:
    """A manifest is checked by SHA-256 or SHA-512, as its digest says."""
    digest = f"{algorithm}:{hashlib.new(algorithm, text.encode()).hexdigest()}"
    found = listing(ask(sends(json.dumps([{"Tag": "v1", "digest": digest, "manifest": text}]))))
    assert found.images[digest].verified is True
    assert found.unverified == ()
    row = {"Tag": "v1", "digest": digest, "manifest": text + " "}
    assert listing(ask(sends(json.dumps([row])))).unverified == ("v1",)


# Bodies that are not a list of tags.

MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "HTML": b"<html><body>502 Bad Gateway</body></html>",
    "truncated": json.dumps([FULL, FULL]).encode()[:-1],
    "truncated in a row": json.dumps([FULL]).encode()[:40],
    "two values": b"[][]",
    "not UTF-8": b'[{"Tag": "\xff"}]',
    "a lone surrogate": rb'[{"Tag": "\ud800"}]',
    "deeply nested": b"[" * 200_000,
    "deeply nested in a row": b'[{"Tag": "v1", "x": ' + b"[" * 200_000,
    "an object": b"{}",
    "an error with 200": b'{"errors": [{"errorCode": "SVCSTG.SWR.5000000"}]}',
    "a number": b"7",
    "a text": b'"v1"',
    "a list of lists": b"[[]]",
    "a list of names": b'["v1"]',
    "a list of null": b"[null]",
    "no name": b'[{"digest": "sha256:1"}]',
    "the name of sibling calls": b'[{"tag": "v1"}]',
    "a null name": b'[{"Tag": null}]',
    "a numeric name": b'[{"Tag": 1}]',
    "an empty name": b'[{"Tag": ""}]',
    "a numeric digest": b'[{"Tag": "v1", "digest": 1}]',
    "two rows of one name": b'[{"Tag": "v1"}, {"Tag": "v1"}]',
    "a numeric deletion": b'[{"Tag": "v1", "deleted": 1}]',
    "a numeric digest beside a bad field": b'[{"Tag": "v1", "id": "7", "digest": 1}]',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_other_bodies_are_errors(body: bytes) -> None:
    """A body that is not a list of tags is an error in one sentence."""
    with pytest.raises(MalformedResponse) as caught:
        ask(sends(body))
    assert "/repos/api/tags" in sentence_of(caught.value)
    assert len(str(caught.value)) < 500


def test_malformed_later_page_fails_the_poll() -> None:
    """A malformed later page fails the poll, although the first one is valid."""
    handler, _ = in_order(response(rows_of(range(100)), 150), response({}, 150))
    with pytest.raises(MalformedResponse):
        ask(handler)


# Arbitrary answers.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)

OTHERS = sorted(FULL.keys() - {"Tag"})

ROWS = st.lists(
    st.dictionaries(st.sampled_from(sorted(FULL)), JSON)
    | st.fixed_dictionaries({"Tag": st.text(max_size=3)}, optional=dict.fromkeys(OTHERS, JSON)),
    max_size=5,
)

ERRORS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["errors", "errorCode", "error_code", "errorMessage"], JSON)
)

BODIES = st.binary() | (JSON | ROWS | ERRORS).map(lambda value: json.dumps(value).encode())


@given(body=BODIES)
def test_any_body_is_a_listing_or_an_error(body: bytes) -> None:
    """Any body is either a listing or a RegistryError in one sentence."""
    try:
        found = ask(sends(body))
    except RegistryError as error:
        sentence_of(error)
    else:
        assert set(listing(found).tags) <= {row.get("Tag") for row in json.loads(body) or []}


@given(body=BODIES, status=st.integers(201, 599))
def test_any_other_status_is_an_error(body: bytes, status: int) -> None:
    """No answer with another status than 200 is a listing."""
    with pytest.raises(RegistryError) as caught:
        ask(sends(body, status))
    assert str(status) in sentence_of(caught.value)
