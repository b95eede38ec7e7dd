"""Descriptions of all tables, views and columns, as Datasette's metadata."""

from typing import Any, Final

from tagsync.audit.questions import QUESTIONS

_REPOSITORY: Final = "registry/namespace/name"
_REPOSITORY_ID: Final = "repositories.id"
_NUMBER: Final = "number of the row"
_NOT_BEFORE: Final = (
    "the change happened after this time; null: the tag was there when the repository was first"
    " listed"
)
_FIRST_OBSERVED_AT: Final = "end of the first listing that contained it"

_TAG: Final = {
    "tag": "name of the tag",
    "digest": "digest that the tag points to; null if it is listed and was not resolved",
    "image_id": "digest of the image's configuration",
    "schema": "version of the manifest format, 1 or 2",
    "size": "bytes, as the registry states it",
    "path": "the registry's external address of the tag",
    "internal_path": "the registry's internal address of the tag",
    "is_trusted": "1 if the registry says that the image is signed",
    "tag_type": "0: a manifest; 1: a list of manifests",
    "scanned": "1 if the registry says that the image was scanned",
    "registry_id": "the registry's own id of the row",
    "registry_repo_id": "the registry's own id of the repository",
    "domain_id": "account that owns the tag",
    "created": "time of creation, as the registry states it",
    "updated": "time of the last push, as the registry states it",
    "first_observed_at": f"{_FIRST_OBSERVED_AT} since it was last deleted",
    "changed_at": "observed_at of its last change",
}
_CHANGE: Final = {
    "id": "1, 2, 3 … without gaps",
    "tag": "name of the tag",
    "kind": "added, updated or deleted",
    "old_digest": "digest before the change",
    "new_digest": "digest after the change",
    "fields": "JSON of the fields that differ: name → [old, new]",
    "not_before": _NOT_BEFORE,
    "observed_at": "the change happened no later than this time",
    "hash": "SHA-256 of this change and of the hash before it",
}

