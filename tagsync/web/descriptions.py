"""What every table, view and column means, in the words in which Datasette shows it."""

from typing import Any, Final

from tagsync.audit.questions import QUESTIONS

_REPOSITORY: Final = "registry/namespace/name"
_REPOSITORY_ID: Final = "the repository's id in repositories"
_DIGEST: Final = "what the tag points to; empty where it is listed but was not resolved"
_NOT_BEFORE: Final = (
    "it happened after this moment, the last complete listing without it; empty: it was there when"
    " the repository was first listed"
)
_OBSERVED_AT: Final = "and it happened no later than this moment, when a listing first showed it"
_HASH: Final = "SHA-256 over this change and the hash of the change before it"

_TAG: Final = {
    "tag": "the tag's name",
    "digest": _DIGEST,
    "image_id": "the digest of the image's configuration",
    "schema": "the Docker protocol's version, 1 or 2",
    "size": "bytes, as the registry says",
    "path": "the registry's external address of it",
    "internal_path": "the registry's internal address of it",
    "is_trusted": "1 if the registry says that it is signed",
    "tag_type": "0 a manifest, 1 a list of manifests",
    "scanned": "1 if the registry says that it was scanned",
    "registry_id": "the registry's own id of the row",
    "registry_repo_id": "the registry's own id of the repository",
    "domain_id": "the account that it belongs to",
    "created": "when it was created, as the registry says",
    "updated": "when it was pushed last, as the registry says",
    "first_observed_at": "the first listing that showed it, since it was last deleted",
    "changed_at": "observed_at of its last change",
}
_CHANGE: Final = {
    "id": "counts the changes from 1 on, without a gap",
    "tag": "the tag's name",
    "kind": "added, updated or deleted",
    "old_digest": "what it pointed to before",
    "new_digest": "what it points to since",
    "fields": "every documented field that differs, each as [old, new]",
    "not_before": _NOT_BEFORE,
    "observed_at": _OBSERVED_AT,
    "hash": _HASH,
}

TABLES: Final[dict[str, dict[str, Any]]] = {
    "repositories": {
        "description": "The repositories that are or were watched, and how their last poll ended.",
        "facets": ["registry", "namespace"],
        "columns": {
            "id": "its number here",
            "registry": "the registry's name in the configuration",
            "name": "namespace/name",
            "namespace": "SWR calls it the organization",
            "first_observed_at": "when its first complete listing had been read",
            "last_attempt_at": "when it was last polled, whatever came of it",
            "last_complete_at": "when its last complete listing had been read",
            "listing_hash": "of that listing's bytes",
            "failures": "polls in a row that failed",
            "last_error": "why the last poll failed or was held; empty if it did not",
            "not_before": "when that last listing began: a change seen next happened after this",
            "unlogged_from": "the first change whose log line is not yet written",
        },
    },
    "images": {
        "description": "What a digest names: the manifest's exact text, and whether it is true.",
        "facets": ["verified", "media_type"],
        "columns": {
            "digest": "the manifest's digest, as the registry names it",
            "image_id": "the digest of its configuration",
            "media_type": "what the manifest says of itself",
            "schema": "the Docker protocol's version, 1 or 2",
            "size": "bytes, as the registry says",
            "manifest": "its exact text",
            "verified": "1 if the text hashes to the digest, 0 if not, empty without a text",
            "first_observed_at": "the first listing that showed it",
            "number": "1, 2, 3 … as they came",
        },
    },
    "tags": {
        "description": "Each tag as the last listing had it.",
        "facets": ["repository_id"],
        "columns": {"repository_id": _REPOSITORY_ID, **_TAG},
    },
    "changes": {
        "description": "What happened to the tags: only ever added to, each chained to the last.",
        "facets": ["kind"],
        "sort_desc": "id",
        "columns": {"repository_id": _REPOSITORY_ID, **_CHANGE},
    },
    "change_images": {
        "description": "Which image a change led to: by this tag_history finds a digest.",
        "columns": {
            "change_id": "the id of the change; a deletion has no row",
            "image_number": "the number of the image that its new_digest names; empty without one",
        },
    },
    "observations": {
        "description": (
            "When we were looking: each row is a run of polls with the same outcome, without a gap"
            " of more than twice the interval."
        ),
        "facets": ["outcome"],
        "sort_desc": "id",
        "columns": {
            "id": "its number here",
            "repository_id": _REPOSITORY_ID,
            "outcome": "ok, failed, or held: a listing that was not believed yet",
            "detail": "why",
            "first_at": "the first poll of the run",
            "last_at": "the last one so far",
            "polls": "how many they were",
            "tags": "how many tags the last of them listed",
        },
    },
    "current_tags": {
        "description": "Each tag now, with its repository's full name.",
        "facets": ["repository"],
        "columns": {
            "repository": _REPOSITORY,
            **_TAG,
            "media_type": "what the manifest says of itself",
            "verified": "1 if the manifest hashes to the digest, 0 if it does not",
            "repository_id": _REPOSITORY_ID,
        },
    },
    "change_log": {
        "description": "The changes, with the repository's full name, and whether the tag moved.",
        "facets": ["kind", "moved"],
        "sort_desc": "id",
        "columns": {
            "repository": _REPOSITORY,
            **_CHANGE,
            "moved": "1 if it is made to point to something else",
            "repository_id": _REPOSITORY_ID,
        },
    },
    "tag_history": {
        "description": "Each digest that a tag pointed to, from valid_from until valid_to.",
        "columns": {
            "repository": _REPOSITORY,
            "tag": "the tag's name",
            "digest": _DIGEST,
            "not_before": _NOT_BEFORE,
            "valid_from": "and no later than this moment, when a listing first showed it",
            "valid_to": "the first listing without it; empty: it lasts",
            "still_at": "the last moment at which it is known to have pointed to it",
            "repository_id": _REPOSITORY_ID,
        },
    },
    "image_layers": {
        "description": "The layers that a manifest names, as far as manifests are recorded.",
        "columns": {
            "digest": "the manifest's digest",
            "position": "0 is the lowest",
            "layer_digest": "the layer's digest",
            "size": "bytes; empty where the manifest does not say",
        },
    },
    "image_parts": {
        "description": "By which tagsync find looks configurations and layers up.",
        "columns": {
            "batch": "0 for images 1 to 1024, 1 for the next 1024 …: some of these name it",
            "part": "the first 15 hexadecimal digits of its digest, as a number",
        },
    },
    "image_platforms": {
        "description": "The platforms that an index names.",
        "facets": ["platform"],
        "columns": {
            "index_digest": "the index's digest",
            "platform": "system/architecture, and the variant where there is one",
            "manifest_digest": "the digest of that platform's manifest",
        },
    },
    "index_manifests": {
        "description": "Which indexes name a manifest, by the manifest.",
        "columns": {
            "manifest_digest": "the digest of a platform's manifest",
            "index_digest": "the index's digest",
        },
    },
}
"""By table or view, what Datasette's metadata calls it (docs.datasette.io, "Metadata")."""


def metadata(database: str) -> dict[str, Any]:
    """Datasette's metadata: the descriptions, the facets, and the questions as canned queries.

    Args:
        database: the name by which Datasette knows the database.
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
