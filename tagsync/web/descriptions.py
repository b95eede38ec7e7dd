"""Descriptions of all tables, views and columns, as Datasette's metadata."""

from typing import Any, Final

from tagsync.audit.questions import QUESTIONS
from tagsync.database import schema

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
"""Facets (columns by which rows are counted) and row order of some tables and views."""

_HIDDEN: Final = ("_sqlite_migrations", schema.SEARCH_TABLE)
"""Internal tables. Datasette itself hides the shadow tables of FTS5."""

TABLES: Final[dict[str, dict[str, Any]]] = {
    name: {"description": description, "columns": columns, **_DISPLAY.get(name, {})}
    for name, (description, columns) in schema.descriptions().items()
}
"""Datasette's metadata of each table and view (docs.datasette.io, "Metadata")."""


def metadata(database: str) -> dict[str, Any]:
    """Return Datasette's metadata: descriptions, facets, and the saved questions.

    Datasette calls each question a "canned query".

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
    hidden = {name: {"hidden": True} for name in _HIDDEN}
    tables = {**TABLES, **hidden}
    return {"title": "tagsync", "databases": {database: {"tables": tables, "queries": queries}}}