_DESCRIPTIONS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "repositories": (
        "The repositories that are or were watched, and their last poll.",
        {
            "id": _NUMBER,
            "registry": "the registry's name in the configuration",
            "name": "namespace/name",
            "namespace": "SWR's organization",
            "first_observed_at": "end of the first complete listing",
            "last_attempt_at": "end of the last poll, whatever its outcome",
            "last_complete_at": "end of the last recorded listing",
            "listing_hash": "fingerprint of that listing",
            "failures": "consecutive polls that failed",
            "last_error": "why the last poll failed or was held; null if it was ok",
            "not_before": (
                "start of the last recorded listing: a change seen next happened after this"
            ),
            "unlogged_from": "first change whose log line is pending; null if none is",
        },
    ),
    "images": (
        "The images that digests name, with the exact text of their manifests.",
        {
            "digest": "digest of the manifest, as the registry names it",
            "image_id": _TAG["image_id"],
            "media_type": "as the manifest states it",
            "schema": _TAG["schema"],
            "size": _TAG["size"],
            "manifest": "exact text of the manifest",
            "verified": "1: the text hashes to the digest; 0: it does not; null: no text",
            "first_observed_at": _FIRST_OBSERVED_AT,
            "number": "1, 2, 3 … in the order of arrival",
        },
    ),
    "tags": (
        "Each tag as the last recorded listing had it.",
        {"repository_id": _REPOSITORY_ID, **_TAG},
    ),
    "changes": (
        "The history: append-only, each change chained to the one before it.",
        {"repository_id": _REPOSITORY_ID, **_CHANGE},
    ),
    "change_images": (
        "The image that each change led to: an index by which tag_history finds a digest.",
        {
            "change_id": "changes.id; a deletion has no row",
            "image_number": "images.number of new_digest; null without a digest",
        },
    ),
    "observations": (
        "Runs of polls with the same outcome: the evidence of when tagsync was looking.",
        {
            "id": _NUMBER,
            "repository_id": _REPOSITORY_ID,
            "outcome": "ok, failed or held",
            "detail": "the reason for the outcome",
            "first_at": "end of the first poll of the run",
            "last_at": "end of the last poll of the run",
            "polls": "number of polls",
            "tags": "number of tags in the last of these listings; null if it failed",
        },
    ),
    "current_tags": (
        "Each tag now, with its repository's full name.",
        {
            "repository": _REPOSITORY,
            **_TAG,
            "media_type": "as the manifest states it",
            "verified": "1: the manifest hashes to the digest; 0: it does not; null: no manifest",
            "repository_id": _REPOSITORY_ID,
        },
    ),
    "change_log": (
        "The changes, with the repository's full name and whether the tag moved.",
        {
            "repository": _REPOSITORY,
            **_CHANGE,
            "moved": (
                "1 if the tag now points to another image; a change from or to null is not a move"
            ),
            "repository_id": _REPOSITORY_ID,
        },
    ),
    "tag_history": (
        "Each digest that a tag pointed to, from valid_from until valid_to.",
        {
            "repository": _REPOSITORY,
            "tag": _TAG["tag"],
            "digest": "digest that the tag pointed to; null if it was not resolved",
            "not_before": (
                "the interval began after this time; null: the tag was there when the repository"
                " was first listed"
            ),
            "valid_from": "the interval began no later than this time",
            "valid_to": "end of the first listing with another state; null: it lasts",
            "still_at": "last time at which the tag is known to have pointed to the digest",
            "repository_id": _REPOSITORY_ID,
        },
    ),
    "image_layers": (
        "The layers that a manifest references, as far as it is recorded.",
        {
            "digest": "digest of the manifest",
            "position": "0 is the lowest layer",
            "layer_digest": "digest of the layer",
            "size": "bytes; null if the manifest does not state it",
        },
    ),
    "image_parts": (
        "The index by which tagsync find finds configurations and layers.",
        {
            "batch": "0 for images 1 to 1024, 1 for the next 1024 …: some of them reference it",
            "part": "first 15 hexadecimal digits of the digest, as a number",
        },
    ),
    "image_platforms": (
        "The platforms that an index references.",
        {
            "index_digest": "digest of the index",
            "platform": "os/architecture, and the variant if there is one",
            "manifest_digest": "digest of that platform's manifest",
        },
    ),
    "index_manifests": (
        "The indexes that reference a manifest.",
        {
            "manifest_digest": "digest of a platform's manifest",
            "index_digest": "digest of the index",
        },
    ),
}
"""For each table and view, its description, and those of its columns."""

_DISPLAY: Final[dict[str, dict[str, Any]]] = {
    "repositories": {"facets": ["registry", "namespace"]},
    "images": {"facets": ["verified", "media_type"]},
    "tags": {"facets": ["repository_id"]},
    "changes": {"facets": ["kind"], "sort_desc": "id"},
    "observations": {"facets": ["outcome"], "sort_desc": "id"},
    "current_tags": {"facets": ["repository"]},
    "change_log": {"facets": ["kind", "moved"], "sort_desc": "id"},
    "image_platforms": {"facets": ["platform"]},
}
"""For some tables and views, the columns to count by, and the order of rows."""

TABLES: Final[dict[str, dict[str, Any]]] = {
    name: {"description": description, "columns": columns, **_DISPLAY.get(name, {})}
    for name, (description, columns) in _DESCRIPTIONS.items()
}
"""Datasette's metadata of each table and view (docs.datasette.io, "Metadata")."""


def metadata(database: str) -> dict[str, Any]:
    """Return Datasette's metadata: descriptions, facets, and the questions as canned queries.

    Args:
        database: Name of the database in Datasette.
    """
    queries = {
        question.slug: {
            "sql": question.sql,
            "title": question.title,
            "description": question.explanation,
            "params": [parameter.name for parameter in question.parameters],
        }
        for question in QUESTIONS
    }
    tables = {**TABLES, "_sqlite_migrations": {"hidden": True}}
    return {"title": "tagsync", "databases": {database: {"tables": tables, "queries": queries}}}
